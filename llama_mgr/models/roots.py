"""The places that are searched for models: our own models directory, and directories of other tools that are watched.

Watched directories are never written to. Which ones there are is a state document; the models in them are not.
"""

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from llama_mgr.errors import BadInputError, ConflictError, CorruptStateError, NotFoundError, RefusedError, StorageError
from llama_mgr.locks import held_lock
from llama_mgr.paths import Home
from llama_mgr.report import Reporter
from llama_mgr.store import move_aside, now_at, read_document, write_document
from llama_mgr.text import did_you_mean

RECORD_KIND = "model-roots"
_LOCK = "model-roots"
_LOCK_TIMEOUT_S = 30.0

Form = Literal["own", "folder", "lm-studio", "hf-cache", "llama-cpp-cache", "ollama"]

WITH_SIDE_CARS: tuple[Form, ...] = ("own", "folder", "lm-studio")
"""Where a `<file>.gguf.json` may be a side-car of ours."""

FORM_WORDS: dict[Form, str] = {
    "own": "llama-mgr's models",
    "folder": "folder",
    "lm-studio": "LM Studio",
    "hf-cache": "Hugging Face cache",
    "llama-cpp-cache": "llama.cpp cache",
    "ollama": "Ollama",
}


@dataclass(frozen=True)
class Root:
    """A directory that is searched for models; `form` says how they are laid out in it, and so how they are named."""

    path: Path
    form: Form
    added_at: str = ""

    @property
    def is_own(self) -> bool:
        """Whether it is the directory that `pull` and `import` write to."""
        return self.form == "own"


class _Entry(msgspec.Struct, frozen=True):
    path: str
    form: Literal["folder", "lm-studio", "hf-cache", "llama-cpp-cache", "ollama"]
    added_at: str


class _Record(msgspec.Struct, frozen=True):
    roots: list[_Entry]


class Roots:
    """All roots of a home: its models directory first, then the watched ones in the order in which they were added.

    Args:
        home: whose; `models_dir` is its own root.
        reporter: hears who is waited for.
    """

    def __init__(self, home: Home, reporter: Reporter) -> None:
        self._home = home
        self._reporter = reporter

    @property
    def file(self) -> Path:
        """The state document."""
        return self._home.root / "model-roots.json"

    @property
    def own(self) -> Root:
        """The models directory of this home, whether or not it is there."""
        return Root(self._home.models_dir, "own")

    def watched(self) -> list[Root]:
        """Return the watched roots, also those that are gone.

        Raises:
            CorruptStateError, NewerStateError, StorageError: see `store.read_document`.
        """
        try:
            record = read_document(self.file, RECORD_KIND, _Record)
        except NotFoundError:
            return []
        return [Root(Path(one.path), one.form, one.added_at) for one in record.roots if one.path.startswith("/")]

    def add(self, directory: Path, form: Form) -> tuple[Root, bool]:
        """Watch `directory` from now on; return its root, and whether it is new.

        Nothing in the directory changes. A damaged list is moved aside, and that is said.

        Raises:
            NotFoundError: there is no such directory.
            BadInputError: it is not a directory, or its path has control characters.
            ConflictError: it lies in another root, or another root lies in it.
            StorageError: it cannot be read, or the list cannot be written.
        """
        path = _checked_directory(directory)
        with held_lock(self._home, _LOCK, f"watch {path}", self._reporter, _LOCK_TIMEOUT_S):
            roots = self._sound()
            for root in roots:
                if _same(root.path, path):
                    return root, False
            _refuse_overlap(path, self.own, roots)
            added = Root(path, form, now_at())
            self._write([*roots, added])
        return added, True

    def remove(self, directory: Path) -> Root:
        """Forget the watched root `directory`; nothing in it changes, and it need not be there any more.

        A damaged list is moved aside, and that is said.

        Raises:
            RefusedError: it is the models directory, which is no watched one.
            NotFoundError: it is not watched.
            StorageError: the list cannot be written.
        """
        path = absolute(directory)
        if _same(path, self.own.path):
            why = "models that llama-mgr fetched or imported lie in it"
            raise RefusedError("cannot forget", path, why, hint="the setting models-dir says where it lies")
        with held_lock(self._home, _LOCK, f"forget {path}", self._reporter, _LOCK_TIMEOUT_S):
            roots = self._sound()
            found = next((root for root in roots if root.path == path or _same(root.path, path)), None)
            if found is None:
                hint = did_you_mean(str(path), [str(root.path) for root in roots])
                raise NotFoundError("cannot forget", path, "it is not watched", hint=hint or "llama-mgr index list")
            self._write([root for root in roots if root != found])
        return found

    def _sound(self) -> list[Root]:
        """Return the watched roots; none after a damaged list was moved out of the way."""
        try:
            return self.watched()
        except CorruptStateError as error:
            aside = move_aside(self.file)
            self._reporter.warn(f"{error.message}; it is {aside} now, and what was watched must be added again")
            return []

    def _write(self, roots: list[Root]) -> None:
        entries = [_Entry(str(root.path), root.form, root.added_at) for root in roots if root.form != "own"]
        write_document(self.file, RECORD_KIND, _Record(entries))


def real_path(path: Path) -> Path:
    """Return `path` with all links followed; of links that lead in a circle, as far as they lead."""
    return Path(os.path.realpath(path))


def absolute(path: Path) -> Path:
    """Return `path` as an absolute one without `.` and `..`; links stay links."""
    return Path(os.path.abspath(path))  # noqa: PTH100 (Path.absolute keeps `..`)


def _checked_directory(directory: Path) -> Path:
    path = absolute(directory)
    if any(ord(character) < ord(" ") for character in str(path)) or not _is_text(path):
        raise BadInputError("cannot watch", path, "its path has characters that no state file can hold")
    if not path.exists():
        raise NotFoundError("cannot watch", path, "there is no such directory")
    if not path.is_dir():
        hint = "llama-mgr import FILE takes a single model"
        raise BadInputError("cannot watch", path, "it is not a directory", hint=hint)
    try:
        with os.scandir(path):
            pass
    except OSError as error:
        raise StorageError("cannot watch", path, error.strerror or str(error)) from error
    return path


def _is_text(path: Path) -> bool:
    try:
        str(path).encode()
    except UnicodeEncodeError:  # bytes that are no UTF-8
        return False
    return True


def _refuse_overlap(path: Path, own: Root, watched: list[Root]) -> None:
    """Refuse a root that would list the files of another one a second time."""
    place = real_path(path)
    if place.is_relative_to(real_path(own.path)):
        raise ConflictError("cannot watch", path, "it belongs to llama-mgr's models directory, which is always listed")
    for root in [own, *watched]:
        other = real_path(root.path)
        if place.is_relative_to(other):
            hint = f"llama-mgr index remove {shlex.quote(str(root.path))}"
            raise ConflictError("cannot watch", path, f"it lies in {root.path}, which is watched", hint=hint)
        if other.is_relative_to(place):
            what = "the models directory" if root.is_own else "the watched directory"
            remove = f"llama-mgr index remove {shlex.quote(str(root.path))}"
            hint = "choose the directory that holds only models" if root.is_own else remove
            raise ConflictError("cannot watch", path, f"{what} {root.path} lies in it", hint=hint)


def _same(one: Path, other: Path) -> bool:
    return one == other or real_path(one) == real_path(other)
