"""The header of a GGUF file: what it says of the model, and where its tensors lie.

Format: docs/gguf.md of ggml-org/ggml, and ggml/src/gguf.cpp of llama.cpp b11434. That one is stricter in two points:
it wants each tensor right behind the one before, and no value longer than 2^30. In others this one is: keys and names
are plain text, no tensor is empty, and the limits below are far above every real model. Any bytes give a header or a
BadGgufError, within a second and 100 MB. Tensor data is never read, so a whole header does not mean that the weights
are right: only a sha256 does.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from llama_mgr.errors import BadGgufError
from llama_mgr.models.file_kinds import looks_like
from llama_mgr.models.gguf_source import WHAT, DefectError, FileSource, Source, Stamp, Window
from llama_mgr.models.gguf_tensors import Tensor, read_tensors, require_inside
from llama_mgr.models.gguf_vocabulary import Vocabularies
from llama_mgr.text import printable

MAGIC = b"GGUF"
TEMPLATE_KEY = "tokenizer.chat_template"
"""Of the default chat template, and the beginning of the keys of named ones."""

_VERSIONS = (2, 3)
_KEYS_LIMIT = 4_096  # models have fewer than 100
_KEY_LIMIT_BYTES = 65_535  # docs/gguf.md of ggml-org/ggml
_KEPT_VALUES = 4_096  # of one array: LLAMA_MAX_LAYERS is 512
_KEPT_IN_ALL = 65_536
_KEPT_TEXT_BYTES = 64 * 1024  # of one text that is no template
_KEPT_TEXT_IN_ALL_BYTES = 2 * 1024 * 1024
_DEFAULT_ALIGNMENT = 32  # GGUF_DEFAULT_ALIGNMENT
_ALIGNMENT_LIMIT = 16 * 1024 * 1024
_ALIGNMENT_KEY = "general.alignment"

# enum gguf_type
_STRING, _ARRAY, _UINT32 = 8, 9, 4
_NUMBERS = {
    0: ("uint8", "B"), 1: ("int8", "b"), 2: ("uint16", "H"), 3: ("int16", "h"), 4: ("uint32", "I"), 5: ("int32", "i"),
    6: ("float32", "f"), 7: ("bool", "?"), 10: ("uint64", "Q"), 11: ("int64", "q"), 12: ("float64", "d"),
}  # fmt: skip
_LAYOUTS = {number: struct.Struct(f"<{letter}") for number, (_, letter) in _NUMBERS.items()}
_KINDS = {number: name for number, (name, _) in _NUMBERS.items()} | {_STRING: "string", _ARRAY: "array"}


class Array(msgspec.Struct, frozen=True):
    """An array of the metadata: what it is made of and how long it is.

    `values` is there for short arrays of numbers and truth values (one per layer, say); long ones, such as the scores
    of a vocabulary, and strings are skipped: None.
    """

    kind: str
    count: int
    values: tuple[int | float | bool, ...] | None = None


Value = int | float | bool | str | Array


class GgufHeader(msgspec.Struct, frozen=True, kw_only=True):
    """All of a GGUF file but its weights."""

    version: int
    metadata: dict[str, Value]
    """Chat templates are whole. Other texts are cut at 64 KiB, and behind the first 2 MiB of them all they are empty:
    some files carry a whole `tokenizer.json`.
    """
    tensors: tuple[Tensor, ...]
    alignment: int
    data_offset: int
    """Where in the file the tensors begin."""
    size_bytes: int
    """Of the whole file."""
    stamp: Stamp | None = None
    """Which file it was read from; None for another source."""


def read_gguf(path: Path, vocabularies: Vocabularies | None = None) -> GgufHeader:
    """Return the header of the file `path`, which is whole: all its tensors lie inside it.

    Args:
        path: the file.
        vocabularies: what was seen in other files, for those who read many.

    Raises:
        BadGgufError: it is no GGUF file, cut off or damaged; the message says what it looks like.
        NotFoundError: there is no such file.
        StorageError: it cannot be read.
    """
    with FileSource(path) as source:
        header = parse_gguf(source, path, vocabularies)
        return msgspec.structs.replace(header, stamp=source.stamp)


def parse_gguf(source: Source, name: object, vocabularies: Vocabularies | None = None) -> GgufHeader:
    """Return the header of any `source`, called `name` in messages.

    Raises:
        BadGgufError: as `read_gguf`; whatever `source.read` raises passes through.
    """
    try:
        return _parsed(Window(source, vocabularies))
    except DefectError as defect:
        raise BadGgufError(WHAT, name, defect.why, hint=defect.hint) from None


def _parsed(window: Window) -> GgufHeader:
    version, tensor_count, key_count = _counts(window)
    metadata = _metadata(window, key_count)
    alignment = _alignment(metadata)
    tensors = read_tensors(window, tensor_count)
    data_offset = -(-window.position // alignment) * alignment
    require_inside(tensors, data_offset, alignment, window.size_bytes)
    return GgufHeader(
        version=version,
        metadata=metadata,
        tensors=tensors,
        alignment=alignment,
        data_offset=data_offset,
        size_bytes=window.size_bytes,
    )


def _counts(window: Window) -> tuple[int, int, int]:
    """Return the version and the numbers of tensors and of metadata keys."""
    beginning = window.beginning()
    if not beginning.startswith(MAGIC):
        raise DefectError(*looks_like(beginning, window.size_bytes))
    window.skip(len(MAGIC), "its magic")
    version = window.u32()
    if version not in _VERSIONS:
        raise _bad_version(version)
    tensors, keys = window.u64(), window.u64()
    if keys > _KEYS_LIMIT:
        raise DefectError(f"it claims {keys:,} metadata keys, more than any model has: it is damaged")
    return version, tensors, keys


def _bad_version(version: int) -> DefectError:
    if version and not version & 0xFFFF:  # as gguf.cpp tells it
        return DefectError("it is a big-endian GGUF, for machines such as s390x", hint="take the little-endian file")
    if version == 1:
        return DefectError("it is GGUF version 1, which llama.cpp no longer reads", hint="convert the model again")
    if version == 0:
        return DefectError("it says that it is GGUF version 0: it is damaged")
    return DefectError(f"it is GGUF version {version}, and 2 and 3 are known: it needs a newer llama-mgr")


@dataclass
class _Kept:
    """How much of the metadata may still be kept."""

    numbers: int = _KEPT_IN_ALL
    text_bytes: int = _KEPT_TEXT_IN_ALL_BYTES


def _metadata(window: Window, count: int) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    kept = _Kept()
    for _ in range(count):
        key = _key(window)
        if key in metadata:
            raise DefectError(f"it has the metadata key {printable(key)} twice")
        kind = window.u32()
        if key == _ALIGNMENT_KEY and kind != _UINT32:
            raise DefectError(f"{_ALIGNMENT_KEY} is {_KINDS.get(kind, kind)}, and must be uint32")
        metadata[key] = _value(window, key, kind, kept)
    return metadata


def _key(window: Window) -> str:
    raw = window.text("a metadata key", _KEY_LIMIT_BYTES)
    key = raw.decode("ascii", "backslashreplace")
    if not (raw.isascii() and key.isprintable() and key):
        raise DefectError(f"it has a metadata key that is not plain text: '{printable(key, 80)}'")
    return key


def _value(window: Window, key: str, kind: int, kept: _Kept) -> Value:
    layout = _LAYOUTS.get(kind)
    if layout is not None:
        return window.unpacked(layout)[0]
    if kind == _STRING:
        return _text(window, key, kept)
    if kind == _ARRAY:
        return _array(window, f"the array {printable(key)}", kept)
    raise _unknown(f"the metadata key {printable(key)}", kind)


def _text(window: Window, key: str, kept: _Kept) -> str:
    what = f"the value of {printable(key)}"
    if key.startswith(TEMPLATE_KEY):
        return window.decoded(what)
    before = window.position
    text = window.decoded_beginning(what, min(_KEPT_TEXT_BYTES, kept.text_bytes))
    kept.text_bytes -= min(_KEPT_TEXT_BYTES, kept.text_bytes, window.position - before)
    return text


def _array(window: Window, what: str, kept: _Kept) -> Array:
    kind, count = window.u32(), window.u64()
    layout = _LAYOUTS.get(kind)
    if layout is not None:
        length = count * layout.size
        if count > min(_KEPT_VALUES, kept.numbers) or length > window.left_bytes:
            window.skip(length, what)
            return Array(_KINDS[kind], count)
        kept.numbers -= count
        return Array(_KINDS[kind], count, window.unpacked(struct.Struct(f"<{count}{layout.format[1:]}")))
    if kind == _STRING:
        window.skip_strings(count, what)
        return Array(_KINDS[kind], count)
    if kind == _ARRAY:
        raise DefectError(f"{what} holds arrays, which llama.cpp does not read")
    raise _unknown(what, kind)


def _unknown(what: str, kind: int) -> DefectError:
    return DefectError(f"{what} has the unknown type {kind}: it is damaged, or needs a newer llama-mgr and llama.cpp")


def _alignment(metadata: Mapping[str, Value]) -> int:
    alignment: Any = metadata.get(_ALIGNMENT_KEY, _DEFAULT_ALIGNMENT)
    if not 0 < alignment <= _ALIGNMENT_LIMIT or alignment & (alignment - 1):
        raise DefectError(f"{_ALIGNMENT_KEY} is {alignment:,}, and must be a power of two up to 16 MiB")
    return int(alignment)
