"""What a download shall bring, and what of it has arrived."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from llama_mgr.partial import Partial

_HASHED_BYTES = 256 * 1024
_SIZE_LIMIT_BYTES = 64 * 1024**3  # of files whose size nobody tells


@dataclass(frozen=True)
class Download:
    """What is wanted: with the `sha256` of 64 lower-case hex digits, or with the `git_sha1` that git gives a blob.

    `headers` go with the request to `url` itself, and to no other origin. A `git_sha1` needs the size. `on_size` hears
    the size that a server tells where none is promised; it may raise, for want of room.
    """

    name: str
    url: str
    sha256: str = ""
    size_bytes: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    git_sha1: str = ""
    on_size: Callable[[int], None] | None = field(default=None, repr=False, compare=False)

    @property
    def promised(self) -> str:
        """The hash that the content must have, in hexadecimal."""
        return self.sha256 or self.git_sha1

    def new_digest(self) -> "hashlib._Hash":
        """Return the running hash of nothing."""
        if self.sha256:
            return hashlib.sha256()
        return hashlib.sha1(b"blob %d\0" % (self.size_bytes or 0))  # noqa: S324 (git's choice; for what has nothing better)

    @property
    def hash_name(self) -> str:
        """How the hash is called."""
        return "sha256" if self.sha256 else "git hash"

    @property
    def limit_bytes(self) -> int:
        """More than this is not read."""
        return _SIZE_LIMIT_BYTES if self.size_bytes is None else self.size_bytes

    def matches(self, content: bytes) -> bool:
        """Tell whether `content` is the promised one."""
        digest = self.new_digest()
        digest.update(content)
        return digest.hexdigest() == self.promised

    def is_in(self, path: Path) -> bool:
        """Tell whether the file `path` has the promised content."""
        if self.size_bytes is not None and path.stat().st_size != self.size_bytes:
            return False
        digest = self.new_digest()
        with path.open("rb") as content:
            while chunk := content.read(_HASHED_BYTES):
                digest.update(chunk)
        return digest.hexdigest() == self.promised


class OtherFileError(Exception):
    """The server's file is another one than was promised."""


class Arrival:
    """What of one download has arrived: the partial file, how long it is, its running hash, its ETag."""

    def __init__(self, file: Download, partial: Partial) -> None:
        self._wanted, self._partial = file, partial
        self.etag = ""
        self.came_bytes = 0
        self.digest, self.size_bytes = file.new_digest(), 0
        partial.file.seek(0)
        while chunk := partial.file.read(_HASHED_BYTES):
            self._count(chunk)

    def restart(self) -> None:
        """Forget all that arrived."""
        self._partial.restart()
        self.etag = ""
        self.digest, self.size_bytes = self._wanted.new_digest(), 0

    def append(self, chunk: bytes) -> None:
        """Write what arrived now."""
        self._partial.file.seek(self.size_bytes)
        self._partial.file.write(chunk)
        self._count(chunk)
        self.came_bytes += len(chunk)

    @property
    def is_right(self) -> bool:
        """Whether this is the promised content."""
        return self.digest.hexdigest() == self._wanted.promised

    def _count(self, chunk: bytes) -> None:
        self.digest.update(chunk)
        self.size_bytes += len(chunk)
