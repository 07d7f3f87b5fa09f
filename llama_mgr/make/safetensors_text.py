"""The JSON at the beginning of a safetensors file, read in windows: hostile ones are larger than what may be kept."""

import re
from collections.abc import Iterator
from typing import BinaryIO

from llama_mgr.text import printable

LONGEST_KEY_BYTES = 4 * 1024
LONGEST_VALUE_BYTES = 4 * 1024 * 1024
"""Of the metadata; a tensor is described in much less."""

_SPACE_BYTES = 4 * 1024
_WINDOW_BYTES = 4 * 1024 * 1024

# No value of a header holds an object in an object, so that a pattern can find its parts; possessive, so that a long
# text that fits nothing takes no memory.
_SPACE = rb"[ \t\r\n]*+"
_STRING = rb'"(?:[^"\\]++|\\.)*+"'
_BEGINNING = re.compile(_SPACE + rb"\{" + _SPACE)
_PAIR = re.compile(
    rb"(" + _STRING + rb")" + _SPACE + rb":" + _SPACE
    + rb'(\{(?:[^{}"]++|' + _STRING + rb")*+\})" + _SPACE + rb"([,}])" + _SPACE,
    re.DOTALL,
)  # fmt: skip


class DefectError(Exception):
    """What is wrong with a header."""

    def __init__(self, why: str, hint: str | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.hint = hint


class _Header:
    """Reads forward through the header, and holds a few megabytes of it at most."""

    def __init__(self, file: BinaryIO, length: int) -> None:
        self._file = file
        self._left_bytes = length
        self._window = b""
        self._position = 0

    def match(self, pattern: re.Pattern[bytes]) -> re.Match[bytes]:
        """Return what comes next, and go behind it."""
        self._refill(LONGEST_KEY_BYTES + LONGEST_VALUE_BYTES + _SPACE_BYTES)
        found = pattern.match(self._window, self._position)
        if found is None:
            raise no_listing(self._window[self._position :])
        self._position = found.end()
        return found

    def has(self, text: bytes) -> bool:
        """Tell whether `text` comes next; go behind it then."""
        self._refill(len(text))
        is_there = self._window.startswith(text, self._position)
        self._position += len(text) * is_there
        return is_there

    def has_only_space(self) -> bool:
        """Read to the end, and tell whether nothing else comes; writers fill the header up to a multiple of 8."""
        while not self._window[self._position :].strip(b" \t\r\n"):
            self._position = len(self._window)
            if not self._left_bytes:
                return True
            self._refill(1)
        return False

    def _refill(self, wanted: int) -> None:
        if len(self._window) - self._position >= wanted or not self._left_bytes:
            return
        more = self._file.read(min(self._left_bytes, _WINDOW_BYTES + wanted))
        if not more:
            raise DefectError("it became shorter while it was read")
        self._left_bytes -= len(more)
        self._window = self._window[self._position :] + more
        self._position = 0


def no_listing(text: bytes) -> DefectError:
    """Return what is wrong with a header of which `text` comes next."""
    near = printable(text[:40].decode("utf-8", "replace"))
    return DefectError(f"its header is not a JSON object that lists tensors, near '{near}'")


def pairs_of(file: BinaryIO, length: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield each key of a header with its value, as they are written; values are objects without objects in them.

    Args:
        file: open where the header begins.
        length: of the header, in bytes.

    Raises:
        DefectError: it is not such a JSON object, or a value is too long.
    """
    header = _Header(file, length)
    header.match(_BEGINNING)
    end = b"}" if header.has(b"}") else b","
    while end == b",":
        key, value, end = header.match(_PAIR).groups()
        yield key, value
    if not header.has_only_space():
        raise DefectError("its header goes on behind its end")
