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
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from llama_mgr import __version__
from llama_mgr.errors import (
    BusyError,
    CorruptStateError,
    NewerStateError,
    NoSpaceError,
    NotFoundError,
    RefusedError,
    StorageError,
)
from llama_mgr.paths import Home, join_below
from llama_mgr.report import Reporter, SilentReporter
from llama_mgr.text import printable, size_words

SCHEMA = 1
DOCUMENT_LIMIT_BYTES = 16 * 1024 * 1024
MARKER_NAME = ".llama-mgr.json"
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


def write_bytes(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace the file `path` by `content` with the guarantees of `write_document`.

    Raises:
        StorageError: the disk is full, read-only or failing.
    """
    with storage_errors("cannot write", path), _temporary_beside(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with open(descriptor, "wb") as file:  # noqa: PTH123 (a descriptor, not a path)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)


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
        os.fsync(descriptor)
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


def sync_dir(directory: Path) -> None:
    """Make renames and creations in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(root: Path) -> None:
    """Make every file and directory below `root`, and `root` itself, durable."""
    for directory, _, files in os.walk(root, topdown=False):
        for name in files:
            path = Path(directory, name)
            if not path.is_symlink():
                descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
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
        with _temporary_beside(link) as temporary:
            temporary.symlink_to(os.path.relpath(target, link.parent))
            temporary.rename(link)


# -- locks -------------------------------------------------------------------------------------------------------------


class _Holder(msgspec.Struct):
    pid: int
    purpose: str
    since: str


def lock_file(home: Home, name: str) -> Path:
    """Return the lock file of `name` (`instance-old`, `build-b11434-cpu-1a2b3c4d`, `source-…`)."""
    return join_below(home.locks_dir, f"{name}.lock")


@contextlib.contextmanager
def held_lock(
    home: Home, name: str, purpose: str, reporter: Reporter, timeout_s: float | None = None, *, shared: bool = False
) -> Iterator[None]:
    """Hold the lock `name` while the body runs; while waiting, say for what and for whom.

    The kernel frees it when this process dies. The file stays for ever.

    Args:
        home: whose locks.
        name: what is locked.
        purpose: what this process will do, for those who wait for it.
        reporter: hears that we wait.
        timeout_s: how long to wait for another holder; None waits without end, 0 does not wait.
        shared: let others who also ask for a shared lock hold it at the same time.

    Raises:
        BusyError: another process held it longer than `timeout_s`.
    """
    path = lock_file(home, name)
    with storage_errors("cannot lock", path):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = _locked_descriptor(path, name, reporter, timeout_s, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
    try:
        holder = json.dumps({"pid": os.getpid(), "purpose": purpose, "since": now_at()}).encode()
        with contextlib.suppress(OSError):  # the note about the holder is for messages only
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, holder, 0)
        yield
    finally:
        os.close(descriptor)


def _locked_descriptor(path: Path, name: str, reporter: Reporter, timeout_s: float | None, mode: int) -> int:
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    told = False
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
            if _is_still(path, descriptor):
                return descriptor
            os.close(descriptor)  # somebody replaced the file: a lock on the old one protects nothing
            continue
        except BlockingIOError:
            os.close(descriptor)
        if deadline is not None and time.monotonic() >= deadline:
            raise BusyError("cannot get the lock", name, holder_words(path), hint="wait for it, or stop that process")
        if not told:
            reporter.note(f"waiting for {name}: {holder_words(path)}")
            told = True
        time.sleep(0.05)


def _is_still(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.lstat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def holder_words(path: Path) -> str:
    """Return who holds the lock file `path`, in words: `pid 4711 holds it since … (install b11434)`."""
    try:
        holder = msgspec.json.decode(path.read_bytes(), type=_Holder)
    except (OSError, msgspec.MsgspecError):
        return "another process holds it"
    return f"pid {holder.pid} holds it since {printable(holder.since)} ({printable(holder.purpose)})"


def is_locked(path: Path) -> bool:
    """Tell whether some living process holds the lock file `path`."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


# -- staging and deletion ----------------------------------------------------------------------------------------------


class Marker(msgspec.Struct):
    """The file that says: llama-mgr made this directory, and may delete it."""

    of: str


def mark(directory: Path, of: str) -> None:
    """Put our marker into `directory`; `of` must be what later deletion names."""
    write_document(directory / MARKER_NAME, "marker", Marker(of=of))


@contextlib.contextmanager
def staging(home: Home, purpose: str) -> Iterator[Path]:
    """Give the body an empty private directory that vanishes afterwards, unless the body renamed it away.

    A killed process leaves it behind; `stale_staging` finds such leftovers by their free lock.
    """
    operation = f"{purpose}-{secrets.token_hex(6)}"
    directory = join_below(home.staging_dir, operation)
    with _staging_gate(home, shared=True), storage_errors("cannot make", directory):
        directory.mkdir(mode=0o700, parents=True)
        lock = os.open(directory / ".alive", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield directory
    finally:
        os.close(lock)
        shutil.rmtree(directory, ignore_errors=True)


def _staging_gate(home: Home, *, shared: bool) -> contextlib.AbstractContextManager[None]:
    """Keep `remove_staging` out between the making of a directory and the locking of its `.alive`."""
    return held_lock(home, "staging", "begin or clean up staging", SilentReporter(), shared=shared)


def stale_staging(home: Home) -> list[Path]:
    """Return the staging directories whose owners are dead."""
    if not home.staging_dir.is_dir():
        return []
    return sorted(entry for entry in home.staging_dir.iterdir() if entry.is_dir() and not is_locked(entry / ".alive"))


def remove_staging(home: Home, directory: Path) -> None:
    """Delete a leftover of `stale_staging`; one whose owner turns out to live stays."""
    if directory.parent != home.staging_dir or directory.is_symlink():
        raise RefusedError("cannot delete", directory, "it is not a staging directory of ours")
    with _staging_gate(home, shared=False):
        if not is_locked(directory / ".alive"):
            shutil.rmtree(directory, ignore_errors=True)


def require_ours(home: Home, directory: Path, of: str) -> None:
    """Check that `directory` may be deleted: below the home, no link, no mount, with a marker that says `of`.

    Raises:
        RefusedError: it is not ours to delete.
    """
    hint = "look at it, and delete it by hand if you are sure"
    if directory.is_symlink() or not directory.is_dir():
        raise RefusedError("cannot delete", directory, "it is not a directory that llama-mgr made", hint=hint)
    if not directory.resolve().is_relative_to(home.root.resolve()) or directory.resolve() == home.root.resolve():
        raise RefusedError("cannot delete", directory, f"it is not below {home.root}", hint=hint)
    if os.path.ismount(directory):
        raise RefusedError("cannot delete", directory, "something is mounted there", hint=hint)
    try:
        marker = read_document(directory / MARKER_NAME, "marker", Marker)
    except (NotFoundError, CorruptStateError, StorageError) as error:
        raise RefusedError("cannot delete", directory, "it does not carry llama-mgr's marker", hint=hint) from error
    if marker.of != of:
        raise RefusedError(
            "cannot delete", directory, f"its marker names '{printable(marker.of)}', not '{of}'", hint=hint
        )


def discard(home: Home, directory: Path, of: str) -> None:
    """Delete `directory`, which must pass `require_ours`.

    It is renamed into `trash/` first: a crash leaves either the whole thing or something that is visibly rubbish.

    Raises:
        RefusedError: it is not ours to delete.
        StorageError: the disk failed.
    """
    require_ours(home, directory, of)
    with storage_errors("cannot delete", directory):
        home.trash_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        doomed = join_below(home.trash_dir, f"{directory.name}-{secrets.token_hex(6)}")
        directory.rename(doomed)
        sync_dir(directory.parent)
    shutil.rmtree(doomed, ignore_errors=True)


def empty_trash(home: Home) -> int:
    """Delete what crashes left in `trash/`; return how many things that were."""
    if not home.trash_dir.is_dir():
        return 0
    leftovers = [entry for entry in home.trash_dir.iterdir() if not entry.is_symlink()]
    for entry in leftovers:
        shutil.rmtree(entry, ignore_errors=True)
    return len(leftovers)


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
