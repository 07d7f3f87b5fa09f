"""Checkpoints as Hugging Face has them: a tiny Llama that converts, and hostile ones that look like it.

`CANARIES` are repositories that would run code in who reads them carelessly, and look like others. Those that bring the
code themselves write a marker file when it runs.
"""

import json
import pickle
import py_compile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from llama_mgr.errors import BadCheckpointError, LlamaMgrError
from llama_mgr.make.checkpoint_dir import inspect_checkpoint

HIDDEN, HEADS, KV_HEADS, INTERMEDIATE, LAYERS = 32, 4, 2, 64, 2
_SPECIAL = ("<unk>", "<s>", "</s>")
TOKENS = (*_SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *"\u2581abcdefghijkl")
DATA = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
"""The files of what `write_checkpoint` writes."""
_BYTES = {"F16": 2, "BF16": 2, "F32": 4, "F8_E4M3": 1, "I64": 8}

TensorBytes = tuple[str, Sequence[int], bytes]
"""Type, shape, data."""


def write_safetensors(
    path: Path, tensors: Mapping[str, TensorBytes], metadata: Mapping[str, str] | None = None
) -> Path:
    """Write the tensors in the given order, as the library does it."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    offset = 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + b"".join(data for _, _, data in tensors.values()))
    return path


def llama_tensors(dtype: str = "F16") -> dict[str, TensorBytes]:
    """Return the weights of the tiny Llama, which are all zero."""
    kv = HIDDEN // HEADS * KV_HEADS
    layer = {
        "self_attn.q_proj": (HIDDEN, HIDDEN), "self_attn.k_proj": (kv, HIDDEN), "self_attn.v_proj": (kv, HIDDEN),
        "self_attn.o_proj": (HIDDEN, HIDDEN), "mlp.gate_proj": (INTERMEDIATE, HIDDEN),
        "mlp.up_proj": (INTERMEDIATE, HIDDEN), "mlp.down_proj": (HIDDEN, INTERMEDIATE),
        "input_layernorm": (HIDDEN,), "post_attention_layernorm": (HIDDEN,),
    }  # fmt: skip
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (len(TOKENS), HIDDEN),
        "model.norm.weight": (HIDDEN,),
        **{f"model.layers.{n}.{name}.weight": shape for n in range(LAYERS) for name, shape in layer.items()},
    }
    return {name: (dtype, shape, _zeros(dtype, shape)) for name, shape in shapes.items()}


def _zeros(dtype: str, shape: Sequence[int]) -> bytes:
    count = _BYTES[dtype]
    for length in shape:
        count *= length
    return bytes(count)


def llama_config(**more: object) -> dict[str, Any]:
    """Return the configuration of the tiny Llama, with `more` on top."""
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float16",
        "hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS, "hidden_act": "silu",
        "max_position_embeddings": 128, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": True,
        "attention_bias": False, "vocab_size": len(TOKENS), "bos_token_id": 1, "eos_token_id": 2, **more,
    }  # fmt: skip


def write_json(path: Path, document: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1))
    return path


def write_checkpoint(
    directory: Path, *, config: Mapping[str, object] | None = None, shards: int = 1, dtype: str = "F16"
) -> Path:
    """Write a checkpoint of the tiny Llama, which the converter of llama.cpp takes; return the directory.

    Args:
        directory: where to.
        config: fields of config.json besides the usual.
        shards: how many files the weights are in; more than one come with an index.
        dtype: of the weights.
    """
    write_json(directory / "config.json", llama_config(**(config or {})))
    write_json(directory / "generation_config.json", {"bos_token_id": 1, "eos_token_id": 2})
    _write_tokenizer(directory)
    tensors = llama_tensors(dtype)
    if shards == 1:
        write_safetensors(directory / "model.safetensors", tensors, {"format": "pt"})
        return directory
    places: dict[str, str] = {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensor for place, (name, tensor) in enumerate(tensors.items()) if place % shards == number}
        write_safetensors(directory / file, part, {"format": "pt"})
        places |= dict.fromkeys(part, file)
    write_json(directory / "model.safetensors.index.json", {"metadata": {"total_size": 0}, "weight_map": places})
    return directory


def refusal(directory: Path, kind: type[LlamaMgrError] = BadCheckpointError) -> str:
    """Return the message with which a checkpoint is refused, just as a `kind`."""
    with pytest.raises(kind) as caught:
        inspect_checkpoint(directory)
    assert type(caught.value) is kind
    return caught.value.message


def _write_tokenizer(directory: Path) -> None:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": number, "content": token, **flags} for number, token in enumerate(_SPECIAL)],
        "normalizer": None, "pre_tokenizer": None, "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(TOKENS)}, "merges": [],
        },
    }  # fmt: skip
    write_json(directory / "tokenizer.json", tokenizer)
    write_json(directory / "tokenizer_config.json", tokenizer_config())


def tokenizer_config(**more: object) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
        "model_max_length": 128, "clean_up_tokenization_spaces": False, **more,
    }  # fmt: skip


def write_adapter(directory: Path, base: str = "owner/base") -> Path:
    """Write a LoRA adapter of the tiny Llama, as PEFT does it."""
    write_json(directory / "adapter_config.json", adapter_config(base))
    name = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors: dict[str, TensorBytes] = {
        f"{name}.lora_A.weight": ("F32", (2, HIDDEN), _zeros("F32", (2, HIDDEN))),
        f"{name}.lora_B.weight": ("F32", (HIDDEN, 2), _zeros("F32", (HIDDEN, 2))),
    }
    write_safetensors(directory / "adapter_model.safetensors", tensors)
    return directory


def adapter_config(base: str) -> dict[str, Any]:
    return {"peft_type": "LORA", "base_model_name_or_path": base, "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}


# -- canaries ----------------------------------------------------------------------------------------------------------


class _Touching:
    """Unpickling it opens the marker file."""

    def __init__(self, marker: Path) -> None:
        self._marker = str(marker)

    def __reduce__(self) -> tuple[object, ...]:
        return open, (self._marker, "w")


def _pickled(marker: Path) -> bytes:
    return pickle.dumps({"model.embed_tokens.weight": _Touching(marker)}, protocol=2)


def _write_code(file: Path, marker: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"open({str(marker)!r}, 'w').close()\n\n\nclass Thing:\n    pass\n")


def _config_auto_map(directory: Path, marker: Path) -> None:
    auto_map = {"AutoConfig": "modeling_thing.Thing", "AutoModelForCausalLM": "modeling_thing.Thing"}
    write_checkpoint(directory, config={"model_type": "thing", "auto_map": auto_map})
    _write_code(directory / "modeling_thing.py", marker)


def _tokenizer_auto_map(directory: Path, marker: Path) -> None:
    # For this architecture, the converter of b11434 does let transformers run the code.
    write_checkpoint(directory, config={"architectures": ["QWenLMHeadModel"], "model_type": "qwen"})
    shape = (len(TOKENS), HIDDEN)
    write_safetensors(directory / "model.safetensors", {"transformer.wte.weight": ("F16", shape, _zeros("F16", shape))})
    fields = {"tokenizer_class": "Thing", "auto_map": {"AutoTokenizer": ["tokenization_thing.Thing", None]}}
    write_json(directory / "tokenizer_config.json", tokenizer_config(**fields))
    _write_code(directory / "tokenization_thing.py", marker)


def _remote_auto_map(directory: Path, marker: Path) -> None:
    del marker  # the code lies elsewhere
    write_checkpoint(directory)
    fields = {"auto_map": {"AutoTokenizer": [None, "evil/repo--tokenization_thing.Thing"]}}
    write_json(directory / "tokenizer_config.json", tokenizer_config(**fields))


def _nested_auto_map(directory: Path, marker: Path) -> None:
    del marker
    inner = {**llama_config(), "auto_map": {"AutoConfig": "evil/repo--configuration_thing.Thing"}}
    write_checkpoint(directory, config={"parts": [{"text_config": inner}]})


def _processor_auto_map(directory: Path, marker: Path) -> None:
    del marker
    write_checkpoint(directory)
    write_json(directory / "processor_config.json", {"auto_map": {"AutoProcessor": "evil/repo--processing.Thing"}})


def _code_below(directory: Path, marker: Path) -> None:
    write_checkpoint(directory)
    _write_code(directory / "custom_generate" / "generate.py", marker)


def _only_pickles(directory: Path, marker: Path) -> None:
    write_checkpoint(directory)
    (directory / "model.safetensors").unlink()
    (directory / "pytorch_model.bin").write_bytes(_pickled(marker))


def _renamed_pickle(directory: Path, marker: Path) -> None:
    write_checkpoint(directory)
    (directory / "model.safetensors").write_bytes(_pickled(marker))


def _internal_attention(directory: Path, marker: Path) -> None:
    del marker
    write_checkpoint(directory, config={"_attn_implementation_internal": "evil/kernel"})


def _attention_kernel(directory: Path, marker: Path) -> None:
    del marker
    write_checkpoint(directory, config={"attn_implementation": "paged|evil/kernel@main:thing"})


def _compiled_code(directory: Path, marker: Path) -> None:
    write_checkpoint(directory)
    source = directory / "sentencepiece.py"
    _write_code(source, marker)
    py_compile.compile(str(source), str(source.with_suffix(".pyc")), doraise=True)
    source.unlink()
    (directory / "_sentencepiece.abi3.so").write_bytes(b"\x7fELF" + bytes(60))


def _linked_code(directory: Path, marker: Path) -> None:
    write_checkpoint(directory)
    outside = directory.with_name(f"{directory.name}-blobs") / "0123456789abcdef"
    _write_code(outside, marker)
    (directory / "numpy.py").symlink_to(outside)


def _pickled_adapter(directory: Path, marker: Path) -> None:
    write_json(directory / "adapter_config.json", adapter_config("owner/base"))
    (directory / "adapter_model.bin").write_bytes(_pickled(marker))


CANARIES: dict[str, Callable[[Path, Path], None]] = {
    "config-auto-map": _config_auto_map,
    "tokenizer-auto-map": _tokenizer_auto_map,
    "remote-auto-map": _remote_auto_map,
    "nested-auto-map": _nested_auto_map,
    "processor-auto-map": _processor_auto_map,
    "code-below": _code_below,
    "only-pickles": _only_pickles,
    "renamed-pickle": _renamed_pickle,
    "internal-attention": _internal_attention,
    "attention-kernel": _attention_kernel,
    "compiled-code": _compiled_code,
    "linked-code": _linked_code,
    "pickled-adapter": _pickled_adapter,
}
"""Each is given a directory to fill, and the marker file."""
