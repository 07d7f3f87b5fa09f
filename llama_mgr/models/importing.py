"""Taking GGUF files of this machine into the library, without a second copy of the bytes where that is possible.

Everything is made in a hidden directory beside the models, with the side-cars; a rename is the commit. Until then
nothing is listed, and what a killed process leaves can be told from work in progress by its free lock.
"""

import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from llama_mgr.errors import BadGgufError, BadInputError, ConflictError, NameTakenError, RefusedError, StorageError
from llama_mgr.locks import held_lock
from llama_mgr.models.content import hash_of
from llama_mgr.models.file_ways import copied, hard_linked, reflinked, sha256_of
from llama_mgr.models.grouping import Group
from llama_mgr.models.headers import Headers
from llama_mgr.models.import_source import checked_model_name, default_name, models_at, paths_of, target_name
from llama_mgr.models.import_staging import import_staging, publish_model
from llama_mgr.models.model_lock import lock_name
from llama_mgr.models.quants import is_projector
from llama_mgr.models.roots import Roots, absolute, real_path
from llama_mgr.models.scan import scan_beside
from llama_mgr.models.shared_bar import Coming, shared_bar
from llama_mgr.models.side_car import ModelRecord, read_record, require_side_car_place, write_record
from llama_mgr.names import canonical
from llama_mgr.paths import Home, join_below
from llama_mgr.report import Progress, Reporter
from llama_mgr.store import now_at, require_free, storage_errors, sync_dir
from llama_mgr.text import printable

Way = Literal["share", "link", "copy", "move"]
"""How to have the files: sharing them, else a copy; sharing them or nothing; a copy; taking them away from there."""

_BUSY_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Imported:
    """A model that is in the library now."""

    name: str
    quant: str
    files: tuple[Path, ...]
    """The file, or all shards in order."""
    projector: Path | None
    size_bytes: int
    how: str
    """`reflink`, `hard link`, `copy` or `move`; empty when all of it was there."""
    was_there: bool

    @property
    def key(self) -> str:
        """`name:QUANT`."""
        return f"{self.name}:{self.quant}" if self.quant else self.name


@dataclass(frozen=True)
class _File:
    """One file to take: `given` is what the user named or what lies beside it, `source` the file behind links."""

    given: Path
    source: Path
    target: Path
    size_bytes: int
    stamp: str


