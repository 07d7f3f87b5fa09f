"""What a file must contain: known by its sha256, or, for small files on the hub, by the sha1 that git has for them."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llama_mgr.report import Reporter
from llama_mgr.store import storage_errors
from llama_mgr.text import printable

if TYPE_CHECKING:
    from llama_mgr.models.hub import HubFile

_CHUNK_BYTES = 1024 * 1024
_WORTH_A_BAR_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True)
class Content:
    """The bytes of one file; `size_bytes` 0 means that nobody told how many there are."""

    sha256: str
    size_bytes: int
    git_sha1: str = ""

    @property
    def digest(self) -> str:
        """The hash that tells it from all other contents."""
        return self.sha256 or self.git_sha1

    def is_in(self, path: Path, reporter: Reporter) -> bool:
        """Tell whether the regular file `path` has this content; all of it is read when its size allows it.

        Raises:
            StorageError: it cannot be read.
        """
        if path.is_symlink() or not path.is_file():
            return False
        with storage_errors("cannot read", path):
            if self.size_bytes and path.stat().st_size != self.size_bytes:
                return False
        return hash_of(path, reporter, git=not self.sha256) == self.digest


def content_of(file: "HubFile") -> Content:
    """Return the content that the hub promises for `file`."""
    return Content(file.sha256, file.size_bytes, file.git_sha1)


def hash_of(path: Path, reporter: Reporter, *, git: bool = False) -> str:
    """Return the sha256 of the file `path`, or the sha1 that git has for it; big files show a bar.

    Raises:
        StorageError: it cannot be read.
    """
    with storage_errors("cannot read", path), path.open("rb") as file:
        size_bytes = path.stat().st_size
        # As `git hash-object` does it; it tells files apart here, and is no protection.
        digest = hashlib.sha1(b"blob %d\0" % size_bytes) if git else hashlib.sha256()  # noqa: S324
        if size_bytes < _WORTH_A_BAR_BYTES:
            digest.update(file.read())
            return digest.hexdigest()
        with reporter.progress(f"check {printable(path.name)}", size_bytes, "bytes") as bar:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                bar.update(file.tell(), size_bytes)
    return digest.hexdigest()
