"""Source archives (.tar.gz), unpacked member by member with rules of our own.

`tarfile.extractall(filter="data")` has let members out of their directory in several Python releases; see
`tar_members.py` for what is refused here.
"""

import os
import shutil
from pathlib import Path, PurePosixPath

from llama_mgr import store
from llama_mgr.build.tar_members import DEFAULT_LIMITS, Limits, Member, members
from llama_mgr.errors import RefusedError
from llama_mgr.text import printable


def extract_tar(archive: Path, target: Path, below: str = "", limits: Limits = DEFAULT_LIMITS) -> None:
    """Unpack what lies below `<top directory>/<below>` of a .tar.gz into `target`, which must not exist.

    On disk afterwards: regular files (0644 or 0755, their times kept), directories, and links to names in the same
    directory; after an error nothing at `target`.

    Raises:
        RefusedError: a member could write elsewhere, or is of a kind that no source tree has.
        IntegrityError: it is damaged, passes a limit, or has nothing at `below`.
        StorageError: the disk is full or failing.
    """
    with store.storage_errors("cannot unpack to", target):
        target.mkdir(mode=0o755, parents=True)
        try:
            extraction = _Extraction(archive, target)
            for member in members(archive, below, limits):
                extraction.make(member)
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise


class _Extraction:
    """One archive on its way into a directory; knows what it made: nothing is made twice or through a link."""

    def __init__(self, archive: Path, target: Path) -> None:
        self._archive = archive
        self._target = target
        self._kinds: dict[PurePosixPath, str] = {PurePosixPath(): "directory"}

    def make(self, member: Member) -> None:
        self._make_directories(member.path.parent)
        made = self._kinds.get(member.path)
        if made is not None and not made == member.kind == "directory":
            raise RefusedError("cannot unpack", self._archive, f"it has '{printable(member.path, 80)}' twice")
        if member.kind == "directory":
            self._make_directories(member.path)
            return
        self._kinds[member.path] = member.kind
        path = self._target / member.path
        if member.kind == "link":
            path.symlink_to(member.link)
        else:
            _write(path, member)

    def _make_directories(self, path: PurePosixPath) -> None:
        for directory in (*reversed(path.parents), path):
            kind = self._kinds.setdefault(directory, "new")
            if kind == "new":
                (self._target / directory).mkdir(mode=0o755)
                self._kinds[directory] = "directory"
            elif kind != "directory":
                shown = printable(directory, 80)
                raise RefusedError("cannot unpack", self._archive, f"'{shown}' is a {kind} and a directory")


def _write(path: Path, member: Member) -> None:
    mode = 0o755 if member.executable else 0o644
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:  # noqa: PTH123 (a descriptor, not a path)
        file.writelines(member.chunks())
        file.flush()
        os.utime(file.fileno(), (member.mtime_s, member.mtime_s))
