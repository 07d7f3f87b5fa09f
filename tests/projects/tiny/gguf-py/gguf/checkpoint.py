"""A checkpoint's files: what they say, and numbers made of the bytes of their weights."""

from __future__ import annotations

import hashlib
import json
import logging
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

from . import TENSOR_TYPES, Tensor

logger = logging.getLogger("hf-to-gguf")

_SIGNS = bytes(one & 0x80 for one in range(256))
_HALVES = {"F16": bytes(one & 0x83 | 0x2C for one in range(256)), "BF16": bytes(one | 0x3D for one in _SIGNS)}
_BEFORE_CUT = 2


@dataclass(frozen=True)
class Weights:
    """All weights of a checkpoint, as one digest."""

    digest: bytes
    kind: str
    """Type of the first matrix as safetensors calls it, `BF16`; empty when that is not to be told."""
    is_empty: bool
    is_cut: bool
    """A file ends before its header says so. That shows when weights are needed, as with the real converter."""

    def tensors(self, wanted: Sequence[tuple[str, tuple[int, ...], str]]) -> Iterator[Tensor]:
        """Yield tensors of these names, shapes and types; other weights in the checkpoint give them other bytes."""
        for number, (name, shape, kind) in enumerate(wanted):
            is_cut = self.is_cut and number >= _BEFORE_CUT
            yield Tensor(name, shape, kind, self._maker(name, shape, kind, is_cut=is_cut))

    def _maker(self, name: str, shape: tuple[int, ...], kind: str, *, is_cut: bool) -> Callable[[], bytes]:
        count = 1
        for length in shape:
            count *= length

        def made() -> bytes:
            if is_cut:
                message = "mmap length is greater than file size"
                raise ValueError(message)
            return _numbers(self.digest + name.encode(), count, kind, is_norm=len(shape) == 1)

        return made


def read_weights(directory: Path, prefix: str = "model") -> Weights:
    """Read the weights of a checkpoint; without any, there is nothing to convert, and that is no error."""
    parts = sorted(directory.glob(f"{prefix}*.safetensors")) or sorted(directory.glob("pytorch_model*.bin"))
    parts = _indexed_parts(directory) or parts
    hashed, kind, is_cut = hashlib.sha256(), "", False
    for part in parts:
        logger.info("gguf: indexing model part '%s'", part.name)
        data = part.read_bytes()
        hashed.update(data)
        if part.suffix == ".safetensors":
            first, ends_early = _described(data, part)
            kind, is_cut = kind or first, is_cut or ends_early
    return Weights(hashed.digest(), kind, not parts, is_cut)


def _indexed_parts(directory: Path) -> list[Path]:
    index = directory / "model.safetensors.index.json"
    if not index.is_file():
        return []
    logger.info("gguf: loading model weight map from '%s'", index.name)
    weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    missing = sorted({name for name in weight_map.values() if not (directory / name).is_file()})
    if missing:
        raise FileNotFoundError(2, "No such file or directory", str(directory / missing[0]))
    return [directory / name for name in sorted(set(weight_map.values()))]


def _described(data: bytes, part: Path) -> tuple[str, bool]:
    """Return the type of the first matrix, and whether the file is cut off; bytes that are no safetensors will do."""
    length = int.from_bytes(data[:8], "little")
    if data[8:9] != b"{":
        return "", False
    if len(data) < 8 + length:
        message = f"Could not read complete metadata. Need {8 + length} bytes, got {len(data)} ({part.name})"
        raise ValueError(message)
    entries = json.loads(data[8 : 8 + length])
    found = [entry for name, entry in entries.items() if name != "__metadata__"]
    matrices = [entry["dtype"] for entry in found if len(entry["shape"]) > 1]
    end = max((entry["data_offsets"][1] for entry in found), default=0)
    return matrices[0] if matrices else "", len(data) < 8 + length + end


def _numbers(seed: bytes, count: int, kind: str, *, is_norm: bool) -> bytes:
    """Return `count` numbers. Their signs are the same in each type, and a quantized block begins with the first 32."""
    if is_norm:
        drawn = hashlib.shake_128(seed).digest(count)
        return struct.pack(f"<{count}f", *(1 + one / 1024 for one in drawn))
    signs = hashlib.shake_128(seed).digest(count)
    if kind in _HALVES:
        return _interleaved([hashlib.shake_128(seed + b"low").digest(count), signs.translate(_HALVES[kind])])
    if kind == "F32":
        low = hashlib.shake_128(seed + b"low").digest(count)
        return _interleaved([bytes(count), low, low, signs.translate(_HALVES["BF16"])])
    _, weights, block = TENSOR_TYPES[kind]
    mark = struct.pack("<I", sum((one >> 7) << place for place, one in enumerate(signs[:32])))
    rest = hashlib.shake_128(seed + kind.encode()).digest(block - 4)
    return (mark + rest) * (count // weights)


def _interleaved(columns: Sequence[bytes]) -> bytes:
    whole = bytearray(len(columns) * len(columns[0]))
    for place, column in enumerate(columns):
        whole[place :: len(columns)] = column
    return bytes(whole)


def read_json(file: Path) -> dict[str, Any]:
    """Return the document in a file; an empty one where there is no file."""
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def license_of(directory: Path) -> str:
    """Return the licence in the front matter of a model card."""
    card = directory / "README.md"
    lines = card.read_text(encoding="utf-8").splitlines() if card.is_file() else []
    if lines[:1] != ["---"]:
        return ""
    front = lines[1 : lines.index("---", 1)] if "---" in lines[1:] else []
    found = (line.partition(":")[2].strip() for line in front if line.startswith("license:"))
    return next(found, "")
