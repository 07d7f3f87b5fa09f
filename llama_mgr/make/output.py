"""Where made files go, and how they get there: whole and recorded, or not at all.

A file is made in a hidden directory on the file system of its place, read, hashed and synced. Then its record is
written under a hidden name, the file gets its name, and the record gets its own. Whoever comes after a kill between
these finds the hidden record, and knows by the sha256 whether the file is the new one.
"""

import hashlib
import os
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from llama_mgr.errors import BusyError, CorruptStateError, NotFoundError, OutputExistsError, StorageError
from llama_mgr.locks import held_lock
from llama_mgr.make.provenance import Provenance, SourceRecord, provenance_in, provenance_of, record_of_made
from llama_mgr.models.content import hash_of
from llama_mgr.models.import_staging import import_staging
from llama_mgr.models.model_lock import held_model
from llama_mgr.models.quants import SUFFIX, shard_of
from llama_mgr.models.side_car import RECORD_KIND, ModelRecord, read_record, require_side_car_place, side_car_of
from llama_mgr.paths import Home, join_below
from llama_mgr.report import Reporter, SilentReporter
from llama_mgr.store import read_document, storage_errors, sync_dir, sync_tree, write_document
from llama_mgr.text import printable

_PENDING = ".json.new"
_WAIT_S = 0.5
PIPELINE = "make"
"""What records of files say that a pipeline made."""


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
        hint = f"mkdir -p {shlex.quote(str(directory))}; a file's name ends with {SUFFIX}"
        raise StorageError("cannot write to", directory, "there is no such directory", hint=hint)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise StorageError("cannot write to", directory, "it is not writable", hint="choose another --output")
    return Place(directory, is_library=False, model=model, file_name=file_name)


def draft(home: Home, place: Place) -> AbstractContextManager[Path]:
    """Lend an empty directory on the file system of `place`, which vanishes afterwards."""
    return import_staging(home, None if place.is_library else place.directory)


@contextmanager
def held_output(
    home: Home, place: Place, digest: str, reporter: Reporter, is_over: Callable[[], bool] = lambda: False
) -> Iterator[None]:
    """Keep others from making the same thing at the same place while the body runs.

    Raises:
        BusyError: `is_over` said that waiting makes no sense any more; threads hear no Ctrl-C.
    """
    key = hashlib.sha256(f"{os.path.realpath(place.directory)}\n{digest}".encode("utf-8", "surrogateescape"))
    name, purpose = f"making-{key.hexdigest()[:16]}", f"make {place.model}"
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(held_lock(home, name, purpose, reporter, timeout_s=_WAIT_S))
                break
            except BusyError:
                reporter = SilentReporter()  # it has been said
                if is_over():
                    raise
        yield


def found_made(place: Place, digest: str) -> Made | None:
    """Return what the step with this `digest` made at `place`, if it is there as its side-cars say.

    Where the user named the file, only that one counts.

    Raises:
        NewerStateError, StorageError: a side-car cannot be read.
    """
    for pending in place.directory.glob(f".*{SUFFIX}{_PENDING}"):
        settle(pending.with_name(pending.name.removeprefix(".").removesuffix(_PENDING)), SilentReporter())
    sets: dict[tuple[str, int], dict[int, tuple[Path, ModelRecord, Provenance]]] = {}
    for side_car in sorted(place.directory.glob(f"*{SUFFIX}.json")):
        file = side_car.with_name(side_car.name.removesuffix(".json"))
        stem, number, count = shard_of(file.name) or (file.name.removesuffix(SUFFIX), 1, 1)
        if place.file_name and place.file_name not in {file.name, f"{stem}{SUFFIX}"}:
            continue
        record = read_record(file)
        made = provenance_in(record)
        if record and made and made.digest == digest and _has_size(file, record.size_bytes):
            sets.setdefault((stem, count), {})[number] = (file, record, made)
    for (_, count), shards in sets.items():  # copies under other names are sets of their own
        if set(shards) == set(range(1, count + 1)):
            return _made_before([shards[number] for number in range(1, count + 1)])
    return None


def _made_before(shards: Sequence[tuple[Path, ModelRecord, Provenance]]) -> Made:
    files, sha256s = tuple(one[0] for one in shards), tuple(one[1].sha256 for one in shards)
    return Made(files, sha256s, sum(one[1].size_bytes for one in shards), shards[0][2], was_there=True)


