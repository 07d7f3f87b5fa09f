"""The members of a source archive (.tar.gz), each checked before anybody sees it.

`tarfile.extractall(filter="data")` has let members out of their directory in several Python releases, so nothing here
relies on it: `tarfile` only parses headers. What a source tree never has (links elsewhere, devices, setuid, sparse
files) is refused, what is damaged or absurdly large is an integrity error.
"""

import gzip
import os
import stat
import tarfile
import time
import unicodedata
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Literal, cast

from llama_mgr.errors import IntegrityError, RefusedError
from llama_mgr.text import printable, size_words

_CHUNK_BYTES = 256 * 1024
_HEADER_LIMIT_BYTES = 16 * 1024  # paths have at most 4,096 bytes; tarfile reads extended headers whole into memory
_RATIO_FLOOR_BYTES = 16 * 1024 * 1024  # below this size no ratio does harm, and a tar of many small files packs well
_PATH_LIMIT = 1024
_NAME_LIMIT_BYTES = 255
_FILE_TYPES = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE})


@dataclass(frozen=True)
class Limits:
    """How large an archive may be, unpacked."""

    members: int = 20_000
    size_bytes: int = 8 * 1024**3
    ratio: int = 200
    """Unpacked bytes for each packed byte, once more than 16 MiB came out."""


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Member:
    """One checked member, its path relative to the directory asked for."""

    path: PurePosixPath
    kind: Literal["file", "directory", "link"]
    executable: bool
    size_bytes: int
    mtime_s: int
    link: str
    """For a link: the bare name, in the same directory, that it points at."""
    _content: "_Measured"

    def chunks(self) -> Iterator[bytes]:
        """Yield the content of a file; only while it is the current member.

        Raises:
            IntegrityError: the archive ends before the content does, or a limit is passed.
        """
        left = self.size_bytes
        while left:
            chunk = self._content.read_content(min(left, _CHUNK_BYTES))
            left -= len(chunk)
            yield chunk


def members(archive: Path, below: str = "", limits: Limits = DEFAULT_LIMITS) -> Iterator[Member]:
    """Yield the members of a .tar.gz that lie below `<top directory>/<below>`, in order, each checked.

    The names of all members are checked, the kinds of those that are yielded.

    Raises:
        RefusedError: a member could write elsewhere, or is of a kind that no source tree has.
        IntegrityError: it is damaged, passes a limit, or has nothing at `below`.
    """
    wanted = PurePosixPath(below).parts
    found, top = False, ""
    with _errors(archive), archive.open("rb") as packed, gzip.GzipFile(fileobj=packed, mode="rb") as unpacked:
        content = _Measured(unpacked, archive, limits, archive.stat().st_size)
        for header in _headers(content, archive, limits):
            parts = _checked_parts(archive, header.name)
            top = top or parts[0]
            if parts[0] != top:
                raise RefusedError(
                    "cannot unpack", archive, f"it has more than one top directory: '{printable(parts[0], 80)}'"
                )
            if parts[1 : 1 + len(wanted)] != wanted or len(parts) == 1 + len(wanted):
                continue
            found = True
            yield _member(archive, header, PurePosixPath(*parts[1 + len(wanted) :]), content)
    if not found:
        raise IntegrityError("cannot unpack", archive, f"it has no '{below}'")


class _Measured:
    """The unpacked stream: goes forward only, counts, and stops at the limits."""

    def __init__(self, stream: gzip.GzipFile, archive: Path, limits: Limits, packed_bytes: int) -> None:
        self._stream = stream
        self._archive = archive
        self._limits = limits
        self._ratio_limit_bytes = max(_RATIO_FLOOR_BYTES, packed_bytes * limits.ratio)
        self._position = 0

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        if position < self._position:
            raise IntegrityError("cannot unpack", self._archive, "a header points backwards")
        while self._position < position:
            if not self._counted(min(position - self._position, _CHUNK_BYTES)):
                raise IntegrityError("cannot unpack", self._archive, "it ends inside a member")
        return self._position

    def read(self, size: int) -> bytes:
        """Read (a part of) a header, for tarfile."""
        if size > _HEADER_LIMIT_BYTES:
            raise RefusedError("cannot unpack", self._archive, f"a header has {size_words(size)}")
        content = b""
        while len(content) < size and (chunk := self._counted(size - len(content))):
            content += chunk
        return content

    def read_content(self, size: int) -> bytes:
        chunk = self._counted(size)
        if not chunk:
            raise IntegrityError("cannot unpack", self._archive, "it ends inside a member")
        return chunk

    def drain(self) -> None:
        """Read to the end, which also makes gzip check its checksum; only padding may follow the end mark."""
        while chunk := self._counted(_CHUNK_BYTES):
            if chunk.strip(b"\0"):
                raise IntegrityError("cannot unpack", self._archive, "something follows its end mark")

    def _counted(self, size: int) -> bytes:
        with _errors(self._archive):  # content is read by the caller, outside of `members`
            chunk = self._stream.read(size)
        self._position += len(chunk)
        if self._position > self._limits.size_bytes:
            limit = size_words(self._limits.size_bytes)
            raise IntegrityError("cannot unpack", self._archive, f"it unpacks to more than the limit of {limit}")
        if self._position > self._ratio_limit_bytes:
            raise IntegrityError(
                "cannot unpack", self._archive, f"it unpacks to more than {self._limits.ratio} times its size"
            )
        return chunk


