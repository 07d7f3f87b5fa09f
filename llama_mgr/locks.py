"""Kernel locks: flocks on files that are never unlinked, so that the death of a holder frees them.

Who holds a lock is noted inside its file for messages, and never decides anything.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from llama_mgr.errors import BusyError
from llama_mgr.paths import Home, join_below
from llama_mgr.report import Reporter
from llama_mgr.store import now_at, storage_errors
from llama_mgr.text import printable

_NOTE_BYTES = 256


class _Holder(msgspec.Struct):
    pid: int
    purpose: str
    since: str


def lock_file(home: Home, name: str) -> Path:
    """Return the lock file of `name` (`instance-old`, `build-b11434-cpu-1a2b3c4d`, `source-…`)."""
    return join_below(home.locks_dir, f"{name}.lock")


@contextlib.contextmanager
def held_lock(
    home: Home, name: str, purpose: str, reporter: Reporter, timeout_s: float | None = None, *, shared: bool = False
) -> Iterator[None]:
    """Hold the lock `name` while the body runs; while waiting, say for what and for whom.

    The kernel frees it when this process dies. The file stays for ever.

    Args:
        home: whose locks.
        name: what is locked.
        purpose: what this process will do, for those who wait for it.
        reporter: hears that we wait.
        timeout_s: how long to wait for another holder; None waits without end, 0 does not wait.
        shared: let others who also ask for a shared lock hold it at the same time.

    Raises:
        BusyError: another process held it longer than `timeout_s`.
    """
    path = lock_file(home, name)
    with storage_errors("cannot lock", path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = _locked_descriptor(path, name, reporter, timeout_s, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    try:
        _note_holder(descriptor, purpose)
        yield
    finally:
        with contextlib.suppress(OSError):  # or the next one who waits reads of a holder that is gone
            os.ftruncate(descriptor, 0)
        os.close(descriptor)


def hold_for_life(home: Home, name: str, purpose: str, reporter: Reporter) -> int:
    """Hold the lock `name`, shared, until this process ends, whatever program it becomes; children keep it as well.

    Returns:
        The inheritable descriptor that holds it; closing it gives the lock back.

    Raises:
        StorageError: the lock's file cannot be made.
    """
    path = lock_file(home, name)
    with storage_errors("cannot lock", path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = _locked_descriptor(path, name, reporter, None, fcntl.LOCK_SH)
    _note_holder(descriptor, purpose)
    os.set_inheritable(descriptor, True)
    return descriptor


def _note_holder(descriptor: int, purpose: str) -> None:
    holder = json.dumps({"pid": os.getpid(), "purpose": purpose, "since": now_at()}).encode()
    with contextlib.suppress(OSError):  # the note about the holder is for messages only
        # Padded, so that the next note has the same length: to cut a file costs milliseconds on some file systems.
        padded = holder.ljust(-(-len(holder) // _NOTE_BYTES) * _NOTE_BYTES)
        os.pwrite(descriptor, padded, 0)
        os.ftruncate(descriptor, len(padded))


def _locked_descriptor(path: Path, name: str, reporter: Reporter, timeout_s: float | None, mode: int) -> int:
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    told = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
            if _is_still(path, descriptor):
                return descriptor
            os.close(descriptor)  # somebody replaced the file: a lock on the old one protects nothing
            continue
        except BlockingIOError:
            os.close(descriptor)
        if deadline is not None and time.monotonic() >= deadline:
            raise BusyError("cannot get the lock", name, holder_words(path), hint="wait for it, or stop that process")
        if not told:
            reporter.note(f"waiting for {name}: {holder_words(path)}")
            told = True
        time.sleep(0.05)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def holder_words(path: Path) -> str:
    """Return who holds the lock file `path`, in words: `pid 4711 holds it since … (install b11434)`."""
    try:
        holder = msgspec.json.decode(path.read_bytes(), type=_Holder)
    except (OSError, msgspec.MsgspecError):
        return "another process holds it"
    return f"pid {holder.pid} holds it since {printable(holder.since)} ({printable(holder.purpose)})"


def is_locked(path: Path) -> bool:
    """Tell whether some living process holds the lock file `path`."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
