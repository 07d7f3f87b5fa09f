"""A model of the library: one GGUF, or all shards of one, with its projector; and what is none."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_mgr.models.roots import Root
from llama_mgr.models.side_car import ModelRecord
from llama_mgr.models.traits import Traits

_SENSES = ("vision", "audio")


@dataclass(frozen=True)
class Model:
    """Something that can be served."""

    name: str
    """`owner/repo`, or what is nearest to it."""
    quant: str
    files: tuple[Path, ...]
    """The file, or all shards in order."""
    projector: Path | None
    traits: Traits
    size_bytes: int
    """Of `files`."""
    modified_at: str
    root: Root
    record: ModelRecord | None = None
    """The side-car of the first file."""
    copies: tuple[Path, ...] = ()
    """The first files of models elsewhere that have the same content."""
    projector_bytes: int = 0
    senses: tuple[str, ...] = ()
    """What the projector adds: `vision`, `audio`."""
    place: str = ""
    """The path of its (first) file in its repository."""
    own_key: str = ""
    """The key, where `name:QUANT` belongs to another model."""
    sha256s: tuple[str, ...] = ()
    """Of `files` and then of `projectors`, as their side-cars or the cache that they lie in say it; else empty."""

    @property
    def key(self) -> str:
        """What names this model and no other: `name:QUANT` in general."""
        return self.own_key or (f"{self.name}:{self.quant}" if self.quant else self.name)

    @property
    def sha256(self) -> str:
        """Of the only file, where one is known; split models have none."""
        return self.sha256_of(self.files[0]) if len(self.files) == 1 else ""

    def sha256_of(self, file: Path) -> str:
        """Return what one of its files must contain; empty when nobody says it."""
        return dict(zip((*self.files, *self.projectors), self.sha256s, strict=False)).get(file, "")

    @property
    def projectors(self) -> Sequence[Path]:
        """Its projector, if it has one."""
        return (self.projector,) if self.projector else ()

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What it can do, the projector included."""
        return (*self.traits.capabilities, *(one for one in self.senses if one not in self.traits.capabilities))


@dataclass(frozen=True)
class Broken:
    """A file that should be a model and is none."""

    path: Path
    why: str
    root: Root
    files: tuple[Path, ...] = ()
    """All files that belong to it: the shards that there are."""


def senses_of(projector: Traits | None) -> tuple[str, ...]:
    """Return what a projector adds to its model."""
    told = tuple(one for one in _SENSES if projector is not None and one in projector.capabilities)
    return told or ("vision",)
