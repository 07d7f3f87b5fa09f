"""Finding GGUF files below a directory, by their names and what stat says. No file is opened.

Hidden files and directories are left out: unfinished downloads and imports have such names. Links to files are
followed, because the Hugging Face cache consists of them; links to directories are not, so that a search ends and
stays inside its root. Only in our own models directory, an owner or a repository may be a link to a directory
elsewhere: `pull` and `import` write through it.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from llama_mgr.models.roots import Root

SUFFIX = ".gguf"
_SUFFIXES = (SUFFIX, SUFFIX.upper())
_DEPTH_LIMIT = 12
_DIRECTORIES_LIMIT = 200_000
_LINKED_DEPTH = 2  # owner, repo


class Status(NamedTuple):
    """What stat says: enough to tell whether a file is still the one that was read."""

    size_bytes: int
    mtime_ns: int
    inode: int
    device: int

    @property
    def stamp(self) -> str:
        """The same as text; another file under this name, or new content, has another stamp."""
        return f"{self.size_bytes}:{self.mtime_ns}:{self.inode}"


@dataclass(slots=True)
class Found:
    """One GGUF file. `repo_dir` is the directory of its repository, the farthest where its projector may lie."""

    path: str
    name: str
    status: Status
    repo_dir: str
    sha256: str = ""
    """What the cache that it lies in says; empty when it says nothing."""
    side_car: Status | None = None
    projector: "Found | None" = None
    """Its projector, where the place says so."""
    is_in_repository: bool = True
    """Whether all models beside it are the same one in other quants; else a projector must be of its name."""


@dataclass
class Scan:
    """What lies below one root."""

    root: Root
    found: list[Found] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)
    """What is named like a model and is no file, or a side-car without its file, each with the reason."""
    remarks: list[str] = field(default_factory=list)
    is_there: bool = True
    checkpoints: list[str] = field(default_factory=list)
    """The directories of our own that `pull --checkpoint` may have filled; not looked into."""


def walk(result: Scan, top: str) -> Iterator[tuple[str, tuple[str, ...], list[os.DirEntry[str]]]]:
    """Yield each directory with the names that lead to it and its entries, in the order of names."""
    pending: list[tuple[str, tuple[str, ...]]] = [(top, ())]
    left, unreadable = _DIRECTORIES_LIMIT, 0
    places = {os.path.realpath(top)}
    while pending:
        directory, parts = pending.pop()
        left -= 1
        try:
            with os.scandir(directory) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            unreadable += 1
            continue
        yield directory, parts, entries
        if len(parts) < _DEPTH_LIMIT:
            may_be_linked = result.root.is_own and len(parts) < _LINKED_DEPTH
            below = [
                entry
                for entry in entries
                if not entry.name.startswith(".")
                and (is_directory(entry) or (may_be_linked and _is_linked_directory(entry, places)))
            ]
            pending += [(entry.path, (*parts, entry.name)) for entry in reversed(below)]
        if left <= 0 and pending:
            result.remarks.append(f"{top} has more than {_DIRECTORIES_LIMIT:,} directories; the rest is not searched")
            break
    if unreadable:
        result.remarks.append(f"{unreadable} of the directories below {top} cannot be read")


def _is_linked_directory(entry: os.DirEntry[str], places: set[str]) -> bool:
    """Tell whether it is a link to a directory apart from all of `places`, to which it is added then."""
    try:
        if not (entry.is_symlink() and entry.is_dir()):
            return False
    except OSError:
        return False
    target = os.path.realpath(entry.path)
    if any(os.path.commonpath((target, place)) in {target, place} for place in places):
        return False  # what is in it is listed elsewhere, or it leads to where the search comes from
    places.add(target)
    return True


def is_directory(entry: os.DirEntry[str]) -> bool:
    """Tell whether it is a directory, and no link to one."""
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def is_candidate(entry: os.DirEntry[str]) -> bool:
    """Tell whether its name is that of a GGUF file."""
    name = entry.name
    return name.endswith(_SUFFIXES) and not name.startswith(".") and not is_directory(entry)


def found_file(result: Scan, entry: os.DirEntry[str], name: str, repo_dir: str) -> Found | None:
    """Return the file of a candidate; None, with the reason in `result`, when it is none."""
    try:
        found = entry.stat()
        if stat.S_ISREG(found.st_mode):
            return Found(entry.path, name, status_of(found), repo_dir)
        kinds = {stat.S_IFDIR: "a link to a directory", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
        why = f"it is {kinds.get(stat.S_IFMT(found.st_mode), 'a device')}, not a file"
    except FileNotFoundError:
        if not entry.is_symlink():
            return None  # it vanished meanwhile
        why = "it is a link that leads nowhere"
    except OSError as error:
        why = error.strerror or str(error)
    result.broken.append((entry.path, why))
    return None


def status_of(found: os.stat_result) -> Status:
    """Return what is kept of an answer of stat."""
    return Status(found.st_size, found.st_mtime_ns, found.st_ino, found.st_dev)


def status_or_none(entry: os.DirEntry[str] | None) -> Status | None:
    """Return what stat says of `entry`, links followed; None when there is nothing."""
    try:
        return status_of(entry.stat()) if entry is not None else None
    except OSError:
        return None


def listing(directory: str) -> list[os.DirEntry[str]]:
    """Return the entries of a directory in the order of names; none when it cannot be read."""
    try:
        with os.scandir(directory) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError:
        return []
