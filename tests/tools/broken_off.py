"""Work that a kill breaks off between two changes of names on the disk, again and again, until none is left out."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_CHANGES = ("rename", "unlink")


class Killed(BaseException):
    """Nothing of ours is done after it, no cleaning up either: as after SIGKILL."""


class _Counter:
    def __init__(self, limit: int) -> None:
        self.limit, self.done = limit, 0

    def before(self) -> None:
        if self.done >= self.limit:
            raise Killed
        self.done += 1


def kill_points(work: Callable[[], object], begin: Callable[[], object]) -> Iterator[int]:
    """Do `work` with a kill before its first rename or removal, then before its second, and so on until it ends.

    Before each, `begin` brings the disk to where it was. Yields after each kill, and last after the undisturbed end,
    how many changes were done.
    """
    limit = 0
    while True:
        begin()
        was_killed = _done(work, limit)
        yield limit
        if not was_killed:
            return
        limit += 1


def _done(work: Callable[[], object], limit: int) -> bool:
    """Do `work` with at most `limit` changes of names; tell whether it was killed."""
    counter = _Counter(limit)
    with pytest.MonkeyPatch.context() as patch:
        for name in _CHANGES:
            patch.setattr(Path, name, _counted(getattr(Path, name), counter))
        try:
            work()
        except Killed:
            return True
    return False


def _counted(change: Callable[..., object], counter: _Counter) -> Callable[..., object]:
    def counted(*words: object, **options: object) -> object:
        counter.before()
        return change(*words, **options)

    return counted
