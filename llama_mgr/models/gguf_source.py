"""Where the bytes of a GGUF come from, and the window through which a header is read.

Files are read with pread, not mapped: a file that another program cuts short would end us with SIGBUS. The same window
then reads a file on the hub by HTTP ranges.
"""

import codecs
import os
import re
import stat
import struct
from contextlib import suppress
from pathlib import Path
from typing import Final, Protocol, Self

import msgspec

from llama_mgr.errors import BadGgufError, NotFoundError, StorageError
from llama_mgr.models.gguf_vocabulary import BEGINNING_BYTES, COMPARED_FROM, Vocabularies

WHAT: Final = "cannot read the model file"

_BEGINNING_BYTES = 256
_FIRST_BYTES = 128 * 1024
_GROWTH = 4
_LARGEST_BYTES = 4 * 1024 * 1024
_READ_LIMIT_BYTES = 128 * 1024 * 1024  # the largest vocabularies make headers of 30 MB
_STRINGS_LIMIT = 2_000_000  # Gemma's vocabulary and merges are 0.8 million
_TEXT_LIMIT_BYTES = 12 * 1024 * 1024
_DECODED_LIMIT_BYTES = 24 * 1024 * 1024
_WIDE = re.compile(rb"[\xf0-\xff]")  # begins a character beyond 16 bits: each one of the text takes 4 bytes then
_NOT_ASCII = re.compile(rb"[\x80-\xff]")
_U32 = struct.Struct("<I").unpack_from
_U64 = struct.Struct("<Q").unpack_from


class Source(Protocol):
    """Bytes of a known number, read where one likes."""

    @property
    def size_bytes(self) -> int:
        """How many there are."""

    def read(self, offset: int, length: int) -> bytes:
        """Return the `length` bytes at `offset`, or fewer only at the end."""


class Stamp(msgspec.Struct, frozen=True):
    """Which file it is, and in which state: another file under the same name, or new content, has another stamp."""

    device: int
    inode: int
    size_bytes: int
    mtime_ns: int


