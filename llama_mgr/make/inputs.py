"""The contents of files that go into a step: hashed once, and known as long as the files stay as they are."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from llama_mgr.make.provenance import InputRecord, provenance_of
from llama_mgr.models.content import hash_of
from llama_mgr.models.side_car import read_record, side_car_of
from llama_mgr.report import Reporter
from llama_mgr.store import storage_errors


def input_of(file: Path, reporter: Reporter, known: Mapping[str, InputRecord] | None = None) -> InputRecord:
    """Return name, size and sha256 of `file`: from its side-car, from `known` by name, or by reading it now.

    Raises:
        StorageError: it cannot be read.
    """
    with storage_errors("cannot read", file):
        found = file.stat()
    stamp = f"{found.st_mtime_ns}:{found.st_ino}"
    record = read_record(file) if file.suffix.lower() == ".gguf" else None
    name = os.fsencode(file.name).decode("utf-8", "backslashreplace")
    if record is not None and record.size_bytes == found.st_size and not is_newer(file, side_car_of(file)):
        return InputRecord(name=name, size_bytes=found.st_size, sha256=record.sha256)
    old = (known or {}).get(file.name)
    if old is not None and old.size_bytes == found.st_size and old.stamp in {"", stamp}:
        return old
    return InputRecord(name=name, size_bytes=found.st_size, sha256=hash_of(file, reporter), stamp=stamp)


def is_newer(file: Path, record: Path) -> bool:
    """Tell whether `file` was written to after its record, which then says nothing of it any more; so if in doubt."""
    try:
        return file.stat().st_mtime_ns > record.stat().st_mtime_ns
    except OSError:
        return True


def known_inputs(files: Sequence[Path]) -> dict[str, InputRecord]:
    """Return what the side-cars of `files`, which were made here, say of what went into them, by name."""
    known: dict[str, InputRecord] = {}
    for file in files:
        made = provenance_of(file)
        known |= {one.name: one for one in (made.inputs if made else []) if one.stamp}
    return known
