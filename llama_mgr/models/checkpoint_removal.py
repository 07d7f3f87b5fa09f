"""Finding checkpoints among our models, and removing them: what their records list, and nothing through links.

Before the first file goes, the record that says "whole" becomes that of a checkpoint that was begun; it goes last. So
after a kill, the next `rm` removes the rest, and the next `pull --checkpoint` brings all of it back.
"""

import contextlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_mgr.errors import CorruptStateError, NotFoundError, RefusedError
from llama_mgr.locks import held_lock
from llama_mgr.models.checkpoint import DIRECTORY_NAME, RECORD_KIND, RECORD_NAME, UNFINISHED_NAME, CheckpointRecord
from llama_mgr.models.model_lock import lock_name
from llama_mgr.models.removal import held_directory, remove_empty, size_on_disk
from llama_mgr.models.repo_path import checked_repo_path
from llama_mgr.models.roots import real_path
from llama_mgr.names import canonical
from llama_mgr.partial import unfinished
from llama_mgr.paths import Home
from llama_mgr.report import Reporter
from llama_mgr.store import make_durable, read_document, remove_temporaries, storage_errors
from llama_mgr.text import printable

_BUSY_TIMEOUT_S = 5.0
_REPO_PARTS = 2


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint of our models directory."""

    name: str
    """`owner/repo`."""
    directory: Path
    revision: str
    is_whole: bool
    """The pull came to its end."""
    files: tuple[Path, ...]
    """What its record lists and is there; no links, and nothing behind links."""
    size_bytes: int
    """Of `files`."""


def checkpoint_in(directory: Path) -> Checkpoint | None:
    """Return the checkpoint in `<models>/<owner>/<repo>/checkpoint`, or None where no pull began one.

    Raises:
        CorruptStateError: its record cannot be read, or is that of another repository.
        NewerStateError: a newer llama-mgr wrote it.
        StorageError: the disk failed.
    """
    for record_name in (UNFINISHED_NAME, RECORD_NAME):
        with contextlib.suppress(NotFoundError):
            record = read_document(directory / record_name, RECORD_KIND, CheckpointRecord)
            break
    else:
        return None
    name = "/".join(directory.parent.parts[-_REPO_PARTS:])
    if canonical(record.repo) != canonical(name):
        why = f"it holds the checkpoint of {printable(record.repo)}"
        raise CorruptStateError("cannot use the checkpoint", directory, why, hint="move it away by hand")
    sizes = dict(_sizes(directory, record))
    is_whole = record_name == RECORD_NAME
    return Checkpoint(name, directory, record.revision, is_whole, tuple(sizes), sum(sizes.values()))


def _sizes(directory: Path, record: CheckpointRecord) -> Iterator[tuple[Path, int]]:
    """Yield the files of a checkpoint that are there, each with its size."""
    top = real_path(directory)
    for one in record.files:
        try:
            parts = checked_repo_path(one.name)
        except RefusedError as error:
            raise CorruptStateError("cannot use the checkpoint", directory, error.message) from error
        file = directory.joinpath(*parts)
        with storage_errors("cannot read", file), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            found = file.lstat()
            if stat.S_ISREG(found.st_mode) and real_path(file.parent) == top.joinpath(*parts[:-1]):
                yield file, found.st_size


class CheckpointRemover:
    """Removes checkpoints of a home.

    Args:
        home: whose.
        reporter: hears who is waited for, and of what is left.
    """

    def __init__(self, home: Home, reporter: Reporter) -> None:
        self._home = home
        self._reporter = reporter

    def named(self, name: str) -> list[Checkpoint]:
        """Return the checkpoints of the repository `owner/repo`; case does not count.

        The reporter hears of one that will not be removed, because it lies behind a link or its record is damaged.

        Raises:
            NewerStateError: a newer llama-mgr wrote a record.
            StorageError: the disk failed.
        """
        places = [self._home.models_dir]
        for part in name.split("/"):
            places = [place / entry for place in places for entry in _entries(place, part)]
        found = (self._checkpoint(place / DIRECTORY_NAME) for place in places)
        return [one for one in found if one is not None]

    def files_of(self, one: Checkpoint) -> list[Path]:
        """Return all that goes with a checkpoint besides its record: its files, and unfinished downloads."""
        return [*one.files, *(partial.path for partial in unfinished(one.directory))]

    def remove(self, checkpoints: Sequence[Checkpoint]) -> int:
        """Remove checkpoints, and directories that become empty; return the bytes freed.

        On disk after a kill: the files that were not reached yet, as a checkpoint that was begun. Files that no record
        lists stay, and so does then their directory.

        Raises:
            BusyError: another command works on the repository; the checkpoints before it are gone.
            RefusedError: a directory became a link meanwhile; nothing behind it was removed.
            StorageError: the disk failed.
        """
        freed_bytes = 0
        for one in checkpoints:
            purpose = f"rm the checkpoint {one.name}"
            with held_lock(self._home, lock_name(one.name), purpose, self._reporter, _BUSY_TIMEOUT_S):
                now = self._checkpoint(one.directory)  # a pull or another rm may have ended while this waited
                freed_bytes += self._removed_bytes(now) if now else 0
        return freed_bytes

    def _checkpoint(self, directory: Path) -> Checkpoint | None:
        top = self._home.models_dir
        place = real_path(top).joinpath(*directory.relative_to(top).parts)
        if not os.path.lexists(directory):
            return None
        if real_path(directory) != place:
            self._reporter.warn(f"the checkpoint {directory} is left: it lies behind a link")
            return None
        try:
            return checkpoint_in(directory)
        except CorruptStateError as error:
            self._reporter.warn(f"the checkpoint {directory} is left: {error.message}")
            return None

    def _removed_bytes(self, one: Checkpoint) -> int:
        top, record = real_path(one.directory), one.directory / UNFINISHED_NAME
        files = self.files_of(one)
        places = [top / file.parent.relative_to(one.directory) for file in files]
        with storage_errors("cannot remove", record), held_directory(record, [top]) as directory:
            with contextlib.suppress(FileNotFoundError):  # it was only begun
                if one.is_whole:
                    os.rename(RECORD_NAME, UNFINISHED_NAME, src_dir_fd=directory, dst_dir_fd=directory)
                else:
                    os.unlink(RECORD_NAME, dir_fd=directory)
            make_durable(directory)
        freed_bytes = sum(_unlinked_bytes(file, [place]) for file, place in zip(files, places, strict=True))
        remove_temporaries(one.directory)
        freed_bytes += _unlinked_bytes(record, [top])
        for place in sorted({one.directory, *(file.parent for file in files)}, reverse=True):
            remove_empty(place, self._home.models_dir, self._reporter)
        return freed_bytes


def _unlinked_bytes(file: Path, places: Sequence[Path]) -> int:
    with (
        storage_errors("cannot remove", file),
        contextlib.suppress(FileNotFoundError),
        held_directory(file, places) as directory,
    ):
        freed_bytes = size_on_disk(file.name, directory)
        os.unlink(file.name, dir_fd=directory)
        make_durable(directory)
        return freed_bytes
    return 0


def _entries(place: Path, name: str) -> list[str]:
    """Return what is called `name` in `place`, whatever its case; nothing where there is no such directory."""
    try:
        with os.scandir(place) as entries:
            return sorted(entry.name for entry in entries if canonical(entry.name) == canonical(name))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        with storage_errors("cannot search", place):
            raise error from None