class FileSource:
    """A regular file of this machine, opened once: what is read always belongs to the same file.

    Raises:
        NotFoundError: there is no such file.
        BadGgufError: it is a directory, a pipe, a device or a socket; none of them is opened.
        StorageError: it may not be read.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        try:
            _require_regular(path, path.stat())
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            found = os.fstat(self._descriptor)
        except FileNotFoundError as error:
            raise NotFoundError(WHAT, path, "there is no such file") from error
        except OSError as error:
            raise _unreadable(path, error) from error
        _require_regular(path, found)  # it may have been exchanged since
        self.stamp = _stamp(found)

    @property
    def size_bytes(self) -> int:
        """How long it was when it was opened."""
        return self.stamp.size_bytes

    def read(self, offset: int, length: int) -> bytes:
        """Return the `length` bytes at `offset`, or fewer only at the end.

        Raises:
            StorageError: the disk fails.
        """
        try:
            return os.pread(self._descriptor, length, offset)
        except OSError as error:
            raise _unreadable(self._path, error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def _stamp(found: os.stat_result) -> Stamp:
    return Stamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


def _require_regular(path: Path, found: os.stat_result) -> None:
    kinds = {stat.S_IFDIR: "a directory", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    if not stat.S_ISREG(found.st_mode):
        raise BadGgufError(WHAT, path, f"it is {kinds.get(stat.S_IFMT(found.st_mode), 'a device')}, not a file")


def _unreadable(path: Path, error: OSError) -> StorageError:
    return StorageError(WHAT, path, error.strerror or str(error), hint="see who may read it with `ls -l`")


class DefectError(Exception):
    """What is wrong with a header; the reader adds which file it is."""

    def __init__(self, why: str, hint: str | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.hint = hint


def _too_long(what: str, length: int) -> DefectError:
    return DefectError(f"{what} has {length:,} bytes, more than a header may have")


class Window:
    """A forward reader that holds a few megabytes at most; all numbers are little-endian.

    Every length is checked against the end of the source before anything is read or kept, so that work and memory
    depend on what is there, never on what the source claims.
    """

    def __init__(self, source: Source, vocabularies: Vocabularies | None = None) -> None:
        self.size_bytes = source.size_bytes
        self._source = source
        self._vocabularies = vocabularies
        self._data = b""
        self._start = 0  # of _data in the source
        self._at = 0  # in _data; beyond its end after a jump
        self._next_bytes = _FIRST_BYTES
        self._read_bytes = 0
        self._text_bytes = 0
        self._decoded_bytes = 0
        self._strings = 0

    @property
    def position(self) -> int:
        """Where the next read begins in the source."""
        return self._start + self._at

    @property
    def left_bytes(self) -> int:
        """How many bytes follow."""
        return self.size_bytes - self.position

    def beginning(self) -> bytes:
        """Return the first bytes that follow, a few hundred if there are so many, without going on."""
        self._require(min(_BEGINNING_BYTES, self.left_bytes), "its first bytes")
        return self._data[self._at : self._at + _BEGINNING_BYTES]

    def u32(self) -> int:
        """Read an unsigned number of 4 bytes."""
        begin = self._taken(4)  # first: it may exchange the data
        number: int = _U32(self._data, begin)[0]
        return number

    def u64(self) -> int:
        """Read an unsigned number of 8 bytes."""
        begin = self._taken(8)
        number: int = _U64(self._data, begin)[0]
        return number

    def unpacked(self, layout: struct.Struct) -> tuple[int | float | bool, ...]:
        """Read the numbers of `layout`."""
        begin = self._taken(layout.size)
        return layout.unpack_from(self._data, begin)

    def text(self, what: str, limit_bytes: int = _TEXT_LIMIT_BYTES) -> bytes:
        """Read a string: its length, then its bytes.

        Args:
            what: which string it is, for messages.
            limit_bytes: what it may have at most; all strings that are read whole may have 12 MiB together.
        """
        begin, end = self._text_place(what, limit_bytes)
        return self._data[begin:end]

    def decoded(self, what: str) -> str:
        """Read a string as UTF-8, what is none replaced; there is never a second copy of its bytes.

        All of them may take 24 MiB in memory, where one emoji makes each character of a text take 4 bytes.
        """
        begin, end = self._text_place(what, _TEXT_LIMIT_BYTES)
        raw = memoryview(self._data)[begin:end]
        self._decoded_bytes += (4 if _WIDE.search(raw) else 2 if _NOT_ASCII.search(raw) else 1) * len(raw)
        if self._decoded_bytes > _DECODED_LIMIT_BYTES:
            raise _too_long(what, len(raw))
        return str(raw, "utf-8", "replace")

    def decoded_beginning(self, what: str, keep_bytes: int) -> str:
        """Read the first `keep_bytes` of a string as UTF-8, what is none replaced, and go on behind all of it."""
        length = self.u64()
        if length > self.left_bytes:
            raise self.cut_off(f"{what} would have {length:,} bytes")
        kept = min(length, keep_bytes)
        begin = self._taken(kept)
        self.skip(length - kept, what)
        # "final" is false for a cut text: half a character at its end is dropped
        return codecs.utf_8_decode(memoryview(self._data)[begin : begin + kept], "replace", length == kept)[0]

    def _text_place(self, what: str, limit_bytes: int) -> tuple[int, int]:
        """Go on behind a string, and return where in the window its bytes are."""
        length = self.u64()
        if length > self.left_bytes:
            raise self.cut_off(f"{what} would have {length:,} bytes")
        self._text_bytes += length
        if length > limit_bytes or self._text_bytes > _TEXT_LIMIT_BYTES:
            raise _too_long(what, length)
        begin = self._taken(length)
        return begin, begin + length

    def skip(self, length: int, what: str) -> None:
        """Go on `length` bytes later, without reading them."""
        if length > self.left_bytes:
            raise self.cut_off(f"{what} would have {length:,} bytes")
        self._at += length

    def skip_strings(self, count: int, what: str) -> None:
        """Go on behind `count` strings, of which only the lengths are looked at."""
        self._strings += count
        if count * 8 > self.left_bytes:
            raise self.cut_off(f"{what} would have {count:,} strings")
        if self._strings > _STRINGS_LIMIT:
            raise DefectError(f"{what} has {count:,} strings, more than a vocabulary has")
        if self._vocabularies is None or count < COMPARED_FROM:
            self._walk_strings(count, what)
        elif not self._passed_known(count, self._vocabularies):
            begin = self.position
            self._walk_strings(count, what)
            length = self.position - begin
            if self._vocabularies.has_room_for(length):
                self._vocabularies.keep(count, self._source.read(begin, length))

    def _passed_known(self, count: int, vocabularies: Vocabularies) -> bool:
        """Go on behind an array of `count` strings if its bytes are known; else stay."""
        for raw in vocabularies.of(count):
            if len(raw) > self.left_bytes:
                continue
            self._require(BEGINNING_BYTES, "its vocabulary goes on")
            if not self._data.startswith(raw[:BEGINNING_BYTES], self._at):
                continue
            self._require(len(raw), "its vocabulary goes on")
            if self._data.startswith(raw, self._at):
                self._at += len(raw)
                return True
        return False

    def _walk_strings(self, count: int, what: str) -> None:
        while count:
            self._require(8, f"{what} goes on")
            count -= self._walked(count)
            if self.left_bytes < 0:
                raise self.cut_off(f"a string of {what} would end at byte {self.position:,}")

    def _walked(self, count: int) -> int:
        """Go over at most `count` strings, as many as begin in the window, and return how many those were.

        There is no comparison in the loop, which is what reading a header takes its time for: the end of the window
        ends it by an error.
        """
        at, data, done, u64 = self._at, self._data, 0, _U64
        with suppress(struct.error, OverflowError, IndexError):
            for done in range(count):  # noqa: B007 (wanted after the loop)
                at += 8 + u64(data, at)[0]
            done += 1
        self._at = at
        return done

    def cut_off(self, what: str) -> DefectError:
        """Return the complaint that the source ends too early."""
        return DefectError(
            f"it is cut off: {what}, and the file ends at byte {self.size_bytes:,}", hint="download or copy it again"
        )

    def _taken(self, length: int) -> int:
        """Return where in the window the next `length` bytes are, and go on behind them."""
        begin = self._at
        if begin + length > len(self._data):
            self._require(length, "its header goes on")
            begin = self._at
        self._at = begin + length
        return begin

    def _require(self, length: int, what: str) -> None:
        """Have the next `length` bytes in the window."""
        if self._at + length <= len(self._data):
            return
        position = self.position
        if position + length > self.size_bytes:
            raise self.cut_off(what)
        wanted = min(max(length, self._next_bytes), self.size_bytes - position)
        self._read_bytes += wanted
        if self._read_bytes > _READ_LIMIT_BYTES:
            raise DefectError(f"its header is larger than {_READ_LIMIT_BYTES // 1024**2} MiB")
        self._next_bytes = min(self._next_bytes * _GROWTH, _LARGEST_BYTES)
        self._data = b""  # before the next window comes
        self._data, self._start, self._at = self._source.read(position, wanted), position, 0
        if len(self._data) < length:
            raise DefectError("it became shorter while it was read", hint="wait until nothing writes to it")
