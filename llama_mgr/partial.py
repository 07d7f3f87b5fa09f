"""Unfinished downloads: how they are named, who may write to one, how they become the file, how they are found again.

A partial lies beside its target and is named after the content that it will have, so that one of another revision is
never continued: `.<name>.<first 16 digits of the hash>.part`. Who holds its flock may go on with it. Where flock does
nothing (some network file systems), each process has a partial of its own, with a random part in its name; nobody goes
on with such a one before it has been left alone for an hour. So a lost lock costs bandwidth, and never data.
"""

import errno
import fcntl
import os
import re
import secrets
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from llama_mgr.errors import StorageError
from llama_mgr.store import make_durable, storage_errors, sync_dir

_DIGEST_DIGITS = 16
_NAME_BYTES = 200  # of the target's name; with all that is added, less than the 255 that file systems allow
_QUIET_S = 3600.0  # longer than any pause between tries, and than the hashing of what is already there
_OLDER = r".+\.gguf\.part"  # what version 0.1 left beside a model
_PARTIAL = re.compile(rf"\..+\.[0-9a-f]{{16}}(\.[0-9a-f]{{12}})?\.part|{_OLDER}", re.DOTALL)
_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_CANNOT_RESERVE = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.ENODEV, errno.EPERM})
_KEEP_SIZE = 1  # FALLOC_FL_KEEP_SIZE, linux/falloc.h
_HERE = -100  # AT_FDCWD, linux/fcntl.h
_NO_REPLACE = 1  # RENAME_NOREPLACE, linux/fs.h
_EXCLUSIVE = 4  # RENAME_EXCL of renamex_np(2), sys/stdio.h of macOS
_CANNOT_RENAME_SO = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EPERM})


class Partial:
    """The unfinished file of `target`, which this process alone writes to.

    `is_shared` tells that it is ours by a lock, so that locks work here; else it is by its name.
    """

    def __init__(self, target: Path, path: Path, file: BinaryIO, *, is_shared: bool) -> None:
        self.target = target
        self.path = path
        self.file = file
        self.is_shared = is_shared

    def size_bytes(self) -> int:
        """Return how much is there; what the disk does not take does not count."""
        with suppress(OSError):
            self.file.flush()
        return os.fstat(self.file.fileno()).st_size

    def flush(self) -> None:
        """Hand over to the disk what was written, so that others can read it.

        Raises:
            NoSpaceError: the disk is full.
            StorageError: it failed.
        """
        with storage_errors("cannot write", self.path):
            self.file.flush()

    def reserve(self, size_bytes: int) -> None:
        """Take the disk space of the whole file now, where the file system can; what is there does not change.

        Others who look how much is free then see what is left for them.

        Raises:
            NoSpaceError: it is not there.
            StorageError: the disk failed.
        """
        with storage_errors("cannot reserve space for", self.target):
            _allocate(self.file.fileno(), size_bytes)

    def restart(self) -> None:
        """Begin again with nothing; what was there is gone.

        It is a new file: who writes to the old one, because a lock was lost, does not damage it.

        Raises:
            StorageError: the disk failed.
        """
        with storage_errors("cannot write", self.path):
            path, file = _own_file(self.path)
            path.rename(self.path)
        self.file.close()
        self.file = file

    def publish(self, *, replace: bool = True) -> bool:
        """Give the file its final name, durably; tell whether it has it.

        Args:
            replace: take the name from a file that has it; else it is left to that file, and all stays as it is.

        Raises:
            StorageError: the disk failed, or somebody put another file in the place of the partial.
        """
        with storage_errors("cannot finish", self.target):
            self.file.flush()
            make_durable(self.file.fileno())
            if not _is_still(self.path, self.file):
                raise StorageError(
                    "cannot finish", self.target, "its partial file was removed or replaced meanwhile",
                    hint="run the same command again",
                )  # fmt: skip
            if replace:
                self.path.rename(self.target)
            elif not renamed_to_free_name(self.path, self.target):
                return False
            sync_dir(self.target.parent)
        return True

    def discard(self) -> None:
        """Remove it: what is in it will never become the file."""
        if _is_still(self.path, self.file):
            self.path.unlink(missing_ok=True)


