"""Whether a whole download fits on the disk, asked before its first byte."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from llama_mgr.errors import NoSpaceError
from llama_mgr.partial import partial_path
from llama_mgr.store import free_bytes, storage_errors
from llama_mgr.text import printable, size_words

PRUNE_HINT = "`llama-mgr index prune` removes unfinished downloads, and `llama-mgr rm` models"
# Besides the files themselves: their side-cars and the index; and what the file system writes down for the blocks, of
# which btrfs with sha256 checksums needs most (32 bytes for 4 KiB).
_FIXED_MARGIN_BYTES = 16 * 1024 * 1024
_MARGIN_SHARE = 128


@dataclass(frozen=True)
class Space:
    """What one file needs: `size_bytes` for content with the hash `digest`, under the name `target`."""

    target: Path
    digest: str
    size_bytes: int

    def present_bytes(self) -> int:
        """Return how much of it its partial has."""
        with suppress(OSError):
            return min(partial_path(self.target, self.digest).lstat().st_size, self.size_bytes)
        return 0

    def missing_bytes(self) -> int:
        """Return what is still to be written, less what its partial already takes on the disk."""
        with suppress(OSError):
            found = partial_path(self.target, self.digest).lstat()
            return max(self.size_bytes - max(found.st_size, found.st_blocks * 512), 0)
        return self.size_bytes


def require_room(purpose: str, subject: object, files: Iterable[Space]) -> None:
    """Refuse a download that cannot fit, before its first byte.

    Args:
        purpose: what cannot be done, as a verb: `pull`.
        subject: the name of what it is.
        files: all that is to be written; they lie on one file system.

    Raises:
        NoSpaceError: there is not enough; need, free space and file system are named.
    """
    wanted = list(files)
    missing_bytes = sum(file.missing_bytes() for file in wanted)
    if not missing_bytes:
        return
    directory = wanted[0].target.parent
    needed_bytes, free = missing_bytes + _FIXED_MARGIN_BYTES + missing_bytes // _MARGIN_SHARE, free_bytes(directory)
    if free < needed_bytes:
        raise NoSpaceError(
            f"cannot {purpose}", subject,
            f"it needs {size_words(needed_bytes)} more, and {size_words(free)} are free on the file system of "
            f"{printable(mount_point(directory))}",
            hint=f"{PRUNE_HINT}; --force tries it all the same",
        )  # fmt: skip


@contextmanager
def full_disk(target: Path, partial: Path | None = None) -> Iterator[None]:
    """Say of a disk that became full while `target` was fetched what is kept, and what makes room.

    Args:
        target: what is fetched.
        partial: where what has come is kept, if `index prune` does not look there.

    Raises:
        NoSpaceError: the disk became full.
        StorageError: it failed in another way.
    """
    try:
        with storage_errors("cannot write", target):
            yield
    except NoSpaceError as error:
        if not isinstance(error.__cause__, OSError):
            raise  # it was refused beforehand
        why = f"the file system of {printable(mount_point(target.parent))} is full; what has come is kept"
        hint = PRUNE_HINT if partial is None else f"make room, or remove {printable(partial)}"
        raise NoSpaceError("cannot go on with", target, why, hint=f"{hint}; the next pull goes on") from error


def mount_point(directory: Path) -> Path:
    """Return where the file system that `directory` lies on, or will lie on, is mounted."""
    existing = Path(os.path.realpath(next(one for one in (directory, *directory.parents) if one.exists())))
    return next(one for one in (existing, *existing.parents) if os.path.ismount(one))
