"""Which builds programs run from just now: whoever runs one holds the lock `use-<build>`, shared, for as long.

The kernel gives it back when the last of them ends. Who deletes a build holds it alone.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress

from llama_mgr import locks
from llama_mgr.errors import BusyError, InUseError, StorageError
from llama_mgr.paths import Home
from llama_mgr.report import Reporter, SilentReporter


def used_for_life(home: Home, build_id: str, purpose: str, reporter: Reporter) -> int | None:
    """Keep a build from deletion until this process ends, whatever program it becomes; its children keep it as well.

    Returns:
        The descriptor that does it; None in a home that nobody can write to, and so nobody can delete from.
    """
    with suppress(StorageError):
        return locks.hold_for_life(home, _name(build_id), purpose, reporter)
    return None


def used(home: Home, build_id: str, purpose: str, reporter: Reporter) -> AbstractContextManager[None]:
    """Keep a build from deletion while the body runs."""
    return locks.held_lock(home, _name(build_id), purpose, reporter, shared=True)


@contextmanager
def unused(home: Home, build_id: str, purpose: str) -> Iterator[None]:
    """Keep everybody from starting a program of a build while the body runs.

    Raises:
        InUseError: one runs.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(locks.held_lock(home, _name(build_id), purpose, SilentReporter(), timeout_s=0))
        except BusyError as error:
            words = user_of(home, build_id) or "a program ran from it just now"
            raise InUseError("cannot delete", build_id, f"it is in use: {words}") from error
        yield


def user_of(home: Home, build_id: str) -> str | None:
    """Return who runs a program of a build, in words; None when nobody does."""
    file = locks.lock_file(home, _name(build_id))
    return locks.holder_words(file) if locks.is_locked(file) else None


def _name(build_id: str) -> str:
    return f"use-{build_id}"
