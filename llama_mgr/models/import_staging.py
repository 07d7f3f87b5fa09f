"""Where an import, or a model that is made, is got ready: a hidden directory that vanishes afterwards.

It is on the file system where the model will be (inside the models directory, or where the user wants the file), so
that a rename is enough at the end. Its owner holds a lock in it: what a killed process left has a free one.
"""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from llama_mgr.errors import StorageError
from llama_mgr.locks import held_lock, is_locked
from llama_mgr.models.side_car import side_car_of
from llama_mgr.paths import Home
from llama_mgr.report import SilentReporter
from llama_mgr.store import publish, storage_errors, sync_dir, sync_tree

_PREFIX = ".import-"
_FORM = re.compile(r"\.import-[0-9a-f]{12}")
_ALIVE = "alive.lock"
_MODEL = "model"


@contextlib.contextmanager
def import_staging(home: Home, place: Path | None = None) -> Iterator[Path]:
    """Give the body an empty directory that no list shows; it vanishes afterwards.

    Args:
        home: whose lock is taken, and whose models directory it is made in.
        place: the existing directory of the user's in which it is made instead. What killed processes left there goes,
            because `index prune` does not look there.

    Raises:
        StorageError: it cannot be made.
    """
    if place is not None:
        for leftover in _seemingly_stale(place):
            if _is_surely_ours(leftover):
                _remove_if_stale(home, place, leftover)
    directory = (place or home.models_dir) / f"{_PREFIX}{secrets.token_hex(6)}"
    with _gate(home, shared=True), storage_errors("cannot make", directory):
        directory.mkdir(mode=0o700, parents=True)
        lock = os.open(directory / _ALIVE, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        with storage_errors("cannot make", directory):
            (directory / _MODEL).mkdir(mode=0o700)
        yield directory / _MODEL
    finally:
        shutil.rmtree(directory, ignore_errors=True)
        os.close(lock)


def _gate(home: Home, *, shared: bool) -> contextlib.AbstractContextManager[None]:
    """Keep those who look for leftovers out between the making of a directory and the locking of it."""
    return held_lock(home, "import-staging", "begin or clean up an import", SilentReporter(), shared=shared)


def publish_model(staged: Path, directory: Path, names: Sequence[str]) -> None:
    """Move the files `names`, in this order, and their side-cars from `staged` to `directory`, durably.

    Where there is no `directory` yet, it comes at once with all that is in it. Else the files get their names one after
    the other, and then the side-cars.

    Raises:
        StorageError: the disk failed.
    """
    if not os.path.lexists(directory):
        publish(staged, directory)
        for parent in (directory.parent, directory.parent.parent):
            sync_dir(parent)
        return
    with storage_errors("cannot finish", directory):
        sync_tree(staged)
        for path in [*(Path(name) for name in names), *(side_car_of(Path(name)) for name in names)]:
            (staged / path).rename(directory / path)
        sync_dir(directory)


def stale_imports(home: Home) -> list[Path]:
    """Return what killed imports left in the models directory."""
    suspects = _seemingly_stale(home.models_dir)
    if not suspects:
        return []
    try:
        # One that was being made just now is locked when whoever makes it has left the gate.
        with _gate(home, shared=False):
            return _seemingly_stale(home.models_dir)
    except StorageError:  # nobody can be at work where nobody can write
        return suspects


def remove_stale_import(home: Home, directory: Path) -> bool:
    """Remove what `stale_imports` found; False when somebody works in it after all."""
    return _remove_if_stale(home, home.models_dir, directory)


def _remove_if_stale(home: Home, place: Path, directory: Path) -> bool:
    with _gate(home, shared=False):
        if directory not in _seemingly_stale(place):
            return False
        shutil.rmtree(directory, ignore_errors=True)
    return not directory.exists()


def _is_surely_ours(directory: Path) -> bool:
    """Tell whether a directory among the user's files is a leftover: by its name, its lock, and all that is in it."""
    try:
        entries = {entry.name for entry in directory.iterdir()}
    except OSError:
        return False
    return bool(_FORM.fullmatch(directory.name)) and _ALIVE in entries <= {_ALIVE, _MODEL}


def _seemingly_stale(place: Path) -> list[Path]:
    return sorted(
        entry
        for entry in place.glob(f"{_PREFIX}*")
        if entry.is_dir() and not entry.is_symlink() and not is_locked(entry / _ALIVE)
    )