def _has_size(file: Path, size_bytes: int) -> bool:
    with suppress(OSError):
        return file.is_file() and file.stat().st_size == size_bytes
    return False


@dataclass(frozen=True)
class Replacing:
    """Which files may be written over: all (`force`), or those that a pipeline made from the same `source` before."""

    force: bool = False
    source: SourceRecord | None = None
    """That of the pipeline at work; None outside of one."""
    again: bool = False
    """Those that the user made from it by hand, too: they are to be made again."""

    @property
    def made_for(self) -> str:
        """For what the records of new files will say that they were made."""
        return "" if self.source is None else PIPELINE

    def allows(self, target: Path, digest: str = "") -> bool:
        """Tell whether the file `target` may be replaced; of the step with this `digest`, it may be."""
        if self.force:
            return True
        made = provenance_of(target)
        if made is None:
            pending = _pending_record(target)  # a kill came while one of ours was replaced
            waiting = provenance_in(pending) if pending is not None else None
            return waiting is not None and bool(digest) and waiting.digest == digest
        if digest and made.digest == digest:
            return True
        is_ours = self.again or made.made_for == PIPELINE
        return self.source is not None and is_ours and _is_same(made.origin(), self.source)


KEEP = Replacing()
"""Nothing may be written over."""


def _is_same(one: SourceRecord | None, other: SourceRecord) -> bool:
    if one is None:  # made of a GGUF that nobody knows the checkpoint of
        return True
    return one.repo == other.repo if one.repo or other.repo else one.directory == other.directory


def require_free_name(target: Path, reporter: Reporter, replacing: Replacing, digest: str = "") -> None:
    """Refuse to write over a file that was there before, unless it may be replaced; finish what a kill interrupted.

    Args:
        target: the file that is to be written.
        reporter: shows the reading of a file that a kill left unrecorded.
        replacing: which files may be replaced.
        digest: of the step that writes it, which may replace what it wrote before.

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
    if not replacing.allows(target, digest):
        raise OutputExistsError(
            "cannot write", target, "it exists, and was not made in this way from these inputs",
            hint="--force replaces it when the new one is whole, or choose another --output",
        )  # fmt: skip
    require_side_car_place("cannot write", target)


def settle(target: Path, reporter: Reporter) -> None:
    """Finish the publishing of `target` if a kill came between the renames."""
    record = _pending_record(target)
    if record is None or not target.is_file():  # somebody may be about to give the file its name
        return
    with storage_errors("cannot finish", target):
        if _has_size(target, record.size_bytes) and hash_of(target, reporter) == record.sha256:
            with suppress(FileNotFoundError):  # whoever wrote it was faster
                _pending_of(target).rename(side_car_of(target))
            sync_dir(target.parent)


def _pending_record(target: Path) -> ModelRecord | None:
    try:
        return read_document(_pending_of(target), RECORD_KIND, ModelRecord)
    except (NotFoundError, CorruptStateError):
        return None


def publish_made(
    home: Home,
    place: Place,
    staged: Sequence[tuple[Path, str]],
    provenance: Provenance,
    reporter: Reporter,
    replacing: Replacing,
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
        replacing: which files that have these names by now may be replaced.

    Raises:
        OutputExistsError: another file has one of the names by now.
        StorageError: the disk is full or failing.
    """
    hashed = [(path, place.directory / name, hash_of(path, reporter), path.stat().st_size) for path, name in staged]
    outside = None if place.is_library else place.directory
    purpose = f"put {printable(staged[0][1])} in place"
    with held_model(home, place.model, outside, purpose, reporter), storage_errors("cannot finish", hashed[0][1]):
        sync_tree(staged[0][0].parent)
        place.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for _, target, _, _ in hashed:
            require_free_name(target, reporter, replacing, provenance.digest)
        if len(hashed) > 1:
            _take_away(hashed[0][1])  # old and new shards together would be taken for a model
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
    with suppress(FileNotFoundError):  # whoever settled it was faster
        pending.rename(side_car_of(target))
    sync_dir(target.parent)


def _take_away(target: Path) -> None:
    side_car_of(target).unlink(missing_ok=True)
    target.unlink(missing_ok=True)
    sync_dir(target.parent)


def _pending_of(target: Path) -> Path:
    return target.with_name(f".{target.name}{_PENDING}")
