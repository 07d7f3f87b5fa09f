"""Arrays of strings that were gone over before: the files of one family of models share their vocabulary."""

from collections.abc import Iterator
from typing import Final

COMPARED_FROM: Final = 10_000
"""Fewer strings are gone over faster than they are compared."""
BEGINNING_BYTES: Final = 256
_LARGEST_BYTES = 8 * 1024 * 1024
_LIMIT_BYTES = 16 * 1024 * 1024


class Vocabularies:
    """The bytes of large arrays of strings, up to 16 MiB in all; the oldest go first.

    Equal bytes hold equal strings: where they come again, comparing them takes the place of going over them, which is
    what reading a header takes its time for.
    """

    def __init__(self) -> None:
        self._known: list[tuple[int, bytes]] = []

    def of(self, count: int) -> Iterator[bytes]:
        """Yield what is known of arrays of `count` strings."""
        return (raw for known_count, raw in reversed(self._known) if known_count == count)

    def has_room_for(self, length: int) -> bool:
        """Tell whether an array of `length` bytes would be kept."""
        return length <= _LARGEST_BYTES

    def keep(self, count: int, raw: bytes) -> None:
        """Remember an array of `count` strings."""
        self._known.append((count, raw))
        while sum(len(one) for _, one in self._known) > _LIMIT_BYTES:
            del self._known[0]
