"""Writes GGUF files of one tensor."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

FILE_TYPES = {"f32": 0, "f16": 1, "q8_0": 7, "bf16": 32, "tq1_0": 36, "tq2_0": 37, "auto": 1}
ALIGNMENT = 32


def _text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def write_model(path: Path, *, name: str, architecture: str, file_type: int) -> None:
    """Write a GGUF v3 file: three keys and the F32 tensor token_embd.weight of 32 zeros."""
    header = b"GGUF" + struct.pack("<IQQ", 3, 1, 3)
    header += _text("general.architecture") + struct.pack("<I", 8) + _text(architecture)
    header += _text("general.name") + struct.pack("<I", 8) + _text(name)
    header += _text("general.file_type") + struct.pack("<II", 4, file_type)
    header += _text("token_embd.weight") + struct.pack("<IQIQ", 1, 32, 0, 0)
    header += bytes(-len(header) % ALIGNMENT)
    path.write_bytes(header + bytes(4 * 32))