class Importer:
    """Imports files into the models directory of a home.

    Args:
        home: whose.
        reporter: shows progress, and hears how the files were taken.
    """

    def __init__(self, home: Home, reporter: Reporter) -> None:
        self._home = home
        self._reporter = reporter
        self._headers = Headers(home, reporter)

    def take(self, path: Path, way: Way = "share", name: str | None = None) -> list[Imported]:
        """Take the model that `path` is a file of, or all models of the directory `path`.

        On disk afterwards: all files of the models with their side-cars below `models_dir`; after an error or a kill,
        nothing of the model that was being taken, or a set of shards that is not complete and so no model. The next
        call completes it. Sources stay as they are, unless they are to be moved; then they vanish when all models
        are durable, except projectors that a model which stays there needs.

        Args:
            path: a GGUF file or a directory.
            way: how.
            name: the name of the model, `owner/repo`; by default `local/` and what the file is called.

        Raises:
            NotFoundError: there is nothing, or no model in the directory.
            BadGgufError: a file is no GGUF.
            IncompleteModelError: a split model lacks a shard.
            BadInputError: it is a GGUF of another kind; or `name` has not the form of a name, or is for several models.
            ConflictError: other files have the places of these, or another command works on the same model.
            RefusedError: it is to be moved, and belongs to another tool; or it is to be moved or renamed, and is in the
                library already.
            StorageError: the disk is full or failing, or files cannot be shared and must not be copied.
        """
        chosen = checked_model_name(name) if name is not None else ""
        found = models_at(absolute(path), self._headers, self._reporter)
        # A directory that holds the library does not mean the library.
        groups = [group for group in found if not self._is_inside(group.model.files[0])] or found
        if chosen and len({canonical(default_name(group)) for group in groups}) > 1:
            why = f"{len(groups)} models are in it, and one name means one model"
            raise BadInputError("cannot use --name", path, why, hint="import each file with a name of its own")
        for group in groups:
            self._refuse_inside(group, way, name)
        if way == "move":
            self._refuse_to_move(groups)
        shared = self._needed_there(groups) if way == "move" else set()
        taken = [self._taken(group, way, chosen or default_name(group)) for group in groups]
        if way == "move":  # models share projectors: not before the last one has its own
            _remove_sources([file for _, files in taken for file in files if file.given not in shared])
        return [one for one, _ in taken]

    # -- what may be taken ---------------------------------------------------------------------------------------------

    def _refuse_inside(self, group: Group, way: Way, name: str | None) -> None:
        file = group.model.files[0]
        if self._is_inside(file) and (way == "move" or name is not None):
            what = "cannot move" if way == "move" else "cannot rename"
            raise RefusedError(what, file, "it is in the library already", hint="llama-mgr list")

    def _refuse_to_move(self, groups: Sequence[Group]) -> None:
        watched = [root.path.resolve() for root in Roots(self._home, self._reporter).watched()]
        for file in (file for group in groups for file in paths_of(group)):
            if file.is_symlink():
                hint = "take it with --link or --copy"
                raise RefusedError("cannot move", file, "it is a link to a file elsewhere", hint=hint)
            owner = next((root for root in watched if file.resolve().is_relative_to(root)), None)
            if owner is not None:
                hint = "take it with --link or --copy"
                raise RefusedError("cannot move", file, f"it lies in {owner}, which is only watched", hint=hint)

    @staticmethod
    def _needed_there(groups: Sequence[Group]) -> set[Path]:
        """Return the projectors of `groups` that may be for something that stays beside them, too, by their names."""
        going = {file for group in groups for file in paths_of(group)}
        needed = set()
        for projector in {one for group in groups for one in group.model.projectors}:
            with storage_errors("cannot read", projector.parent):
                beside = [one for one in projector.parent.iterdir() if one.suffix.lower() == ".gguf"]
            staying = [one for one in beside if one not in going and not is_projector(one.name)]
            if any(str(projector) == found.path for one in staying for found in scan_beside(one).found):
                needed.add(projector)
        return needed

    # -- taking it -----------------------------------------------------------------------------------------------------

    def _taken(self, group: Group, way: Way, name: str) -> tuple[Imported, list[_File]]:
        directory = self._directory(name)
        files = _files(group, directory)
        count = len(group.found)
        key = f"{name}:{group.model.quant}"
        if self._is_inside(files[0].given):
            return self._adopted(group, files), []
        with held_lock(self._home, lock_name(name), f"import {key}", self._reporter, _BUSY_TIMEOUT_S):
            for file in files:
                require_side_car_place("cannot import", file.target)
            wanted = [file for file in files if not self._is_there(file)]
            how = self._placed(wanted, way, key, directory) if wanted else ""
            for file in files:
                if read_record(file.target) is None:  # a kill came between the renames and this
                    write_record(file.target, _record(file, hash_of(file.target, self._reporter)))
        targets = [file.target for file in files]
        projector = targets[count] if len(targets) > count else None
        size_bytes = sum(file.size_bytes for file in files)
        one = Imported(name, group.model.quant, tuple(targets[:count]), projector, size_bytes, how, not wanted)
        return one, files

    def _directory(self, name: str) -> Path:
        """Return the directory of the model `name`, if no other has it in another spelling."""
        directory = self._home.models_dir
        for part in name.split("/"):
            with storage_errors("cannot read", directory):
                taken = os.listdir(directory) if directory.is_dir() else []  # noqa: PTH208 (names alone)
            for existing in taken:
                if existing != part and canonical(existing) == canonical(part):
                    why = f"'{existing}' is there and differs only in spelling"
                    raise NameTakenError("cannot use the name", name, why, hint="choose another one with --name")
            directory = join_below(directory, part)
        return directory

    def _is_inside(self, file: Path) -> bool:
        """Tell whether it lies in the library, perhaps through links on either side."""
        top = self._home.models_dir
        return file.is_relative_to(absolute(top)) or real_path(file).is_relative_to(real_path(top))

    def _adopted(self, group: Group, files: Sequence[_File]) -> Imported:
        """Give files that lie in the library already the side-cars that they lack."""
        model, top = group.model, absolute(self._home.models_dir)
        inside = files[0].given.is_relative_to(top)
        sources = [file.given if inside else file.source for file in files]
        place = sources[0].relative_to(top if inside else real_path(top)).parts
        name = "/".join(place[:2]) if len(place) > 2 else model.name  # noqa: PLR2004 (owner, repo, file)
        with held_lock(self._home, lock_name(name), f"import {name}", self._reporter, _BUSY_TIMEOUT_S):
            for file, source in zip(files, sources, strict=True):
                if read_record(source) is None:
                    write_record(source, _record(file, hash_of(source, self._reporter)))
        count = len(group.found)
        projector = sources[count] if len(sources) > count else None
        size_bytes = sum(file.size_bytes for file in files)
        return Imported(name, model.quant, tuple(sources[:count]), projector, size_bytes, "", was_there=True)

    def _is_there(self, file: _File) -> bool:
        """Tell whether the target is there with the content of the source.

        Raises:
            ConflictError: it is there with another one.
        """
        if not os.path.lexists(file.target):
            return False
        with storage_errors("cannot compare", file.target):
            found = file.target.stat()
            if os.path.samestat(found, file.source.stat()):
                return True
            is_alike = stat.S_ISREG(found.st_mode) and found.st_size == file.size_bytes
        if is_alike and hash_of(file.target, self._reporter) == hash_of(file.source, self._reporter):
            return True
        raise ConflictError(
            "cannot import", file.given, f"another file is at {file.target}",
            hint="choose another name with --name OWNER/REPO, or remove that one with `llama-mgr rm`",
        )  # fmt: skip

    def _placed(self, files: Sequence[_File], way: Way, key: str, directory: Path) -> str:
        """Put the files and their side-cars into staging, then into the library; return how."""
        with import_staging(self._home) as staged:
            how = ""
            coming = [Coming(file.target.name, file.size_bytes, 0) for file in files]
            with shared_bar(f"import {printable(key)}", coming, self._reporter) as bars:
                for file, bar in zip(files, bars, strict=True):
                    left_bytes = sum(other.size_bytes for other in files[files.index(file) :])
                    how, sha256 = self._put(file, staged / file.target.name, way, bar, left_bytes)
                    write_record(staged / file.target.name, _record(file, sha256))
            # The first file last: without it, there is no model.
            publish_model(staged, directory, [file.target.name for file in reversed(files)])
        return "move" if way == "move" else how

    def _put(self, file: _File, place: Path, way: Way, bar: Progress, left_bytes: int) -> tuple[str, str]:
        """Have the content of `file` at `place`; return how, and its sha256."""
        with storage_errors("cannot import to", file.target):
            how = _shared(file.source, place, way)
            if not how and way == "link":
                raise StorageError(
                    "cannot link", file.given, f"its file system and that of {self._home.models_dir} share no files",
                    hint="copy it with --copy",
                )  # fmt: skip
            if how:
                sha256 = sha256_of(place, bar)
            else:
                require_free(self._home.models_dir, left_bytes, "copy models")
                if way == "share":
                    self._reporter.note(f"{file.given} is copied: files cannot be shared with {self._home.models_dir}")
                how, sha256 = "copy", copied(file.source, place, bar)
            if _stamp(file.source) != file.stamp:
                raise _changed(file.given)
        return how, sha256


