"""State on disk: documents written whole or not at all, kernel locks, staging, and deletion of what is ours.

The rules (docs/architecture.md, "State on disk"): a result is made in staging, synced, and renamed once; the rename is
the commit; success is said after it. Locks are flocks on files that are never unlinked. Nothing is deleted that does
not carry our marker.
"""

import contextlib
import errno
import fcntl
import json
import os
import re
import secrets
import shutil
import stat
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from llama_mgr import __version__
from llama_mgr.errors import (
    CorruptStateError,
    NewerStateError,
    NoSpaceError,
    NotFoundError,
    StorageError,
)
from llama_mgr.text import printable, size_words

SCHEMA = 1
DOCUMENT_LIMIT_BYTES = 16 * 1024 * 1024
_TURNS = 5
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{12}\.tmp")

Body = TypeVar("Body", bound=msgspec.Struct)


def now_at() -> str:
    """Return the present moment as state files write it: UTC, ISO 8601, seconds."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


# -- documents ---------------------------------------------------------------------------------------------------------


def write_document(path: Path, kind: str, body: msgspec.Struct, mode: int = 0o600) -> None:
    """Write `body` as the state document `path`, durably and at once.

    On disk afterwards: the whole new document, or, after an error or a crash, the old one untouched.

    Raises:
        StorageError: the disk is full, read-only or failing.
    """
    document = {"schema": SCHEMA, "kind": kind, "written_by": __version__, **msgspec.to_builtins(body)}
    write_bytes(path, (json.dumps(document, indent=1, ensure_ascii=False) + "\n").encode(), mode)


def write_bytes(path: Path, content: bytes, mode: int = 0o600, *, keep_mode: bool = False) -> None:
    """Replace the file `path` by `content` with the guarantees of `write_document`.

    Args:
        path: the file.
        content: all of it.
        mode: the permissions of the new file, less the umask.
        keep_mode: give it the permissions of the file that it replaces, if there is one.

    Raises:
        StorageError: the disk is full, read-only or failing.
    """

    def write(temporary: Path) -> None:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as file:  # noqa: PTH123 (a descriptor, not a path)
            if keep_mode and path.exists():
                os.fchmod(file.fileno(), stat.S_IMODE(path.stat().st_mode) & 0o777)
            file.write(content)
            file.flush()
            make_durable(file.fileno())

    with storage_errors("cannot write", path):
        _replace(path, write)


def _replace(path: Path, write: Callable[[Path], None]) -> None:
    """Have `write` make a file or link under a temporary name, and rename that to `path`, durably.

    Where locks do nothing, as on some network file systems, `remove_temporaries` of another process may take the
    temporary name away; then it is written again.
    """
    for turn in range(1, _TURNS + 1):
        try:
            with _temporary_beside(path) as temporary:
                write(temporary)
                temporary.rename(path)
                return
        except FileNotFoundError:
            if turn == _TURNS:
                raise


@contextlib.contextmanager
def _temporary_beside(path: Path) -> Iterator[Path]:
    """Give the body a free name in the directory of `path`, which it renames to `path`; then make that durable.

    While the body runs, the directory is locked (shared), which tells `remove_temporaries` that the name is in use.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot lock a directory
            fcntl.flock(descriptor, fcntl.LOCK_SH)
        try:
            yield temporary
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        make_durable(descriptor)
    finally:
        os.close(descriptor)


