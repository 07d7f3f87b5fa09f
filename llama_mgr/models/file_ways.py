"""Ways to have a file in another place: sharing its blocks or its inode where the file system can, else copying."""

import errno
import fcntl
import hashlib
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from llama_mgr.report import Progress
from llama_mgr.store import make_durable

_FICLONE = 0x40049409  # linux/fs.h
_CHUNK_BYTES = 4 * 1024 * 1024
_CANNOT_SHARE = frozenset(
    {
        errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL,
        errno.ENOTTY, errno.ENOSYS, errno.EBADF, errno.EROFS,
    }
)  # fmt: skip


def reflinked(source: Path, target: Path) -> bool:
    """Make `target` a file of its own that shares the blocks of `source`; False where the file system cannot.

    Raises:
        OSError: the disk failed.
    """
    try:
        _reflink(source, target)
    except OSError as error:
        if error.errno not in _CANNOT_SHARE:
            raise
        return False
    return True


def hard_linked(source: Path, target: Path) -> bool:
    """Give the file `source` the second name `target`; False where the file system, or its owner, does not let us.

    Raises:
        OSError: the disk failed.
    """
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _CANNOT_SHARE:
            raise
        return False
    return True


def copied(source: Path, target: Path, progress: Progress) -> str:
    """Copy `source` to `target`, durably and with its time, and return the sha256 of what was written.

    Raises:
        OSError: the disk is full or failing; what there is of `target` is removed.
    """
    digest, done = hashlib.sha256(), 0
    try:
        with source.open("rb") as file, _created(target) as copy:
            size_bytes = os.fstat(file.fileno()).st_size
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
                copy.write(chunk)
                done += len(chunk)
                progress.update(done, size_bytes)
            copy.flush()
            _keep_time(file.fileno(), copy.fileno())
            make_durable(copy.fileno())
    except BaseException:
        with suppress(OSError):
            target.unlink(missing_ok=True)
        raise
    return digest.hexdigest()


def sha256_of(path: Path, progress: Progress) -> str:
    """Return the sha256 of the file `path`.

    Raises:
        OSError: it cannot be read.
    """
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        size_bytes = os.fstat(file.fileno()).st_size
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            progress.update(done, size_bytes)
    return digest.hexdigest()


def _reflink(source: Path, target: Path) -> None:
    if sys.platform == "darwin":
        _clone_on_apfs(source, target)
        return
    try:
        with source.open("rb") as file, _created(target) as clone:
            fcntl.ioctl(clone.fileno(), _FICLONE, file.fileno())
            _keep_time(file.fileno(), clone.fileno())
    except BaseException:
        with suppress(OSError):
            target.unlink(missing_ok=True)
        raise


def _clone_on_apfs(source: Path, target: Path) -> None:
    """Do what clonefile(2) of macOS does."""
    import ctypes  # noqa: PLC0415 (only here)

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.clonefile(os.fsencode(source), os.fsencode(target), 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(target))


def _keep_time(source: int, target: int) -> None:
    found = os.fstat(source)
    os.utime(target, ns=(found.st_atime_ns, found.st_mtime_ns))


def _created(path: Path) -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.fdopen(os.open(path, flags, 0o600), "wb")