def _shared(source: Path, place: Path, way: Way) -> str:
    # What is moved keeps its inode: with a link first, it is somewhere at every moment.
    if way in {"share", "link"} and reflinked(source, place):
        return "reflink"
    return "hard link" if way != "copy" and hard_linked(source, place) else ""


def _remove_sources(files: Sequence[_File]) -> None:
    for file in files:
        with storage_errors("cannot remove after the import", file.given):
            if file.source != file.target.resolve():
                file.given.unlink(missing_ok=True)
                sync_dir(file.given.parent)


def _record(file: _File, sha256: str) -> ModelRecord:
    source = os.fsencode(file.given).decode("utf-8", "backslashreplace")
    return ModelRecord(
        source=f"import:{source}", sha256=sha256, size_bytes=file.size_bytes, downloaded_at=now_at(), origin="import"
    )


def _files(group: Group, directory: Path) -> list[_File]:
    """Return the files of a model, the model's own first."""
    files = []
    for number, given in enumerate(paths_of(group)):
        with storage_errors("cannot import", given):
            source = given.resolve(strict=True)
            stamp = _stamp(source)
        if number < len(group.found) and stamp != group.found[number].status.stamp:
            raise _changed(given)
        target = join_below(directory, target_name(group, number))
        files.append(_File(given, source, target, int(stamp.partition(":")[0]), stamp))
    if len({canonical(file.target.name) for file in files}) < len(files):
        raise ConflictError("cannot import", files[0].given, "two of its files have the same name")
    return files


def _stamp(path: Path) -> str:
    found = path.stat()
    return f"{found.st_size}:{found.st_mtime_ns}:{found.st_ino}"


def _changed(given: Path) -> BadGgufError:
    return BadGgufError("cannot import", given, "it changed meanwhile", hint="wait until nothing writes to it")
