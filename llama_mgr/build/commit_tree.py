"""The files of a commit, read from git objects: no checkout is needed to ask what a version declares."""

from dataclasses import dataclass
from functools import cached_property

from llama_mgr.build.mirror import Mirror

_REGULAR_MODES = frozenset({"100644", "100755"})
_PREFETCHED_SUFFIXES = ("CMakeLists.txt", ".cmake")


@dataclass(frozen=True)
class _Entry:
    is_file: bool
    object_name: str


class CommitTree:
    """A Tree (see tree.py) over one commit of a mirror; the commit must be complete there."""

    def __init__(self, mirror: Mirror, commit: str) -> None:
        """Look at `commit`; nothing is read before the first question."""
        self._mirror = mirror
        self._commit = commit
        self._texts: dict[str, str] = {}

    def read(self, path: str) -> str | None:
        """Return the text of the regular file `path`, None when there is none. Undecodable bytes are replaced.

        Raises:
            ChildFailedError: git could not read it.
        """
        entry = self._entries.get(path)
        if entry is None or not entry.is_file:
            return None
        if path not in self._texts:
            # One git command for all CMake files: they are asked for together, and a process for each would be slow.
            wanted = (
                [known for known in self._entries if known.endswith(_PREFETCHED_SUFFIXES)] if not self._texts else []
            )
            self._load([*wanted, path])
        return self._texts[path]

    def has(self, path: str) -> bool:
        """Tell whether the commit has the file or directory `path`."""
        wanted = path.rstrip("/")
        return wanted in self._entries or wanted in self._directories

    @cached_property
    def _entries(self) -> dict[str, _Entry]:
        listed = self._mirror.read("ls-tree", "-r", "-z", "--full-tree", self._commit)
        found = {}
        for line in listed.decode("utf-8", "replace").split("\0"):
            if line:
                facts, _, path = line.partition("\t")
                mode, _kind, object_name = facts.split(" ")
                found[path] = _Entry(mode in _REGULAR_MODES, object_name)
        return found

    @cached_property
    def _directories(self) -> frozenset[str]:
        return frozenset(path[:end] for path in self._entries for end in range(len(path)) if path[end] == "/")

    def _load(self, paths: list[str]) -> None:
        regular = [path for path in dict.fromkeys(paths) if self._entries[path].is_file]
        names = "".join(f"{self._entries[path].object_name}\n" for path in regular)
        said = self._mirror.read("cat-file", "--batch=%(objectsize)", stdin=names.encode())
        position = 0
        for path in regular:
            start = said.index(b"\n", position) + 1
            size = int(said[position : start - 1])
            self._texts[path] = said[start : start + size].decode("utf-8", "replace")
            position = start + size + 1