def _headers(content: _Measured, archive: Path, limits: Limits) -> Iterator[tarfile.TarInfo]:
    parser = tarfile.TarFile(fileobj=cast("BinaryIO", content), mode="r", encoding="utf-8")
    header = parser.next()
    count = 0
    while header is not None:
        count += 1
        if count > limits.members:
            raise IntegrityError("cannot unpack", archive, f"it has more than the limit of {limits.members} members")
        yield header
        content.seek(parser.offset)
        # `TarFile.next()` takes a damaged header for the end of the archive; this does not.
        try:
            header = tarfile.TarInfo.fromtarfile(parser)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined] # typeshed leaves it out
            header = None
    content.drain()


@contextmanager
def _errors(archive: Path) -> Iterator[None]:
    try:
        yield
    except (
        tarfile.TarError,
        zlib.error,
        gzip.BadGzipFile,
        EOFError,
        ValueError,
        OverflowError,
        RecursionError,
    ) as error:
        raise IntegrityError("cannot unpack", archive, f"it is damaged ({printable(error)})") from error


def _checked_parts(archive: Path, name: str) -> tuple[str, ...]:
    """Return the parts of a member's name, without `.`; refuse every name that could lead elsewhere."""
    plain = name.removesuffix("/")
    why = None
    if not plain or plain.startswith("/"):
        why = "is absolute or empty"
    elif "\\" in plain or any(unicodedata.category(character) in {"Cc", "Cs"} for character in plain):
        why = "holds a backslash, a control character or bytes that are not UTF-8"
    elif any(part in {"", ".."} for part in plain.split("/")):
        why = "would leave its directory"
    elif len(plain) > _PATH_LIMIT or any(len(os.fsencode(part)) > _NAME_LIMIT_BYTES for part in plain.split("/")):
        why = "is too long"
    parts = tuple(part for part in plain.split("/") if part != ".")
    if why or not parts:
        raise RefusedError("cannot unpack", archive, f"the member '{printable(name, 80)}' {why or 'has no name'}")
    return parts


def _member(archive: Path, header: tarfile.TarInfo, path: PurePosixPath, content: _Measured) -> Member:
    refused = _refusal(header)
    if refused:
        raise RefusedError("cannot unpack", archive, f"the member '{printable(path, 80)}' {refused}")
    kind: Literal["file", "directory", "link"] = "directory"
    if header.type in _FILE_TYPES:
        kind = "file"
    elif header.issym():
        kind = "link"
    size_bytes = header.size if kind == "file" else 0
    mtime_s = int(min(max(header.mtime, 0), time.time()))
    return Member(path, kind, bool(header.mode & 0o100), size_bytes, mtime_s, header.linkname, content)


def _refusal(header: tarfile.TarInfo) -> str | None:
    odd = next(
        (key for key in header.pax_headers if key in {"size", "hdrcharset"} or key.startswith("GNU.sparse")), None
    )
    if odd or header.issparse():
        return f"has the extended header '{odd or 'sparse'}', which readers understand differently"
    if header.size < 0:
        return "has a negative size"
    if header.issym():
        return None if _is_bare_name(header.linkname) else "is a link to something outside its directory"
    if header.isdir():
        return None
    if header.type not in _FILE_TYPES:
        return "is neither a file, a directory nor a symbolic link"
    return "is setuid or setgid" if header.mode & (stat.S_ISUID | stat.S_ISGID) else None


def _is_bare_name(link: str) -> bool:
    return (
        link not in {"", ".", ".."}
        and not set("/\\") & set(link)
        and all(unicodedata.category(character) not in {"Cc", "Cs"} for character in link)
    )
