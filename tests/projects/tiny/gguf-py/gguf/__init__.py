"""Writes GGUF files, whole or in shards, with the words and the progress bars of llama.cpp's writer."""

from __future__ import annotations

import logging
import os
import struct
import sys
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

logger = logging.getLogger("gguf.gguf_writer")

ALIGNMENT = 32
FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7, "bf16": 32, "tq1_0": 36, "tq2_0": 37}
TENSOR_TYPES = {
    "F32": (0, 1, 4), "F16": (1, 1, 2), "Q8_0": (8, 32, 34), "BF16": (30, 1, 2), "TQ1_0": (34, 256, 54),
    "TQ2_0": (35, 256, 66),
}  # fmt: skip
"""Name to number, weights in a block, bytes of a block."""

_UINT16, _UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 2, 4, 5, 6, 7, 8, 9
_PIECES = 200


@dataclass(frozen=True)
class Tensor:
    """One tensor; `data` makes its bytes when it is written."""

    name: str
    shape: tuple[int, ...]
    kind: str
    data: Callable[[], bytes]

    @property
    def size_bytes(self) -> int:
        """How much room its data takes."""
        _, weights, block = TENSOR_TYPES[self.kind]
        count = 1
        for length in self.shape:
            count *= length
        return count // weights * block


@dataclass
class Writer:
    """Collects keys and tensors, then writes them; a limit of 0 means none."""

    max_bytes: int = 0
    max_tensors: int = 0
    empty_first: bool = False
    dry_run: bool = False
    keys: dict[str, bytes] = field(default_factory=dict)
    shards: list[list[Tensor]] = field(default_factory=lambda: [[]])

    def add_uint32(self, key: str, value: int) -> None:
        self.keys[key] = struct.pack("<II", _UINT32, value)

    def add_float32(self, key: str, value: float) -> None:
        self.keys[key] = struct.pack("<If", _FLOAT32, value)

    def add_bool(self, key: str, value: bool) -> None:
        self.keys[key] = struct.pack("<I?", _BOOL, value)

    def add_string(self, key: str, value: str) -> None:
        self.keys[key] = struct.pack("<I", _STRING) + _text(value)

    def add_strings(self, key: str, values: Sequence[str]) -> None:
        self.keys[key] = struct.pack("<IIQ", _ARRAY, _STRING, len(values)) + b"".join(map(_text, values))

    def add_int32s(self, key: str, values: Sequence[int]) -> None:
        self.keys[key] = struct.pack(f"<IIQ{len(values)}i", _ARRAY, _INT32, len(values), *values)

    def add_float32s(self, key: str, values: Sequence[float]) -> None:
        self.keys[key] = struct.pack(f"<IIQ{len(values)}f", _ARRAY, _FLOAT32, len(values), *values)

    def add_tensor(self, tensor: Tensor) -> None:
        """Put a tensor into the last shard, or into a new one when that is full."""
        last = self.shards[-1]
        if self.empty_first and len(self.shards) == 1:
            self.shards.append([tensor])
            return
        size = sum(one.size_bytes for one in last) + tensor.size_bytes
        is_full = bool(self.max_tensors) and len(last) >= self.max_tensors
        if last and (is_full or 0 < self.max_bytes < size):
            self.shards.append([])
        self.shards[-1].append(tensor)

    def write(self, path: Path) -> None:
        """Write one file, or all shards beside each other; a dry run only names them, and exits."""
        count = len(self.shards)
        if count == 1 and (self.max_bytes or self.max_tensors):
            logger.warning("Model fails split requirements, not splitting")
        numbers = range(1, count + 1)
        paths = [path.with_name(f"{path.stem}-{number:05d}-of-{count:05d}.gguf") for number in numbers]
        paths = paths if count > 1 else [path]
        self._tell_plan(paths)
        files = [one.open("wb") for one in paths]
        for number, file in enumerate(files):
            file.write(self._head(number))
            file.flush()
        self._write_tensors(files)
        for file in files:
            file.close()

    def _tell_plan(self, paths: Sequence[Path]) -> None:
        logger.info("Writing the following files:")
        for path, shard in zip(paths, self.shards, strict=True):
            size = _size_words(sum(one.size_bytes for one in shard))
            logger.info("%s: n_tensors = %d, total_size = %s", path, len(shard), size)
        if self.dry_run:
            logger.info("Dry run, not writing files")
            for path in paths:
                print(path)
            sys.exit()

    def _head(self, number: int) -> bytes:
        keys = dict(self.keys) if number == 0 else {}
        shard, count = self.shards[number], len(self.shards)
        if count > 1:
            keys["split.no"] = struct.pack("<IH", _UINT16, number)
            keys["split.count"] = struct.pack("<IH", _UINT16, count)
            keys["split.tensors.count"] = struct.pack("<Ii", _INT32, sum(map(len, self.shards)))
        head = b"GGUF" + struct.pack("<IQQ", 3, len(shard), len(keys))
        head += b"".join(_text(key) + value for key, value in keys.items())
        offset = 0
        for tensor in shard:
            shape = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
            head += _text(tensor.name) + shape + struct.pack("<IQ", TENSOR_TYPES[tensor.kind][0], offset)
            offset += _padded(tensor.size_bytes)
        return head + bytes(_padded(len(head)) - len(head))

    def _write_tensors(self, files: Sequence[BinaryIO]) -> None:
        whole = sum(tensor.size_bytes for shard in self.shards for tensor in shard)
        bar = Bar(whole)
        for number, (file, shard) in enumerate(zip(files, self.shards, strict=True), 1):
            if len(files) > 1:
                Bar(sum(tensor.size_bytes for tensor in shard), f"Shard ({number}/{len(files)})")
            for tensor in shard:
                _write_slowly(file, tensor.data(), whole, bar)
                file.write(bytes(_padded(tensor.size_bytes) - tensor.size_bytes))
        bar.close()


