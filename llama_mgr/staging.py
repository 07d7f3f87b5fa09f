"""Staging, where big results are made, and the deletion of what is ours.

A staging directory is locked by its owner, so that what a dead process left can be told from work in progress.
Nothing is deleted that does not carry our marker.
"""

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from llama_mgr.errors import CorruptStateError, NotFoundError, RefusedError, StorageError
from llama_mgr.locks import held_lock, is_locked
from llama_mgr.paths import Home, join_below
from llama_mgr.report import SilentReporter
from llama_mgr.store import read_document, storage_errors, sync_dir, write_document
from llama_mgr.text import printable

MARKER_NAME = ".llama-mgr.json"
_ALIVE_NAME = ".alive"


class Marker(msgspec.Struct):
    """The file that says: llama-mgr made this directory, and may delete it."""

    of: str


def mark(directory: Path, of: str) -> None:
    """Put our marker into `directory`; `of` must be what later deletion names."""
    write_document(directory / MARKER_NAME, "marker", Marker(of=of))


@contextlib.contextmanager
def staging(home: Home, purpose: str) -> Iterator[Path]:
    """Give the body an empty private directory that vanishes afterwards, unless the body renamed it away.

    A killed process leaves it behind; `stale_staging` finds such leftovers by their free lock.
    """
    operation = f"{purpose}-{secrets.token_hex(6)}"
    directory = join_below(home.staging_dir, operation)
    with _staging_gate(home, shared=True), storage_errors("cannot make", directory):
        directory.mkdir(mode=0o700, parents=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        lock = os.open(directory / _ALIVE_NAME, flags, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield directory
    finally:
        try:
            _remove_alive_last(directory)
        except BaseException:  # Ctrl-C in the middle of it: finish it, then stop
            _remove_alive_last(directory)
            raise
        finally:
            os.close(lock)


def _remove_alive_last(directory: Path) -> None:
    """Delete a staging directory so that it counts as alive until all but its lock is gone."""
    with contextlib.suppress(OSError):
        for entry in directory.iterdir():
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            elif entry.name != _ALIVE_NAME:
                entry.unlink(missing_ok=True)
    shutil.rmtree(directory, ignore_errors=True)


def _staging_gate(home: Home, *, shared: bool) -> contextlib.AbstractContextManager[None]:
    """Keep `remove_staging` out between the making of a directory and the locking of its `.alive`."""
    return held_lock(home, "staging", "begin or clean up staging", SilentReporter(), shared=shared)


def stale_staging(home: Home) -> list[Path]:
    """Return the staging directories whose owners are dead."""
    suspects = _seemingly_stale(home)
    if not suspects:
        return []
    try:
        # One that was being made just now is locked when whoever makes it has left the gate.
        with _staging_gate(home, shared=False):
            return _seemingly_stale(home)
    except StorageError:  # a home that nobody can write to has nobody at work in it
        return suspects


def _seemingly_stale(home: Home) -> list[Path]:
    if not home.staging_dir.is_dir():
        return []
    return sorted(
        entry for entry in home.staging_dir.iterdir() if entry.is_dir() and not is_locked(entry / _ALIVE_NAME)
    )


def remove_staging(home: Home, directory: Path, release: Callable[[Path], None] | None = None) -> bool:
    """Delete a leftover of `stale_staging`, and tell whether that was done; one whose owner turns out to live stays.

    Args:
        home: whose staging.
        directory: the leftover.
        release: called with `directory` before it is deleted, to undo what is noted about it elsewhere. Nobody else
            takes the directory for a leftover meanwhile.

    Raises:
        RefusedError: it is not a staging directory.
    """
    if directory.parent != home.staging_dir or directory.is_symlink():
        raise RefusedError("cannot delete", directory, "it is not a staging directory of ours")
    lock = _taken_over(home, directory)
    if lock is None:
        return False
    try:
        if release is not None:
            release(directory)
        _remove_alive_last(directory)
    finally:
        os.close(lock)
    return not directory.exists()


def _taken_over(home: Home, directory: Path) -> int | None:
    """Return a descriptor that holds the lock of a dead owner's directory; None when the owner lives.

    The gate is left before anything slow begins: who makes a mirror holds its lock, and waits at the gate.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with _staging_gate(home, shared=False):
        try:
            lock = os.open(directory / _ALIVE_NAME, flags, 0o600)
        except OSError:  # it is gone, or nobody may touch it
            return None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
    return lock


def require_ours(home: Home, directory: Path, of: str) -> None:
    """Check that `directory` may be deleted: below the home, no link, no mount, with a marker that says `of`.

    Raises:
        RefusedError: it is not ours to delete.
    """
    hint = "look at it, and delete it by hand if you are sure"
    if directory.is_symlink() or not directory.is_dir():
        raise RefusedError("cannot delete", directory, "it is not a directory that llama-mgr made", hint=hint)
    if not directory.resolve().is_relative_to(home.root.resolve()) or directory.resolve() == home.root.resolve():
        raise RefusedError("cannot delete", directory, f"it is not below {home.root}", hint=hint)
    if os.path.ismount(directory):
        raise RefusedError("cannot delete", directory, "something is mounted there", hint=hint)
    try:
        marker = read_document(directory / MARKER_NAME, "marker", Marker)
    except (NotFoundError, CorruptStateError, StorageError) as error:
        raise RefusedError("cannot delete", directory, "it does not carry llama-mgr's marker", hint=hint) from error
    if marker.of != of:
        raise RefusedError(
            "cannot delete", directory, f"its marker names '{printable(marker.of)}', not '{of}'", hint=hint
        )


def discard(home: Home, directory: Path, of: str) -> None:
    """Delete `directory`, which must pass `require_ours`.

    It is renamed into `trash/` first: a crash leaves either the whole thing or something that is visibly rubbish.

    Raises:
        RefusedError: it is not ours to delete.
        StorageError: the disk failed.
    """
    require_ours(home, directory, of)
    with storage_errors("cannot delete", directory):
        home.trash_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        doomed = join_below(home.trash_dir, f"{directory.name}-{secrets.token_hex(6)}")
        directory.rename(doomed)
        sync_dir(directory.parent)
    shutil.rmtree(doomed, ignore_errors=True)


@contextlib.contextmanager
def out_of_the_way(home: Home, directory: Path, of: str) -> Iterator[None]:
    """Let the body put something else in the place of `directory`; what was there is deleted afterwards.

    Nothing happens when there is no `directory`. When the body fails, the old one is put back.

    Raises:
        RefusedError: it is not ours to delete.
        StorageError: the disk failed.
    """
    if not os.path.lexists(directory):
        yield
        return
    require_ours(home, directory, of)
    with storage_errors("cannot replace", directory):
        home.trash_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        doomed = join_below(home.trash_dir, f"{directory.name}-{secrets.token_hex(6)}")
        directory.rename(doomed)
    try:
        yield
    except BaseException:
        if not os.path.lexists(directory):
            with contextlib.suppress(OSError):
                doomed.rename(directory)
        raise
    shutil.rmtree(doomed, ignore_errors=True)


def empty_trash(home: Home) -> int:
    """Delete what crashes left in `trash/`; return how many things that were."""
    if not home.trash_dir.is_dir():
        return 0
    leftovers = [entry for entry in home.trash_dir.iterdir() if not entry.is_symlink()]
    for entry in leftovers:
        shutil.rmtree(entry, ignore_errors=True)
    return len(leftovers)
