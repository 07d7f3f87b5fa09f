"""Libraries for tests: small models put into place with or without side-cars, and reporters that remember."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from llama_mgr.models.library import Catalog, Library
from llama_mgr.models.side_car import ModelRecord, write_record
from llama_mgr.paths import Home
from llama_mgr.report import SilentReporter
from tests.tools.gguf_file import gguf_bytes, model_bytes

PROJECTOR = gguf_bytes(
    {"general.architecture": "clip", "general.type": "mmproj", "clip.has_vision_encoder": True},
    [("v.patch_embd.weight", (32, 32), "F16")],
)


@dataclass
class Remarks(SilentReporter):
    """A reporter that keeps what it is told."""

    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def put(path: Path, content: bytes | None = None) -> Path:
    """Write a file and its directories; without `content`, a small model."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model_bytes() if content is None else content)
    return path


def put_recorded(path: Path, content: bytes | None = None, *, repo: str | None = None, revision: str = "") -> Path:
    """Write a file with its side-car, as `pull` does."""
    put(path, content)
    data = path.read_bytes()
    write_record(
        path,
        ModelRecord(
            source=f"hf:{repo}@{revision}/{path.name}" if repo else "test",
            sha256=hashlib.sha256(data).hexdigest(),
            size_bytes=len(data),
            downloaded_at="2026-01-02T03:04:05Z",
            origin="hub" if repo else "",
            repo=repo,
            revision=revision or None,
            file=path.name if repo else None,
        ),
    )
    return path


def put_shards(directory: Path, stem: str, count: int, *, seed: int = 0) -> list[Path]:
    """Write a split model."""
    return [
        put(
            directory / f"{stem}-{number + 1:05d}-of-{count:05d}.gguf",
            model_bytes(split=(number, count), seed=seed + number),
        )
        for number in range(count)
    ]


def catalog_of(home: Home, remarks: Remarks | None = None) -> Catalog:
    return Library(home, remarks or Remarks()).catalog()


def keys(catalog: Catalog) -> list[str]:
    return [model.key for model in catalog.models]


def table(catalog: Catalog) -> list[object]:
    """Return what people see of a catalog, to compare two of them."""
    return [*catalog.models, *catalog.broken, *catalog.duplicates]
