"""Where made files go, and how they get there: whole and recorded, or not at all.

A file is made in a hidden directory on the file system of its place, read, hashed and synced. Then its record is
written under a hidden name, the file gets its name, and the record gets its own. Whoever comes after a kill between
these finds the hidden record, and knows by the sha256 whether the file is the new one.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from llama_mgr.errors import CorruptStateError, NotFoundError, OutputExistsError, StorageError
from llama_mgr.locks import held_lock
from llama_mgr.make.provenance import Provenance, SourceRecord, provenance_in, provenance_of, record_of_made
from llama_mgr.models.content import hash_of
from llama_mgr.models.import_staging import import_staging
from llama_mgr.models.model_lock import held_model
from llama_mgr.models.quants import SUFFIX, shard_of
from llama_mgr.models.side_car import RECORD_KIND, ModelRecord, read_record, require_side_car_place, side_car_of
from llama_mgr.paths import Home, join_below
from llama_mgr.report import Reporter
from llama_mgr.store import read_document, storage_errors, sync_dir, sync_tree, write_document
from llama_mgr.text import printable


@dataclass(frozen=True)
class Place:
    """Where the results of a step go."""

    directory: Path
    is_library: bool
    model: str
    """What the model is called: `owner/repo`."""
    file_name: str = ""
    """What the user wants the file to be called; empty lets us choose."""

    @property
    def stem(self) -> str:
        """What files are called that nobody gave a name: the second part of the model's."""
        return self.model.rpartition("/")[2]


@dataclass(frozen=True)
class Made:
    """Files that a step made, or had made before: one, or all shards in order."""

    files: tuple[Path, ...]
    sha256s: tuple[str, ...]
    size_bytes: int
    provenance: Provenance
    was_there: bool

    @property
    def file(self) -> Path:
        """The file, or the first shard."""
        return self.files[0]


def place_for(home: Home, model: str, output: Path | None) -> Place:
    """Return where the user wants results of `model`: in the library, in a directory, or in one `.gguf` file.

    Raises:
        StorageError: there is no such directory, or it cannot be written to.
    """
    if output is None:
        owner, _, repo = model.partition("/")
        return Place(join_below(home.models_dir, owner, repo), is_library=True, model=model)
    is_file = output.name.endswith(SUFFIX) and not output.is_dir()
    directory, file_name = (output.parent, output.name) if is_file else (output, "")
    if not directory.is_dir():
        if os.path.lexists(directory):
            raise StorageError("cannot write to", directory, "it is a file, and a directory is needed")
        hint = f"mkdir -p {directory}; a file's name ends with {SUFFIX}"
        raise StorageError("cannot write to", directory, "there is no such directory", hint=hint)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise StorageError("cannot write to", directory, "it is not writable", hint="choose another --output")
    return Place(directory, is_library=False, model=model, file_name=file_name)


def draft(home: Home, place: Place) -> AbstractContextManager[Path]:
    """Lend an empty directory on the file system of `place`, which vanishes afterwards."""
    return import_staging(home, None if place.is_library else place.directory)


@contextmanager
def held_output(home: Home, place: Place, digest: str, reporter: Reporter) -> Iterator[None]:
    """Keep others from making the same thing at the same place while the body runs."""
    key = hashlib.sha256(f"{os.path.realpath(place.directory)}\n{digest}".encode("utf-8", "surrogateescape"))
    with held_lock(home, f"making-{key.hexdigest()[:16]}", f"make {place.model}", reporter):
        yield


def found_made(place: Place, digest: str) -> Made | None:
    """Return what the step with this `digest` made at `place`, if it is there as its side-cars say.

    Where the user named the file, only that one counts.

    Raises:
        NewerStateError, StorageError: a side-car cannot be read.
    """
    found: list[tuple[Path, ModelRecord]] = []
    for side_car in sorted(place.directory.glob(f"*{SUFFIX}.json")):
        file = side_car.with_name(side_car.name.removesuffix(".json"))
        if place.file_name and place.file_name not in {file.name, f"{(shard_of(file.name) or [''])[0]}{SUFFIX}"}:
            continue
        record = read_record(file)
        made = provenance_in(record)
        if record and made and made.digest == digest and _has_size(file, record.size_bytes):
            found.append((file, record))
    shard = shard_of(found[0][0].name) if found else None
    if not found or len(found) < (shard[2] if shard else 1):
        return None
    made = provenance_in(found[0][1])
    sizes = sum(record.size_bytes for _, record in found)
    files = tuple(file for file, _ in found)
    return Made(files, tuple(one.sha256 for _, one in found), sizes, made, was_there=True) if made else None


