"""Checking models: the bytes against their side-cars, the headers, and that no shard is missing."""

import contextlib
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from llama_mgr.errors import LlamaMgrError
from llama_mgr.locks import held_lock
from llama_mgr.models.content import hash_of
from llama_mgr.models.file_ways import sha256_of
from llama_mgr.models.gguf import read_gguf
from llama_mgr.models.library import Catalog
from llama_mgr.models.model import Broken, Model
from llama_mgr.models.model_lock import lock_name
from llama_mgr.models.quants import is_projector, shard_of
from llama_mgr.models.roots import WITH_SIDE_CARS, Root, real_path
from llama_mgr.models.shared_bar import Coming, Share, shared_bar
from llama_mgr.models.side_car import ModelRecord, damage_of, read_record, side_car_of, write_record
from llama_mgr.paths import Home
from llama_mgr.report import Reporter
from llama_mgr.store import now_at, storage_errors
from llama_mgr.text import printable

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with a file; hashes where it is about hashes."""

    path: Path
    why: str
    mend: str
    """The command that mends it."""
    expected: str = ""
    found: str = ""


@dataclass
class Verified:
    """What a check found."""

    files: int = 0
    """Looked at."""
    hashed_files: int = 0
    hashed_bytes: int = 0
    without_sha256: int = 0
    """Files of which nobody knows what they must contain: only their headers were looked at."""
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True)
class _Task:
    path: Path
    model: Model
    sha256: str
    size_bytes: int


class Verifier:
    """Checks the models of a home.

    Args:
        home: whose.
        reporter: shows progress.
    """

    def __init__(self, home: Home, reporter: Reporter) -> None:
        self._home = home
        self._reporter = reporter

    def verify(self, models: Sequence[Model], broken: Sequence[Broken], *, with_hashes: bool = True) -> Verified:
        """Check all files of `models`, and report `broken`.

        On disk afterwards: side-cars of files that have the right bytes say when that was found out.

        Args:
            models: what to check; models of other tools are hashed where their caches say a sha256.
            broken: what the library found to be no model.
            with_hashes: read all bytes; else only headers.
        """
        result = Verified(
            findings=[
                Finding(one.path, one.why, _mend(one.path, one.root, _set_of(one, models), self._reporter))
                for one in broken
            ]
        )
        tasks = list(self._tasks(models, result))
        result.files = len(tasks) + sum(len(one.files) for one in broken)
        known = [task for task in tasks if task.sha256]
        result.without_sha256 = len(tasks) - len(known)
        if with_hashes and known:
            coming = [Coming(task.path.name, task.size_bytes, 0) for task in known]
            with shared_bar("verify", coming, self._reporter) as bars:
                for task, bar in zip(known, bars, strict=True):
                    self._check(task, bar, result)
        return result

    def _tasks(self, models: Sequence[Model], result: Verified) -> "Sequence[_Task]":
        tasks = {}
        for model in models:
            for path in (*model.files, *model.projectors):
                try:
                    size_bytes = read_gguf(path).size_bytes
                    is_own = _is_own(path, model)
                    record = read_record(path) if is_own or model.root.form in WITH_SIDE_CARS else None
                    damage = damage_of(path) if is_own else ""
                except LlamaMgrError as error:
                    result.findings.append(Finding(path, error.message, self._mend(path, model)))
                    continue
                if damage:
                    again = (
                        f"llama-mgr import {_word(model.files[0])}   (it writes a new one; the model stays as it is)"
                    )
                    result.findings.append(Finding(side_car_of(path), damage, again))
                known = record.sha256 if record is not None else model.sha256_of(path)
                tasks[path] = _Task(path, model, known, size_bytes)
        return list(tasks.values())

    def _check(self, task: _Task, bar: Share, result: Verified) -> None:
        try:
            with storage_errors("cannot read", task.path):
                found = sha256_of(task.path, bar)
        except LlamaMgrError as error:
            result.findings.append(Finding(task.path, error.message, "see whether the disk is failing"))
            return
        result.hashed_files += 1
        result.hashed_bytes += task.size_bytes
        if found != task.sha256:
            why = "it does not have the sha256 that its side-car or cache names"
            mend = self._mend(task.path, task.model)
            result.findings.append(Finding(task.path, why, mend, task.sha256, found))
        elif _is_own(task.path, task.model):
            self._note(task)

    def _mend(self, path: Path, model: Model) -> str:
        root = model.root if path.is_relative_to(model.root.path) else Root(path.parent, "folder")
        return _mend(path, root, model.files, self._reporter)

    def _note(self, task: _Task) -> None:
        """Write into the side-car that the bytes are right, unless somebody works on the model."""
        with (
            contextlib.suppress(LlamaMgrError),
            held_lock(self._home, lock_name(task.model.name), f"index verify {task.model.key}", self._reporter, 0),
        ):
            record = read_record(task.path)
            if record is not None and record.sha256 == task.sha256 and task.path.exists():
                write_record(task.path, msgspec.structs.replace(record, verified_at=now_at()))


def _is_own(path: Path, model: Model) -> bool:
    """Tell whether the file is ours; the projector of our model may be that of a copy elsewhere."""
    return model.root.is_own and path.is_relative_to(model.root.path)


def selected(catalog: Catalog) -> tuple[list[Model], list[Broken]]:
    """Return what is checked when nothing is named: all of our own models, and all that is broken anywhere."""
    own = [model for model in (*catalog.models, *catalog.duplicates) if model.root.is_own]
    return own, list(catalog.broken)


def _mend(path: Path, root: Root, files: Sequence[Path], reporter: Reporter) -> str:
    """Return the commands that bring the right file back, as far as its side-car tells where it came from.

    Args:
        path: the damaged file.
        root: where it lies.
        files: all files of its model, the first one first; a projector is not one of them.
        reporter: shows the reading of the file that it was imported from.
    """
    if not root.is_own:
        return f"repair it with the tool whose directory {printable(root.path, 1000)} is"
    record = _record_of(path)
    remove = f"llama-mgr rm {_word(path)}"
    if record is None:
        return f"{remove}   (or put a whole copy in its place)"
    if record.origin == "hub" and record.repo:
        return _mend_pull(path, record, files)
    if record.origin == "import":
        return _mend_import(path, record, root, files, reporter)
    return f"{remove} -y   (it came from {printable(record.source)})"


def _mend_pull(path: Path, record: ModelRecord, files: Sequence[Path]) -> str:
    """Return how to pull the model again. What lies there in the right size must go first, and nothing else does."""
    first = _record_of(files[0]) or record
    if first.repo != record.repo or (first.file and is_projector(first.file)):
        return f"move it away, and pull a model of {printable(record.repo)} again: its projector comes along"
    place = f"{first.repo}/{first.file}" if first.file else f"{first.repo}"
    revision = f"@{first.revision}" if _COMMIT.fullmatch(first.revision or "") else ""
    pull = f"llama-mgr pull {shlex.quote(printable(place, 1000) + revision)}"
    shard = shard_of(files[0].name)
    is_unfinished = path in files and shard is not None and len(files) < shard[2]
    if is_unfinished or not path.is_file() or path.stat().st_size != record.size_bytes:
        return pull
    return f"{_removal(path, files)} && {pull}"


def _removal(path: Path, files: Sequence[Path]) -> str:
    """Return what removes the damaged file alone: `llama-mgr rm` takes all shards of a model."""
    return f"rm {_word(path)}" if path in files and len(files) > 1 else f"llama-mgr rm {_word(path)} -y"


def _set_of(broken: Broken, models: Sequence[Model]) -> Sequence[Path]:
    """Return the files of the model that something broken belongs to; for a projector those of one that may use it."""
    record = _record_of(broken.path) if broken.root.is_own else None
    if record is None or not record.repo or not is_projector(record.file or ""):
        return broken.files or (broken.path,)
    mine = (one.files for one in models if one.root.is_own and one.record and one.record.repo == record.repo)
    return next(mine, broken.files)


def _mend_import(path: Path, record: ModelRecord, root: Root, files: Sequence[Path], reporter: Reporter) -> str:
    """Return how to import the file again, if what it came from is sound, and `rm` leaves all of that."""
    sources = [_source_of(one) for one in files]
    removed = {real_path(one) for one in (*files, path)}
    with contextlib.suppress(LlamaMgrError):
        are_kept = all(one is not None and one.is_file() and real_path(one) not in removed for one in sources)
        source, first = _source_of(path), sources[0]
        if source is not None and first is not None and are_kept and hash_of(source, reporter) == record.sha256:
            name = "/".join(path.relative_to(root.path).parts[:2])
            again = f"llama-mgr import {shlex.quote(printable(first, 1000))} --name {shlex.quote(name)}"
            if path not in files or not is_projector(first.name):
                return f"{_removal(path, files)} && {again}"
    return f"put another copy of it, with the sha256 {printable(record.sha256)}, in its place"


def _source_of(path: Path) -> Path | None:
    record = _record_of(path)
    return Path(record.source.removeprefix("import:")) if record is not None and record.origin == "import" else None


def _record_of(path: Path) -> ModelRecord | None:
    with contextlib.suppress(LlamaMgrError):
        return read_record(path)
    return None


def _word(path: Path) -> str:
    return shlex.quote(str(path))
