"""A tree of the user's own: a git work tree or a plain directory. It is copied before it is built, and never written.

What it is, is decided by its content, so that any edit gives another plan: the commit of a work tree without changes,
else a sha256 over the names, modes and bytes of the files that a build would see.
"""

import hashlib
import os
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llama_mgr import store
from llama_mgr.build.git_program import GitProgram
from llama_mgr.build.version import build_number_in
from llama_mgr.errors import IncompleteSourceError, IntegrityError, MissingToolsError, NotFoundError, RefusedError
from llama_mgr.text import size_words

_SKIPPED_DIRS = frozenset({".git", ".hg", ".svn", "__pycache__", ".venv", "venv", "node_modules", ".cache"})
_SIZE_LIMIT_BYTES = 8 * 1024**3


@dataclass(frozen=True)
class Identity:
    """What a local tree is at one moment."""

    commit: str
    """40 hex digits of an unchanged work tree, else `tree:<sha256>`."""
    build_number: int
    """Number of commits, or of a tag `bNNNN` on the commit; 0 where there is no complete history."""


class LocalTree:
    """A directory with llama.cpp's sources that belongs to the user."""

    def __init__(self, root: Path, git: GitProgram) -> None:
        """Look at the directory `root`.

        Raises:
            NotFoundError: there is no such directory.
            IncompleteSourceError: it is not a CMake project.
        """
        if not root.is_dir():
            raise NotFoundError("cannot use the source tree", root, "there is no such directory")
        if not (root / "CMakeLists.txt").is_file():
            raise IncompleteSourceError(
                "cannot use the source tree", root, "it has no CMakeLists.txt",
                hint="give the top directory of a llama.cpp tree",
            )  # fmt: skip
        self.root = root
        self._git = git

    def identity(self) -> Identity:
        """Return what the tree is now.

        Raises:
            RefusedError: it has more than 8 GiB of files, which no llama.cpp tree has.
            StorageError: a file cannot be read.
        """
        if not self._is_work_tree():
            return Identity(f"tree:{self._digest()}", 0)
        head = self._said("rev-parse", "--verify", "--quiet", "HEAD^{commit}")
        number = self._build_number() if head else 0
        changed = not head or self._said("status", "--porcelain", "--untracked-files=all", "--ignore-submodules=none")
        return Identity(f"tree:{self._digest()}" if changed else head, number)

    def copy(self, target: Path, expected_commit: str) -> None:
        """Copy the files that a build needs to `target`, which must not exist: no `.git`, no build directories.

        Raises:
            IntegrityError: the tree is no longer what it was when `expected_commit` was read.
            StorageError: reading or writing failed.
        """
        with store.storage_errors("cannot copy", self.root):
            target.mkdir(mode=0o700, parents=True)
            for path in self._files():
                copied = target / path.relative_to(self.root)
                copied.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(path, copied, follow_symlinks=False)
        if self.identity().commit != expected_commit:
            raise IntegrityError(
                "cannot build", self.root, "the tree changed while it was copied", hint="run the command again"
            )

    def _is_work_tree(self) -> bool:
        # A tree that merely lies inside another repository (a vendored copy) must not get that one's commit.
        if not (self.root / ".git").exists():
            return False
        try:
            return self._said("rev-parse", "--is-inside-work-tree") == "true"
        except MissingToolsError:
            return False

    def _build_number(self) -> int:
        named = max((build_number_in(tag) for tag in self._said("tag", "--points-at", "HEAD").splitlines()), default=0)
        if named or self._said("rev-parse", "--is-shallow-repository") == "true":
            return named
        return int(self._said("rev-list", "--count", "HEAD", "--") or 0)

    def _said(self, *words: str) -> str:
        answer = self._git.run(words, cwd=self.root, check=False)
        return answer.text if answer.status == 0 else ""

    def _digest(self) -> str:
        digest, size_bytes = hashlib.sha256(), 0
        with store.storage_errors("cannot read", self.root):
            for path in self._files():
                found = path.lstat()
                size_bytes += found.st_size
                if size_bytes > _SIZE_LIMIT_BYTES:
                    raise RefusedError(
                        "cannot use the source tree", self.root,
                        f"it has more than the limit of {size_words(_SIZE_LIMIT_BYTES)}",
                        hint="give a clean tree, without models and build results",
                    )  # fmt: skip
                name = os.fsencode(path.relative_to(self.root))
                digest.update(b"%d %d %s\0" % (stat.S_IFMT(found.st_mode), found.st_mode & 0o100, name))
                digest.update(_content_digest(path))
        return digest.hexdigest()

    def _files(self) -> list[Path]:
        listed = self._listed_by_git() if self._is_work_tree() else self._walked(self.root)
        return sorted(path for path in listed if path.is_symlink() or path.is_file())

    def _listed_by_git(self) -> Iterator[Path]:
        answer = self._git.run(("ls-files", "-z", "--cached", "--others", "--exclude-standard"), cwd=self.root)
        for name in sorted({name for name in answer.stdout.split(b"\0") if name}):
            path = self.root / os.fsdecode(name)
            if path.is_dir() and not path.is_symlink():
                yield from self._walked(path)  # a submodule, or a repository inside this one
            else:
                yield path

    def _walked(self, top: Path) -> Iterator[Path]:
        for directory, names, files in os.walk(top):
            here = Path(directory)
            names[:] = sorted(name for name in names if name not in _SKIPPED_DIRS and not _is_build_dir(here / name))
            yield from (here / name for name in names if (here / name).is_symlink())
            yield from (here / name for name in files if name != ".git")


def _is_build_dir(directory: Path) -> bool:
    return (directory / "CMakeCache.txt").exists()


def _content_digest(path: Path) -> bytes:
    if path.is_symlink():
        return hashlib.sha256(os.fsencode(path.readlink())).digest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()
