"""Small GGUF files with any metadata and tensors, written without the product's own reader or tables.

Format: docs/gguf.md of ggml-org/ggml; block sizes: ggml/src/ggml-common.h of llama.cpp.
"""

import math
import os
import random
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DEFAULT_ALIGNMENT = 32

_FORMATS = {
    "uint8": "B", "int8": "b", "uint16": "H", "int16": "h", "uint32": "I", "int32": "i",
    "float32": "f", "bool": "?", "uint64": "Q", "int64": "q", "float64": "d",
}  # fmt: skip
VALUE_NUMBERS = {
    "uint8": 0, "int8": 1, "uint16": 2, "int16": 3, "uint32": 4, "int32": 5, "float32": 6, "bool": 7,
    "string": 8, "array": 9, "uint64": 10, "int64": 11, "float64": 12,
}  # fmt: skip

BLOCKS = {
    "F32": (0, 1, 4), "F16": (1, 1, 2), "BF16": (30, 1, 2), "F64": (28, 1, 8), "I32": (26, 1, 4),
    "Q4_0": (2, 32, 18), "Q4_1": (3, 32, 20), "Q5_0": (6, 32, 22), "Q5_1": (7, 32, 24), "Q8_0": (8, 32, 34),
    "Q2_K": (10, 256, 84), "Q3_K": (11, 256, 110), "Q4_K": (12, 256, 144), "Q5_K": (13, 256, 176),
    "Q6_K": (14, 256, 210), "IQ4_NL": (20, 32, 18), "IQ4_XS": (23, 256, 136), "IQ3_S": (21, 256, 110),
    "IQ2_S": (22, 256, 82), "MXFP4": (39, 32, 17), "IQ1_S": (19, 256, 50), "IQ1_M": (29, 256, 56),
    "IQ2_XXS": (16, 256, 66), "IQ3_XXS": (18, 256, 98),
}  # fmt: skip
"""Type name to its number, weights per block and bytes per block."""

# What llama-quantize makes of a small llama model: file type, most matrices, `attn_v` and `ffn_down`, `output`.
QUANTS = {
    "F32": (0, "F32", "F32", "F32"), "F16": (1, "F16", "F16", "F16"), "BF16": (32, "BF16", "BF16", "BF16"),
    "Q4_0": (2, "Q4_0", "Q4_0", "Q6_K"), "Q4_1": (3, "Q4_1", "Q4_1", "Q6_K"), "Q5_0": (8, "Q5_0", "Q5_0", "Q6_K"),
    "Q5_1": (9, "Q5_1", "Q5_1", "Q6_K"), "Q8_0": (7, "Q8_0", "Q8_0", "Q8_0"), "Q2_K": (10, "Q2_K", "Q3_K", "Q6_K"),
    "Q3_K_S": (11, "Q3_K", "Q3_K", "Q6_K"), "Q3_K_M": (12, "Q3_K", "Q4_K", "Q6_K"),
    "Q3_K_L": (13, "Q3_K", "Q5_K", "Q6_K"), "Q4_K_S": (14, "Q4_K", "Q5_K", "Q6_K"),
    "Q4_K_M": (15, "Q4_K", "Q6_K", "Q6_K"), "Q5_K_S": (16, "Q5_K", "Q5_K", "Q6_K"),
    "Q5_K_M": (17, "Q5_K", "Q6_K", "Q6_K"), "Q6_K": (18, "Q6_K", "Q6_K", "Q6_K"),
    "IQ4_NL": (25, "IQ4_NL", "IQ4_NL", "Q6_K"), "IQ4_XS": (30, "IQ4_XS", "Q5_K", "Q6_K"),
    "IQ3_S": (26, "IQ3_S", "IQ3_S", "Q6_K"),
}  # fmt: skip
CHAT_TEMPLATE = "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{% endfor %}"


@dataclass(frozen=True)
class Typed:
    """A value whose type the builder shall not choose: `Typed("uint8", 1)`, `Typed("array", ("uint8", [1, 2]))`."""

    kind: str
    value: object


@dataclass(frozen=True)
class TensorInfo:
    """One tensor; `offset` None puts it behind the one before, `kind_number` replaces the number of `kind`."""

    name: str
    shape: tuple[int, ...]
    kind: str = "F32"
    offset: int | None = None
    kind_number: int | None = None

    @property
    def size_bytes(self) -> int:
        _, weights, block_bytes = BLOCKS[self.kind]
        return math.prod(self.shape) // weights * block_bytes