class Bar:
    """What tqdm draws on stderr where that is no terminal."""

    def __init__(self, total: int, title: str = "Writing") -> None:
        self._total, self._title = total, title
        self._done, self._started_s, self._drawn_s = 0, time.monotonic(), 0.0
        self._draw()

    def update(self, size: int) -> None:
        """Add to what is done; draws ten times a second at most."""
        self._done += size
        if time.monotonic() - self._drawn_s > 0.1:
            self._draw()

    def close(self) -> None:
        self._draw()
        sys.stderr.write("\n")

    def _draw(self) -> None:
        self._drawn_s = time.monotonic()
        took_s = int(self._drawn_s - self._started_s)
        clock = f"{took_s // 60:02d}:{took_s % 60:02d}"
        shown = f"{self._title}: 0.00byte [{clock}, ?byte/s]"
        if self._total:
            share, passed_s = self._done / self._total, self._drawn_s - self._started_s
            sizes = f"{_scaled(self._done)}/{_scaled(self._total)}"
            rate = _scaled(self._done / passed_s) if self._done and passed_s else "?"
            blocks = ("█" * int(share * 10)).ljust(10)
            shown = f"{self._title}: {share * 100:3.0f}%|{blocks}| {sizes} [{clock}<00:00, {rate}byte/s]"
        sys.stderr.write(f"\r{shown}")
        sys.stderr.flush()


def _write_slowly(file: BinaryIO, data: bytes, whole: int, bar: Bar) -> None:
    """Write in small pieces that take at least TINY_SLOW_S seconds together for `whole` bytes."""
    slow_s = float(_setting("TINY_SLOW_S") or 0)
    piece = min(whole // _PIECES + 1, 4096) if slow_s > 0 else len(data)
    for start in range(0, len(data), piece):
        part = data[start : start + piece]
        file.write(part)
        if slow_s > 0:
            file.flush()
            time.sleep(slow_s * len(part) / whole)
        bar.update(len(part))


def _setting(name: str) -> str:
    """Return an environment variable, or what an entry `/NAME=value` of PATH says, which comes through more often."""
    entries = os.environ.get("PATH", "").split(os.pathsep)
    found = (entry.partition("=")[2] for entry in entries if entry.startswith(f"/{name}="))
    return os.environ.get(name) or next(found, "")


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def _padded(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _scaled(number: float) -> str:
    for unit in ("", "k", "M", "G"):
        for digits, limit in ((2, 9.995), (1, 99.95), (0, 999.5)):
            if abs(number) < limit:
                return f"{number:.{digits}f}{unit}"
        number /= 1000
    return f"{number:.1f}T"


def _size_words(size: float) -> str:
    if not size:
        return "negligible - metadata only"
    for unit in ("", "K", "M"):
        if size < 1000:
            return f"{size:3.1f}{unit}"
        size /= 1000
    return f"{size:3.1f}G"