def remove_temporaries(directory: Path, *, dry_run: bool = False) -> list[str]:
    """Remove what killed processes left in `directory` of documents and links that they were writing; return the names.

    While somebody writes there, nothing is removed.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        leftovers = sorted(entry.name for entry in directory.iterdir() if _TEMPORARY.fullmatch(entry.name))
        for name in () if dry_run else leftovers:
            (directory / name).unlink()
    except OSError:
        return []
    finally:
        os.close(descriptor)
    return leftovers


def read_document(path: Path, kind: str, shape: type[Body]) -> Body:
    """Return the state document `path` as a `shape`.

    Raises:
        NotFoundError: there is no such file.
        NewerStateError: a newer llama-mgr wrote it.
        CorruptStateError: it is not a document of this kind, or a field has a wrong type or value.
        StorageError: it cannot be read.
    """
    raw = _decoded(path)
    schema = raw.pop("schema", None)
    if isinstance(schema, int) and not isinstance(schema, bool) and schema > SCHEMA:
        raise NewerStateError(
            "cannot read",
            path,
            f"it has schema {schema}, and this llama-mgr knows up to {SCHEMA}",
            hint="upgrade llama-mgr",
        )
    if schema != SCHEMA or isinstance(schema, bool):
        raise CorruptStateError(
            "cannot read", path, f"its schema is {printable(schema)!r}", hint="run `llama-mgr doctor`"
        )
    found_kind = raw.pop("kind", None)
    raw.pop("written_by", None)
    if found_kind != kind:
        raise CorruptStateError(
            "cannot read", path, f"it is a {printable(found_kind)!r}, not a {kind!r}", hint="run `llama-mgr doctor`"
        )
    try:
        return msgspec.convert(raw, shape)
    except msgspec.ValidationError as error:
        raise CorruptStateError("cannot read", path, printable(error), hint="run `llama-mgr doctor`") from error


def _decoded(path: Path) -> dict[str, Any]:
    content = read_bounded(path, DOCUMENT_LIMIT_BYTES)
    try:
        document = json.loads(content, object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise CorruptStateError(
            "cannot read", path, f"it is not a JSON document ({printable(error)})", hint="run `llama-mgr doctor`"
        ) from error
    if not isinstance(document, dict):
        raise CorruptStateError("cannot read", path, "it is not a JSON object", hint="run `llama-mgr doctor`")
    return document


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key occurs twice")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def move_aside(path: Path) -> Path:
    """Rename the damaged file `path` to `<name>.corrupt-<time>` beside it, and return the new path."""
    aside = path.with_name(f"{path.name}.corrupt-{now_at().replace(':', '')}-{secrets.token_hex(2)}")
    with storage_errors("cannot move aside", path):
        path.rename(aside)
        sync_dir(path.parent)
    return aside


def read_bounded(path: Path, limit_bytes: int) -> bytes:
    """Return the content of the regular file `path`; devices, pipes and oversized files are refused unread.

    Raises:
        NotFoundError: there is no such file.
        StorageError: it is not a regular file, is larger than `limit_bytes` or cannot be read.
    """
    with storage_errors("cannot read", path):
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise NotFoundError("cannot read", path, "there is no such file") from error
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            os.close(descriptor)
            raise StorageError("cannot read", path, "it is not a regular file")
        with open(descriptor, "rb") as file:  # noqa: PTH123 (a descriptor, not a path)
            if found.st_size > limit_bytes:
                raise StorageError(
                    "cannot read",
                    path,
                    f"it has {size_words(found.st_size)}, more than the limit of {size_words(limit_bytes)}",
                )
            return file.read(limit_bytes)


@contextlib.contextmanager
def storage_errors(what: str, path: Path) -> Iterator[None]:
    """Turn an OSError from the body into a StorageError that says what could not be done, and where."""
    try:
        yield
    except OSError as error:
        kind = NoSpaceError if error.errno in {errno.ENOSPC, errno.EDQUOT} else StorageError
        where = error.filename2 or error.filename or path  # of a rename or link, the new name
        raise kind(what, where, error.strerror or str(error), hint=_storage_hint(error)) from error


def _storage_hint(error: OSError) -> str | None:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return "free some space: `llama-mgr instance gc` removes builds that nothing needs"
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return "set LLAMA_MGR_HOME to a directory you can write to"
    return None


# -- durability --------------------------------------------------------------------------------------------------------


def make_durable(descriptor: int) -> None:
    """Return when what was written to the open file (or directory) `descriptor` would survive a power cut.

    On a Mac, fsync leaves it in the drive's own cache (fsync(2) there).
    """
    if sys.platform == "darwin":
        with contextlib.suppress(OSError):  # some file systems, network ones among them, know only fsync
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)


def sync_file(file: Path) -> None:
    """Make the content of `file` durable."""
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        make_durable(descriptor)
    finally:
        os.close(descriptor)


def sync_dir(directory: Path) -> None:
    """Make renames and creations in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        make_durable(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(root: Path) -> None:
    """Make every file and directory below `root`, and `root` itself, durable."""
    for directory, _, files in os.walk(root, topdown=False):
        for name in files:
            path = Path(directory, name)
            if not path.is_symlink():
                sync_file(path)
        sync_dir(Path(directory))


def publish(staged: Path, final: Path) -> None:
    """Move the finished directory `staged` to `final`, durably; this is the commit point of every big result.

    Both must lie on one file system. `final` must not exist.

    Raises:
        StorageError: syncing or renaming failed; `final` does not exist then.
    """
    with storage_errors("cannot finish", final):
        sync_tree(staged)
        final.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        staged.rename(final)
        sync_dir(final.parent)


def point(link: Path, target: Path) -> None:
    """Make the symbolic link `link` point at `target` (relative), replacing an older link in one step.

    Raises:
        StorageError: something that is not a link is in the way, or the disk failed.
    """
    with storage_errors("cannot switch", link):
        if os.path.lexists(link) and not link.is_symlink():
            raise StorageError("cannot switch", link, "it is not a link", hint="run `llama-mgr doctor`")
        _replace(link, lambda temporary: temporary.symlink_to(os.path.relpath(target, link.parent)))


# -- space -------------------------------------------------------------------------------------------------------------


def free_bytes(path: Path) -> int:
    """Return the bytes free for an ordinary user on the file system of `path` (or of its nearest existing parent)."""
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    return shutil.disk_usage(existing).free


def require_free(path: Path, needed_bytes: int, purpose: str) -> None:
    """Refuse work that cannot fit, before its first byte.

    Raises:
        NoSpaceError: the file system of `path` has less than `needed_bytes` free.
    """
    free = free_bytes(path)
    if free < needed_bytes:
        raise NoSpaceError(
            f"cannot {purpose} in",
            path,
            f"it needs about {size_words(needed_bytes)}, and {size_words(free)} are free",
            hint="free some space: `llama-mgr instance gc` removes builds that nothing needs",
        )