def gguf_bytes(
    metadata: Mapping[str, object],
    tensors: Sequence[TensorInfo | tuple[str, tuple[int, ...], str]] = (),
    *,
    version: int = 3,
    alignment: int = DEFAULT_ALIGNMENT,
    byte_order: str = "<",
    seed: int = 0,
) -> bytes:
    """Return a whole file. Python values get the narrowest usual type; `alignment` is not written: add the key."""
    infos = _infos(tensors)
    head = gguf_head(metadata, infos, version=version, alignment=alignment, byte_order=byte_order)
    data = bytearray(_aligned(_end(infos, alignment), alignment))
    chance = random.Random(seed)  # noqa: S311 (weights, not secrets)
    offset = 0
    for info in infos:
        offset = offset if info.offset is None else info.offset
        if offset + info.size_bytes <= len(data):
            data[offset : offset + info.size_bytes] = chance.randbytes(info.size_bytes)
        offset = _aligned(offset + info.size_bytes, alignment)
    return head + bytes(data)


def gguf_head(
    metadata: Mapping[str, object],
    tensors: Sequence[TensorInfo | tuple[str, tuple[int, ...], str]] = (),
    *,
    version: int = 3,
    alignment: int = DEFAULT_ALIGNMENT,
    byte_order: str = "<",
) -> bytes:
    """Return the file up to where the tensor data begins."""
    o = byte_order
    out = [b"GGUF", struct.pack(f"{o}IQQ", version, len(tensors), len(metadata))]
    out += [packed_string(name, o) + packed_value(value, o) for name, value in metadata.items()]
    offset = 0
    for info in _infos(tensors):
        offset = offset if info.offset is None else info.offset
        number = BLOCKS[info.kind][0] if info.kind_number is None else info.kind_number
        shape = struct.pack(f"{o}I{len(info.shape)}Q", len(info.shape), *info.shape)
        out.append(packed_string(info.name, o) + shape + struct.pack(f"{o}IQ", number, offset))
        offset = _aligned(offset + info.size_bytes, alignment)
    head = b"".join(out)
    return head + bytes(_aligned(len(head), alignment) - len(head))


def packed_string(text: str | bytes, byte_order: str = "<") -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return struct.pack(f"{byte_order}Q", len(raw)) + raw


def packed_value(value: object, byte_order: str = "<") -> bytes:
    """Return the type and the value as they stand behind a key."""
    typed = value if isinstance(value, Typed) else _typed(value)
    return struct.pack(f"{byte_order}I", VALUE_NUMBERS[typed.kind]) + _payload(typed, byte_order)


@dataclass(frozen=True)
class SmallModel:
    """What `model_bytes` writes; `extra` adds keys, and removes those whose value is None."""

    name: str = "Tiny Test"
    architecture: str = "llama"
    quant: str = "Q4_K_M"
    split: tuple[int, int] | None = None
    layers: int = 1
    context: int = 2048
    vocabulary: int = 64
    chat_template: str | None = CHAT_TEMPLATE
    extra: Mapping[str, object] = field(default_factory=dict)

    def parts(self) -> tuple[dict[str, object], list[TensorInfo]]:
        """Return metadata and tensors; as llama-gguf-split does, later shards have the `split.` keys alone."""
        tensors = _tensors(self.quant, self.layers, self.vocabulary)
        metadata = self._metadata()
        if self.split is not None:
            number, count = self.split
            keys = {"split.no": Typed("uint16", number), "split.count": Typed("uint16", count)}
            metadata = {
                **(metadata if number == 0 else {}),
                **keys,
                "split.tensors.count": Typed("int32", len(tensors)),
            }
            share = math.ceil(len(tensors) / count)
            tensors = tensors[number * share : (number + 1) * share]
        metadata |= self.extra
        return {key: value for key, value in metadata.items() if value is not None}, tensors

    def _metadata(self) -> dict[str, object]:
        a = self.architecture
        tokens = ["<unk>", "<s>", "</s>", *(f"▁w{number}" for number in range(self.vocabulary - 3))]
        types = Typed("array", ("int32", [1] * self.vocabulary))
        return {
            "general.architecture": a, "general.type": "model", "general.name": self.name,
            "general.license": "apache-2.0", "general.file_type": QUANTS[self.quant][0],
            "general.quantization_version": 2, f"{a}.context_length": self.context, f"{a}.embedding_length": 256,
            f"{a}.block_count": self.layers, f"{a}.feed_forward_length": 256, f"{a}.attention.head_count": 4,
            f"{a}.attention.head_count_kv": 1, f"{a}.attention.layer_norm_rms_epsilon": 1e-5,
            f"{a}.rope.dimension_count": 64, f"{a}.vocab_size": self.vocabulary, "tokenizer.ggml.model": "llama",
            "tokenizer.ggml.tokens": tokens, "tokenizer.ggml.scores": [0.0] * self.vocabulary,
            "tokenizer.ggml.token_type": types, "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
            "tokenizer.chat_template": self.chat_template,
        }  # fmt: skip


