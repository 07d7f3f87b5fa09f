"""What pulls leave in a directory, and what they find there."""

import hashlib
from pathlib import Path

from llama_mgr.models.reference import HubRef
from llama_mgr.models.side_car import ModelRecord, write_record
from tests.tools.gguf_file import model_bytes

REF = HubRef("owner", "tiny-GGUF")
"""What the tests pull in general."""

BIG = {"tiny-Q4_K_M.gguf": model_bytes(layers=12)}
"""2.2 MB, so that it takes many reads."""


def tree(directory: Path) -> list[str]:
    """Return all files below `directory`."""
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def with_records(*names: str) -> list[str]:
    """Return the names of these files and of their side-cars."""
    return sorted([*names, *(f"{name}.json" for name in names)])


def put_there(path: Path, content: bytes, source: str | None) -> None:
    """Put a file there before a pull; with a side-car, if `source` says where it came from."""
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    if source is not None:
        sha256 = hashlib.sha256(content).hexdigest()
        write_record(path, ModelRecord(source=source, sha256=sha256, size_bytes=len(content), downloaded_at=""))