def partial_path(target: Path, digest: str) -> Path:
    """Return where the unfinished `target` lies whose content will have `digest` (a hexadecimal hash)."""
    name = os.fsencode(target.name)[:_NAME_BYTES].decode("utf-8", "ignore")
    return target.with_name(f".{name}.{digest[:_DIGEST_DIGITS]}.part")


@contextmanager
def held_partial(target: Path, digest: str) -> Iterator[Partial]:
    """Hold the partial of `target` while the body runs; wait for another process that holds it.

    On disk afterwards: nothing of it when the body published or discarded it, ended without need of it, or wrote
    nothing; else the partial, from which the next one who asks for the same content goes on.

    Args:
        target: the final path; its directory is made.
        digest: the hash that the whole file will have.

    Raises:
        StorageError: it cannot be made.
    """
    with storage_errors("cannot download to", target):
        target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        partial = _claimed(target, partial_path(target, digest))
    try:
        yield partial
    except BaseException:
        if partial.size_bytes() == 0:
            partial.discard()
        raise
    else:
        partial.discard()  # nothing is there of it when it was published
    finally:
        with suppress(OSError):  # as above; what was published is written
            partial.file.close()


def _claimed(target: Path, path: Path) -> Partial:
    while True:
        file = _opened(path, os.O_CREAT)
        if not _locks(path, file):
            if os.fstat(file.fileno()).st_size == 0:
                path.unlink(missing_ok=True)
            file.close()
            return _private(target, path)
        if _is_still(path, file):
            return Partial(target, path, file, is_shared=True)
        file.close()  # the holder before us finished it and renamed it away


def _own_file(shared: Path) -> tuple[Path, BinaryIO]:
    """Return a new file with a name of its own, locked if that can be; who removes what was left may be faster."""
    while True:
        path = _own_name(shared)
        file = _opened(path, os.O_CREAT | os.O_EXCL)
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)
        if _is_still(path, file):
            return path, file
        file.close()


@contextmanager
def stepped_aside(target: Path, digest: str) -> Iterator[None]:
    """Let the whole file `target` have the name of its partial while the body runs, and its own again afterwards.

    After an error in the body, or a kill, it is a partial to which nothing has to come.

    Raises:
        StorageError: the disk failed.
    """
    path = partial_path(target, digest)
    with storage_errors("cannot rename", target), target.open("rb") as file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX)  # so that nobody takes it for one that was left
        target.rename(path)
        sync_dir(target.parent)
        yield
        path.rename(target)
        sync_dir(target.parent)


def _opened(path: Path, flags: int) -> BinaryIO:
    return os.fdopen(os.open(path, _FLAGS | flags, 0o600), "r+b")