def model_bytes(
    name: str = "Tiny Test",
    architecture: str = "llama",
    quant: str = "Q4_K_M",
    split: tuple[int, int] | None = None,
    *,
    seed: int = 0,
    version: int = 3,
    **more: Any,  # noqa: ANN401 (the other fields of SmallModel)
) -> bytes:
    """Return a whole model of about 0.2 MB in `quant` (see QUANTS), or shard `split` = (number from 0, count) of it.

    Other seeds give other weights. `more` are fields of SmallModel: layers, context, vocabulary, chat_template, extra.
    """
    metadata, tensors = SmallModel(name, architecture, quant, split, **more).parts()
    return gguf_bytes(metadata, tensors, version=version, seed=seed)


def write_sparse_model(path: Path, model: SmallModel) -> Path:
    """Write the header of `model` and a hole where its weights would be: nearly no disk, right size."""
    metadata, tensors = model.parts()
    head = gguf_head(metadata, tensors)
    path.write_bytes(head)
    os.truncate(path, len(head) + _end(tensors, DEFAULT_ALIGNMENT))
    return path


def _tensors(quant: str, layers: int, vocabulary: int) -> list[TensorInfo]:
    _, most, more, output = QUANTS[quant]
    found = [TensorInfo("token_embd.weight", (256, vocabulary), most), TensorInfo("output_norm.weight", (256,)),
             TensorInfo("output.weight", (256, vocabulary), output)]  # fmt: skip
    for layer in range(layers):
        shapes = [
            ("attn_norm", (256,), "F32"), ("attn_q", (256, 256), most), ("attn_k", (256, 64), most),
            ("attn_v", (256, 64), more), ("attn_output", (256, 256), most), ("ffn_norm", (256,), "F32"),
            ("ffn_gate", (256, 256), most), ("ffn_up", (256, 256), most), ("ffn_down", (256, 256), more),
        ]  # fmt: skip
        found += [TensorInfo(f"blk.{layer}.{part}.weight", shape, kind) for part, shape, kind in shapes]
    return found


def _infos(tensors: Sequence[TensorInfo | tuple[str, tuple[int, ...], str]]) -> list[TensorInfo]:
    return [info if isinstance(info, TensorInfo) else TensorInfo(*info) for info in tensors]


def _end(infos: Sequence[TensorInfo], alignment: int) -> int:
    end = 0
    for info in infos:
        offset = end if info.offset is None else info.offset
        end = _aligned(offset + info.size_bytes, alignment) if info.offset is None else end
    return end


def _aligned(length: int, alignment: int) -> int:
    return -(-length // alignment) * alignment


def _typed(value: object) -> Typed:
    if isinstance(value, list):
        return Typed("array", (_typed(value[0]).kind, value))
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**31) <= value < 2**32:
        return Typed("int64" if value < 0 else "uint64", value)
    kinds = {bool: "bool", float: "float32", str: "string", bytes: "string"}
    return Typed(kinds.get(type(value)) or ("int32" if int(str(value)) < 0 else "uint32"), value)


def _payload(typed: Typed, byte_order: str) -> bytes:
    if typed.kind == "string":
        assert isinstance(typed.value, str | bytes)
        return packed_string(typed.value, byte_order)
    if typed.kind != "array":
        return struct.pack(f"{byte_order}{_FORMATS[typed.kind]}", typed.value)
    assert isinstance(typed.value, tuple)
    kind, items = typed.value
    head = struct.pack(f"{byte_order}IQ", VALUE_NUMBERS[kind], len(items))
    if kind in _FORMATS:
        return head + struct.pack(f"{byte_order}{len(items)}{_FORMATS[kind]}", *items)
    return head + b"".join(_payload(Typed(kind, item), byte_order) for item in items)
