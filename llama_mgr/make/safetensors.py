"""The header of a safetensors file: which tensors it holds, and that it is whole.

Format and limits: `safetensors/src/tensor.rs` of huggingface/safetensors, version 0.8.0. The tensors fill the file
behind the header, without holes. This reader is stricter in three points: an entry has the three known fields and no
others, keys are unique, and there are limits that no model comes near. Any bytes give a header or a BadCheckpointError,
within a second and 150 MB; the data is never read.
"""

import json
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from llama_mgr.errors import BadCheckpointError, NotFoundError, StorageError
from llama_mgr.make.safetensors_text import LONGEST_KEY_BYTES, LONGEST_VALUE_BYTES, DefectError, no_listing, pairs_of
from llama_mgr.store import storage_errors
from llama_mgr.text import printable

SUFFIX = ".safetensors"

_WHAT = "cannot use the weights"
_LENGTH_BYTES = 8
_HEADER_LIMIT_BYTES = 100_000_000  # MAX_HEADER_SIZE of the library
_TENSORS_LIMIT = 131_072  # the largest models have 100,000, in dozens of files
_ENTRY_LIMIT_BYTES = 4 * 1024
_LARGEST = 2**63 - 1
_METADATA = "__metadata__"

# enum Dtype of the library
_BITS = {
    "BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
    "C64": 64, "F64": 64, "I64": 64, "U64": 64,
}  # fmt: skip