def _has_size(file: Path, size_bytes: int) -> bool:
    with suppress(OSError):
        return file.is_file() and file.stat().st_size == size_bytes
    return False


@dataclass(frozen=True)
class Replacing:
    """Which files may be written over: all (`force`), or those that `step` made from the same `source` before."""

    force: bool = False
    step: str = ""
    source: SourceRecord | None = None

    def allows(self, target: Path) -> bool:
        """Tell whether the file `target` may be replaced."""
        if self.force:
            return True
        made = provenance_of(target) if self.source is not None else None
        return made is not None and made.step == self.step and _is_same(made.origin(), self.source)


KEEP = Replacing()
"""Nothing may be written over."""


def _is_same(one: SourceRecord | None, other: SourceRecord | None) -> bool:
    if one is None or other is None:
        return False
    return one.repo == other.repo if one.repo or other.repo else one.directory == other.directory


def require_free_name(target: Path, reporter: Reporter, replacing: Replacing) -> None:
    """Refuse to write over a file that was there before, unless it may be replaced; finish what a kill interrupted.

    Raises:
        OutputExistsError: it is there.
        ConflictError: another file has the name of its side-car.
        StorageError: it is no regular file, or cannot be read.
    """
    settle(target, reporter)
    if not os.path.lexists(target):
        require_side_car_place("cannot write", target)
        return
    if target.is_symlink() or not target.is_file():
        raise StorageError("cannot write", target, "it is not a regular file", hint="choose another --output")
    if not (replacing.allows(target) or _pending_of(target).exists()):
        raise OutputExistsError(
            "cannot write", target, "it exists, and was not made in this way from these inputs",
            hint="--force replaces it when the new one is whole, or choose another --output",
        )  # fmt: skip
    require_side_car_place("cannot write", target)


def settle(target: Path, reporter: Reporter) -> None:
    """Finish the publishing of `target` if a kill came between the renames."""
    pending = _pending_of(target)
    try:
        record = read_document(pending, RECORD_KIND, ModelRecord)
    except (NotFoundError, CorruptStateError):
        return
    with storage_errors("cannot finish", target):
        if not target.exists():
            pending.unlink(missing_ok=True)
        elif _has_size(target, record.size_bytes) and hash_of(target, reporter) == record.sha256:
            pending.rename(side_car_of(target))
        sync_dir(target.parent)


def publish_made(
    home: Home, place: Place, staged: Sequence[tuple[Path, str]], provenance: Provenance, reporter: Reporter
) -> Made:
    """Give the finished files of a step their names and records, durably.

    On disk afterwards: all of `staged` in `place` with side-cars. After a kill: what was there before, or new files of
    which the next call knows that they are whole; never a file under another's record.

    Args:
        home: whose locks are taken.
        place: where they go.
        staged: each file in its draft, and what it will be called; shards in order.
        provenance: how they were made.
        reporter: hears of waits.

    Raises:
        StorageError: the disk is full or failing.
    """
    hashed = [(path, place.directory / name, hash_of(path, reporter), path.stat().st_size) for path, name in staged]
    outside = None if place.is_library else place.directory
    purpose = f"put {printable(staged[0][1])} in place"
    with held_model(home, place.model, outside, purpose, reporter), storage_errors("cannot finish", hashed[0][1]):
        sync_tree(staged[0][0].parent)
        place.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path, target, sha256, size_bytes in reversed(hashed):  # the first shard last: without it, there is no model
            _publish(path, target, record_of_made(provenance, sha256, size_bytes))
    sha256s = tuple(one[2] for one in hashed)
    files = tuple(one[1] for one in hashed)
    return Made(files, sha256s, sum(one[3] for one in hashed), provenance, was_there=False)


def _publish(path: Path, target: Path, record: ModelRecord) -> None:
    pending = _pending_of(target)
    write_document(pending, RECORD_KIND, record)
    if os.path.lexists(target):
        side_car_of(target).unlink(missing_ok=True)  # no record ever stands beside another content than its own
    path.rename(target)
    sync_dir(target.parent)
    pending.rename(side_car_of(target))
    sync_dir(target.parent)


def _pending_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.json.new")