def _locks(path: Path, file: BinaryIO) -> bool:
    """Lock `file`, and tell whether that kept a second descriptor of it out."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX)
    except OSError as error:
        if error.errno in {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL}:
            return False
        raise
    return not _is_still(path, file) or not _is_free(path)


def _is_free(path: Path) -> bool:
    try:
        with _opened(path, 0) as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError as error:
        return error.errno not in {errno.EWOULDBLOCK, errno.EACCES}
    return True


def _private(target: Path, shared: Path) -> Partial:
    """Return a partial that is ours by its name: one that everybody has left, or a new one."""
    for left in (shared, *sorted(shared.parent.glob(f"{_globbed(shared.stem)}.*.part"))):
        with suppress(FileNotFoundError):
            if _is_quiet(left):
                path = _own_name(shared)
                left.rename(path)  # one of all who try this succeeds
                os.utime(path)
                return Partial(target, path, _opened(path, 0), is_shared=False)
    return Partial(target, *_own_file(shared), is_shared=False)


def _own_name(path: Path) -> Path:
    shared = re.sub(r"(\.[0-9a-f]{16})\.[0-9a-f]{12}$", r"\1", path.stem)
    return path.with_name(f"{shared}.{secrets.token_hex(6)}.part")


def _globbed(name: str) -> str:
    return re.sub(r"([*?\[])", r"[\1]", name)


def _is_quiet(path: Path) -> bool:
    return time.time() - path.lstat().st_mtime > _QUIET_S


def _is_still(path: Path, file: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False


def renamed_to_free_name(path: Path, target: Path) -> bool:
    """Rename `path` to `target`, or tell that something has that name; the kernel decides, where it can.

    Raises:
        OSError: the disk failed.
    """
    code = _exclusive_rename(path, target)
    if code == errno.EEXIST:
        return False
    if code in _CANNOT_RENAME_SO:  # of the system or the file system: looked first then
        if os.path.lexists(target):
            return False
        path.rename(target)
    elif code:
        raise OSError(code, os.strerror(code), str(path), None, str(target))
    return True


def _exclusive_rename(path: Path, target: Path) -> int:
    """Rename with what Linux and macOS have for it; return 0 or the error number."""
    import ctypes  # noqa: PLC0415 (only downloads need it)

    libc = ctypes.CDLL(None, use_errno=True)
    old, new = os.fsencode(path), os.fsencode(target)
    if sys.platform == "darwin":
        failed = libc.renamex_np(old, new, ctypes.c_uint(_EXCLUSIVE)) != 0
    elif hasattr(libc, "renameat2"):  # glibc 2.28, musl 1.2.6
        failed = libc.renameat2(_HERE, old, _HERE, new, ctypes.c_uint(_NO_REPLACE)) != 0
    else:
        return errno.ENOSYS
    return ctypes.get_errno() if failed else 0


def _allocate(descriptor: int, size_bytes: int) -> None:
    """Do what fallocate(2) does with FALLOC_FL_KEEP_SIZE; os.posix_fallocate would change the size."""
    if sys.platform != "linux" or size_bytes <= 0:
        return
    import ctypes  # noqa: PLC0415 (only downloads need it)

    libc = ctypes.CDLL(None, use_errno=True)
    allocate = getattr(libc, "fallocate64", None) or getattr(libc, "fallocate", None)  # musl has only the latter
    if allocate is None:
        return
    allocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    while allocate(descriptor, _KEEP_SIZE, 0, size_bytes) != 0:
        code = ctypes.get_errno()
        if code in _CANNOT_RESERVE:
            return
        if code != errno.EINTR:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size)  # ext4 keeps what it got until there was no more
            raise OSError(code, os.strerror(code))


# -- what was left -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unfinished:
    """A partial that nobody writes to; `size_bytes` is what it takes on the disk."""

    path: Path
    size_bytes: int
    modified_at: str


def unfinished(directory: Path) -> list[Unfinished]:
    """Return the partials below `directory`, a place of ours, that nobody works on now, in the order of their paths."""
    found = []
    for place, names, files in os.walk(directory):
        names.sort()
        found += [
            one
            for name in sorted(files)
            if _PARTIAL.fullmatch(name) and (one := _abandoned(Path(place, name))) is not None
        ]
    return found


def remove_unfinished(one: Unfinished) -> bool:
    """Remove a partial that `unfinished` found; False when somebody works on it again, or it is gone.

    Raises:
        StorageError: it cannot be removed.
    """
    with storage_errors("cannot remove", one.path), suppress(FileNotFoundError), _opened(one.path, 0) as file:
        if _is_ours_now(one.path, file):
            one.path.unlink()
            return True
    return False


def _abandoned(path: Path) -> Unfinished | None:
    try:
        with _opened(path, os.O_NONBLOCK) as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) or not _is_ours_now(path, file):
                return None
    except OSError:  # it is gone, or is not ours
        return None
    modified_at = datetime.fromtimestamp(found.st_mtime, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Unfinished(path, max(found.st_size, found.st_blocks * 512), modified_at)


def _is_ours_now(path: Path, file: BinaryIO) -> bool:
    """Tell whether nobody else holds `file`; where locks do nothing, whether it was left alone for long."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in {errno.EWOULDBLOCK, errno.EACCES} and _is_quiet(path)
    return _is_still(path, file) and (not _is_free(path) or _is_quiet(path))