# What else may have such a name, by its first bytes.
_OTHERS: tuple[tuple[tuple[bytes, ...], str, str | None], ...] = (
    (
        (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"),
        "it is a pickle under the name of a safetensors file; reading a pickle can run any code",
        "take the model from someone else",
    ),
    ((b"version https://git-lfs",), "it is a Git LFS pointer, not the file that it stands for", "run `git lfs pull`"),
    ((b"<!DOCTYPE", b"<!doctype", b"<html"), "it is a web page (HTML)", "download it again"),
    ((b"GGUF",), "it is a GGUF under the name of a safetensors file", None),
)


class SafeTensor(msgspec.Struct, frozen=True, gc=False):
    """One tensor; `shape` is empty for a single number."""

    name: str
    dtype: str
    """As the format spells it: `BF16`, `F8_E4M3`."""
    shape: tuple[int, ...]
    size_bytes: int
    offset: int
    """Counted from where the tensors begin."""
    weights: int


class SafetensorsHeader(msgspec.Struct, frozen=True, kw_only=True):
    """All of a safetensors file but its weights."""

    tensors: tuple[SafeTensor, ...]
    """In the order in which they lie in the file."""
    metadata: dict[str, str]
    data_offset: int
    """Where in the file the tensors begin."""
    size_bytes: int
    """Of the whole file."""

    @property
    def parameters(self) -> int:
        """How many numbers the tensors hold; of packed weights, the packs."""
        return sum(tensor.weights for tensor in self.tensors)

    @property
    def dtypes(self) -> dict[str, int]:
        """How many of them are of which type."""
        found: dict[str, int] = {}
        for tensor in self.tensors:
            found[tensor.dtype] = found.get(tensor.dtype, 0) + tensor.weights
        return found


def read_safetensors(path: Path) -> SafetensorsHeader:
    """Return the header of the file `path`, which is whole: its tensors fill it to the end.

    Raises:
        BadCheckpointError: it is no safetensors file, cut off or damaged; the message says what it looks like.
        NotFoundError: there is no such file.
        StorageError: it is a pipe or a device, or cannot be read.
    """
    with storage_errors("cannot read", path), _opened(path) as file:
        try:
            return _parsed(file, os.fstat(file.fileno()).st_size)
        except DefectError as defect:
            raise BadCheckpointError(_WHAT, path, defect.why, hint=defect.hint) from None


def _opened(path: Path) -> BinaryIO:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise NotFoundError("cannot read", path, "there is no such file") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise StorageError("cannot read", path, "it is not a regular file")
    return open(descriptor, "rb")  # noqa: PTH123 (a descriptor, not a path)


def _parsed(file: BinaryIO, size_bytes: int) -> SafetensorsHeader:
    length = _header_bytes(file.read(64), size_bytes)
    file.seek(_LENGTH_BYTES)
    metadata: dict[str, str] | None = None
    tensors: dict[str, SafeTensor] = {}
    for key, value in pairs_of(file, length):
        name = _name(key)
        if name in tensors or (name == _METADATA and metadata is not None):
            raise DefectError(f"its header has the key {printable(name)} twice")
        if name == _METADATA:
            metadata = _metadata(value)
        elif len(tensors) == _TENSORS_LIMIT:
            raise DefectError(f"it lists more than {_TENSORS_LIMIT:,} tensors, more than any model has in one file")
        else:
            tensors[name] = _tensor(name, value)
    data_offset = _LENGTH_BYTES + length
    ordered = tuple(sorted(tensors.values(), key=lambda tensor: (tensor.offset, tensor.size_bytes)))
    _require_filled(ordered, size_bytes - data_offset)
    return SafetensorsHeader(
        tensors=ordered, metadata=metadata or {}, data_offset=data_offset, size_bytes=size_bytes
    )  # fmt: skip


def _header_bytes(beginning: bytes, size_bytes: int) -> int:
    """Return how long the header is."""
    length = int.from_bytes(beginning[:_LENGTH_BYTES], "little")
    is_cut = _LENGTH_BYTES + length > size_bytes
    # The length comes first, and may look like any signature: that of 640 bytes begins as a pickle does.
    if length <= _HEADER_LIMIT_BYTES and not is_cut and beginning[_LENGTH_BYTES:].lstrip().startswith(b"{"):
        return length
    for signatures, what, hint in _OTHERS:
        if beginning.startswith(signatures):
            raise DefectError(what, hint)
    if size_bytes < _LENGTH_BYTES:
        raise DefectError(f"it has {size_bytes} bytes, fewer than any safetensors file", "download it again")
    if length > _HEADER_LIMIT_BYTES:
        raise DefectError(f"it claims a header of {length:,} bytes, more than the 100,000,000 that the format allows")
    if is_cut:
        why = f"it is cut off: it claims a header of {length:,} bytes, and the whole file has {size_bytes:,}"
        raise DefectError(why, "download or copy it again")
    raise no_listing(beginning[_LENGTH_BYTES:])


class _Entry(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


_AN_ENTRY = msgspec.json.Decoder(_Entry)
_A_NAME = msgspec.json.Decoder(str)
_SOME_METADATA = msgspec.json.Decoder(dict[str, str])


def _name(key: bytes) -> str:
    if len(key) > LONGEST_KEY_BYTES:
        raise DefectError(f"its header has a name of {len(key):,} bytes")
    try:
        return _A_NAME.decode(key)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise DefectError("its header has a name that is no text") from None


def _metadata(value: bytes) -> dict[str, str]:
    if len(value) > LONGEST_VALUE_BYTES:
        raise DefectError(f"its {_METADATA} has {len(value):,} bytes, more than {LONGEST_VALUE_BYTES:,}")
    try:
        found = _SOME_METADATA.decode(value)
        pairs: list[Any] = json.loads(value, object_pairs_hook=list)
    except (msgspec.MsgspecError, ValueError):
        raise DefectError(f"its {_METADATA} is not an object of texts") from None
    if len(found) != len(pairs):
        raise DefectError(f"its {_METADATA} has a key twice")
    return found


def _tensor(name: str, value: bytes) -> SafeTensor:
    entry = _entry(name, value)
    bits = _BITS.get(entry.dtype)
    if bits is None:
        raise DefectError(f"the tensor {printable(name)} has the unknown type '{printable(entry.dtype)}'")
    begin, end = entry.data_offsets
    weights = 1
    for length in entry.shape:
        weights *= length
        if not (0 <= length <= _LARGEST and weights * bits <= _LARGEST):
            raise DefectError(f"the tensor {printable(name)} has the impossible shape {printable(list(entry.shape))}")
    size_bytes, rest = divmod(weights * bits, 8)
    if rest or not 0 <= begin <= end <= _LARGEST or end - begin != size_bytes:
        raise DefectError(
            f"the tensor {printable(name)} lies at {begin:,} to {end:,}, and {entry.dtype} of the shape"
            f" {printable(list(entry.shape))} take {size_bytes:,} bytes"
        )
    return SafeTensor(name, entry.dtype, entry.shape, size_bytes, begin, weights)


def _entry(name: str, value: bytes) -> _Entry:
    if len(value) > _ENTRY_LIMIT_BYTES:
        raise DefectError(f"the tensor {printable(name)} is described by {len(value):,} bytes")
    try:
        entry = _AN_ENTRY.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DefectError(f"the tensor {printable(name)} is described wrongly: {printable(error)}") from None
    if value.count(b":") != len(_Entry.__struct_fields__):
        raise DefectError(f"the tensor {printable(name)} has a field twice")
    return entry


def _require_filled(tensors: tuple[SafeTensor, ...], data_bytes: int) -> None:
    """Refuse tensors that overlap, leave holes, or do not end where the file does."""
    end, before = 0, ""
    for tensor in tensors:
        if tensor.offset < end:
            raise DefectError(f"the tensors {printable(before)} and {printable(tensor.name)} overlap")
        if tensor.offset > end:
            raise DefectError(f"there is a hole of {tensor.offset - end:,} bytes before {printable(tensor.name)}")
        end, before = end + tensor.size_bytes, tensor.name
    if end > data_bytes:
        why = f"it is cut off: its tensors have {end:,} bytes, and {max(data_bytes, 0):,} are there"
        raise DefectError(why, "download or copy it again")
    if end < data_bytes:
        raise DefectError(f"{data_bytes - end:,} bytes follow its last tensor")
