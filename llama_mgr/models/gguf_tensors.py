"""The tensors that a GGUF header lists: read, and checked against each other and the end of the file."""

import struct
from collections.abc import Sequence

import msgspec

from llama_mgr.models.gguf_source import DefectError, Window
from llama_mgr.models.tensor_types import MEMORY_TYPES, REMOVED_TYPES, TENSOR_TYPES, TensorType
from llama_mgr.text import printable

_TENSORS_LIMIT = 16_384  # the largest models have a few thousand
_NAME_LIMIT_BYTES = 63  # GGML_MAX_NAME of ggml/include/ggml.h is 64 with its final zero
_DIMENSIONS_LIMIT = 4  # GGML_MAX_DIMS
_SMALLEST_BYTES = 24  # of an entry: length of the name, dimensions, type, offset
_LARGEST = 2**63 - 1
_LAYOUTS = [struct.Struct(f"<{dimensions}QIQ") for dimensions in range(_DIMENSIONS_LIMIT + 1)]


class Tensor(msgspec.Struct, frozen=True, gc=False):
    """One tensor; `shape` is in GGUF's order, the length of a row first, and empty for a single number."""

    name: str
    shape: tuple[int, ...]
    type: TensorType
    offset: int
    """Counted from where the tensors begin."""
    weights: int
    size_bytes: int


def read_tensors(window: Window, count: int) -> tuple[Tensor, ...]:
    """Read the `count` entries that come next; names are unique afterwards."""
    if count > _TENSORS_LIMIT:
        raise DefectError(f"it claims {count:,} tensors, more than any model has: it is damaged")
    if count * _SMALLEST_BYTES > window.left_bytes:
        raise window.cut_off(f"it lists {count:,} tensors")
    tensors: dict[str, Tensor] = {}
    for _ in range(count):
        name = _name(window)
        if name in tensors:
            raise DefectError(f"it has the tensor {printable(name)} twice")
        tensors[name] = _tensor(window, name)
    return tuple(tensors.values())


def _name(window: Window) -> str:
    raw = window.text("the name of a tensor", _NAME_LIMIT_BYTES)
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        name = ""
    if not (name and name.isprintable()):
        shown = printable(raw.decode("utf-8", "backslashreplace"))
        raise DefectError(f"it has a tensor whose name is not plain text: '{shown}'")
    return name


def _tensor(window: Window, name: str) -> Tensor:
    dimensions = window.u32()
    if dimensions > _DIMENSIONS_LIMIT:
        raise DefectError(f"the tensor {printable(name)} has {dimensions:,} dimensions, more than 4")
    *shape, number, offset = (int(part) for part in window.unpacked(_LAYOUTS[dimensions]))
    kind = TENSOR_TYPES.get(number)
    if kind is None:
        raise _unknown_type(name, number)
    weights = 1
    for length in shape:
        weights *= length
    if not 0 < weights <= _LARGEST:  # llama.cpp allows empty tensors by now; no model has one, damaged files do
        raise DefectError(f"the tensor {printable(name)} has the impossible shape {_shape_words(shape)}")
    if shape and shape[0] % kind.block_weights:
        raise DefectError(
            f"the rows of the tensor {printable(name)} have {shape[0]:,} weights, and blocks of {kind.name} have"
            f" {kind.block_weights}"
        )
    return Tensor(name, tuple(shape), kind, offset, weights, weights // kind.block_weights * kind.block_bytes)


def _shape_words(shape: Sequence[int]) -> str:
    return " x ".join(str(length - 2**64 if length > _LARGEST else length) for length in shape)


def _unknown_type(name: str, number: int) -> DefectError:
    if number in REMOVED_TYPES:
        why = f"is {REMOVED_TYPES[number]}, which llama.cpp no longer reads"
        return DefectError(f"the tensor {printable(name)} {why}", hint="take another quant of the model, such as Q4_0")
    if number in MEMORY_TYPES:
        why = f"is {MEMORY_TYPES[number]}, which llama.cpp has in memory only and cannot load"
        return DefectError(f"the tensor {printable(name)} {why}", hint="take or make a Q8_0")
    return DefectError(
        f"the tensor {printable(name)} has the unknown type {number}: it is damaged, or needs a newer llama-mgr and"
        " llama.cpp"
    )


def require_inside(tensors: Sequence[Tensor], data_offset: int, alignment: int, size_bytes: int) -> None:
    """Refuse tensors that begin off the alignment, overlap, or end beyond the file.

    llama.cpp wants each tensor right behind the one before; a file with gaps or another order is well-formed, and
    passes here. What pads the last tensor may be missing.
    """
    end, before = 0, ""
    for tensor in sorted(tensors, key=lambda one: one.offset):
        if tensor.offset % alignment:
            raise DefectError(f"the tensor {printable(tensor.name)} begins at {tensor.offset:,}, off the alignment")
        if tensor.offset < end:
            raise DefectError(f"the tensors {printable(before)} and {printable(tensor.name)} overlap")
        end, before = tensor.offset + tensor.size_bytes, tensor.name
    if data_offset + end > size_bytes and tensors:
        raise _beyond(tensors, data_offset, size_bytes, data_offset + end)


def _beyond(tensors: Sequence[Tensor], data_offset: int, size_bytes: int, wanted_bytes: int) -> DefectError:
    outside = [one for one in tensors if data_offset + one.offset + one.size_bytes > size_bytes]
    first = min(outside, key=lambda one: one.offset)
    return DefectError(
        f"it is cut off: it has {size_bytes:,} of {wanted_bytes:,} bytes, and ends before the tensor"
        f" {printable(first.name)} does",
        hint="download or copy it again",
    )
