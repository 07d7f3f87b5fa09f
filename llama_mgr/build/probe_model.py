"""A model of half a megabyte that knows nothing: loading and running it shows that a build can calculate.

GGUF version 3 (docs/gguf.md of ggml-org/ggml), architecture `llama`, one layer. Every matrix has another type, so that
a run goes through the kernels of the types that people use. All weights of a matrix are equal.
"""

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

_WIDTH = 256  # K quants come in blocks of 256 weights
_HEADS = 4
_CONTEXT = 128
_ALIGNMENT = 32
_UINT32, _FLOAT32, _INT32, _STRING, _ARRAY = 4, 6, 5, 8, 9  # enum gguf_metadata_value_type
_CONTROL, _UNKNOWN, _BYTE = 3, 2, 6  # enum llama_token_type
_SCALE = struct.pack("<e", 1 / 1024)


@dataclass(frozen=True)
class _Type:
    """A tensor type of ggml: its number, and one block of weights."""

    number: int
    weights: int
    block: bytes


# Field order in ggml/src/ggml-common.h.
_F32 = _Type(0, 1, struct.pack("<f", 1.0))
_F16 = _Type(1, 1, _SCALE)
_Q4_0 = _Type(2, 32, _SCALE + b"\x79" * 16)
_Q8_0 = _Type(8, 32, _SCALE + b"\x01" * 32)
_Q4_K = _Type(12, 256, _SCALE * 2 + b"\x21" * 12 + b"\x53" * 128)
_Q5_K = _Type(13, 256, _SCALE * 2 + b"\x21" * 12 + b"\x0f" * 32 + b"\x53" * 128)
_Q6_K = _Type(14, 256, b"\x53" * 128 + b"\x55" * 64 + b"\x01" * 16 + _SCALE)

_TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
_TENSORS: Sequence[tuple[str, tuple[int, ...], _Type]] = [
    ("token_embd.weight", (_WIDTH, len(_TOKENS)), _F16),
    ("output_norm.weight", (_WIDTH,), _F32),
    ("output.weight", (_WIDTH, len(_TOKENS)), _Q6_K),
    ("blk.0.attn_norm.weight", (_WIDTH,), _F32),
    ("blk.0.attn_q.weight", (_WIDTH, _WIDTH), _Q4_0),
    ("blk.0.attn_k.weight", (_WIDTH, _WIDTH), _Q8_0),
    ("blk.0.attn_v.weight", (_WIDTH, _WIDTH), _F16),
    ("blk.0.attn_output.weight", (_WIDTH, _WIDTH), _Q4_K),
    ("blk.0.ffn_norm.weight", (_WIDTH,), _F32),
    ("blk.0.ffn_gate.weight", (_WIDTH, _WIDTH), _Q5_K),
    ("blk.0.ffn_up.weight", (_WIDTH, _WIDTH), _Q6_K),
    ("blk.0.ffn_down.weight", (_WIDTH, _WIDTH), _Q4_K),
]


def probe_model() -> bytes:
    """Return the whole GGUF file (about 0.6 MB)."""
    metadata = list(_metadata())
    infos, offset = b"", 0
    for name, shape, kind in _TENSORS:
        infos += (
            _string(name)
            + struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
            + struct.pack("<IQ", kind.number, offset)
        )
        offset += len(_aligned(_data(shape, kind)))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(_TENSORS), len(metadata)) + b"".join(metadata) + infos
    return _aligned(head) + b"".join(_aligned(_data(shape, kind)) for _, shape, kind in _TENSORS)


def _metadata() -> Iterator[bytes]:
    for name, text in {"general.architecture": "llama", "tokenizer.ggml.model": "llama"}.items():
        yield _string(name) + struct.pack("<I", _STRING) + _string(text)
    numbers = {
        "context_length": _CONTEXT, "embedding_length": _WIDTH, "block_count": 1, "feed_forward_length": _WIDTH,
        "attention.head_count": _HEADS, "attention.head_count_kv": _HEADS, "rope.dimension_count": _WIDTH // _HEADS,
    }  # fmt: skip
    for name, number in numbers.items():
        yield _string(f"llama.{name}") + struct.pack("<II", _UINT32, number)
    yield _string("llama.attention.layer_norm_rms_epsilon") + struct.pack("<If", _FLOAT32, 1e-5)
    types = [_UNKNOWN, _CONTROL, _CONTROL, *[_BYTE] * 256]
    yield _array("tokenizer.ggml.tokens", _STRING, [_string(token) for token in _TOKENS])
    yield _array("tokenizer.ggml.scores", _FLOAT32, [struct.pack("<f", 0.0)] * len(_TOKENS))
    yield _array("tokenizer.ggml.token_type", _INT32, [struct.pack("<i", kind) for kind in types])


def _array(name: str, kind: int, items: Sequence[bytes]) -> bytes:
    return _string(name) + struct.pack("<IIQ", _ARRAY, kind, len(items)) + b"".join(items)


def _string(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _data(shape: tuple[int, ...], kind: _Type) -> bytes:
    weights = 1
    for length in shape:
        weights *= length
    return kind.block * (weights // kind.weights)


def _aligned(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNMENT)
