"""`index.sqlite`: what was read of each GGUF file, so that nobody reads it twice. A cache and nothing else.

Deleted, it comes back from the files. Damaged, it is moved aside and made anew: SQLite finds torn pages, and a checksum
in each row finds what SQLite cannot. Each form of the rows has a table of its own: that of another version is left
alone, for as long as both are used, and goes when the index is deleted (`index rebuild`). Locked, or on a read-only
disk, the work is done without it, and that is said once.
"""

import contextlib
import os
import sqlite3
import stat
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import quote

from llama_mgr.errors import LlamaMgrError
from llama_mgr.locks import held_lock
from llama_mgr.paths import Home
from llama_mgr.report import Reporter
from llama_mgr.store import move_aside, storage_errors
from llama_mgr.text import printable

_BUSY_TIMEOUT_S = 2.0
_LOCK: Final = "index"
_COMPANIONS = ("-wal", "-shm", "-journal")
_COLUMNS = "path, stamp, facts, sample, side_car_stamp, side_car, checksum"

# https://sqlite.org/rescode.html. What speaks against the file itself, and not against the disk, a lock or its rights;
# SQLITE_ERROR is what a table of the right name and the wrong columns gives. Text that is no UTF-8 has no code at all.
_DAMAGE = frozenset(
    {
        sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT,
        sqlite3.SQLITE_SCHEMA, sqlite3.SQLITE_MISMATCH, sqlite3.SQLITE_CONSTRAINT, None,
    }
)  # fmt: skip
_SHORT_READ = sqlite3.SQLITE_IOERR | (2 << 8)  # the file is shorter than its header says
_CANNOT_WRITE = frozenset({sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN})

Result = TypeVar("Result")


class Row(NamedTuple):
    """What is known of one file in the state `stamp`; empty values are not known yet."""

    path: bytes
    stamp: str
    facts: bytes
    """Its traits, or what is wrong with it."""
    sample: str = ""
    """The fingerprint of its content."""
    side_car_stamp: str = ""
    side_car: bytes = b""

    @property
    def checksum(self) -> int:
        """What shows that nothing in it was changed by accident."""
        words = f"{self.stamp}\n{self.sample}\n{self.side_car_stamp}".encode()
        return zlib.crc32(self.side_car, zlib.crc32(self.facts, zlib.crc32(self.path, zlib.crc32(words))))


class _DamageError(Exception):
    """The file is not what was written to it."""


class IndexFile:
    """The index of a home. Every method works, whatever the file is; at worst it remembers nothing.

    Args:
        home: whose.
        table: the name of the table; another one for each form of what is in the rows.
        reporter: hears once what is wrong.
    """

    def __init__(self, home: Home, table: str, reporter: Reporter) -> None:
        self._home = home
        self._table = table
        self._reporter = reporter
        self._path = home.root / "index.sqlite"
        self._is_off = False

    def rows(self) -> dict[bytes, Row]:
        """Return all rows by their path; none when the file is new, damaged or out of reach."""
        return self._done(self._read, {}) if self._is_usable() and self._path.exists() else {}

    def update(self, rows: Iterable[Row], gone: Iterable[bytes]) -> None:
        """Write `rows` in place of older ones of their paths, and forget the paths `gone`."""
        new, old = list(rows), list(gone)
        if (new or old) and self._is_usable():
            self._done(lambda connection: self._write(connection, new, old), None, for_writing=True)

    def delete(self) -> None:
        """Delete the file, and with it what other versions noted; it comes back with the next `update`.

        Raises:
            StorageError: it cannot be deleted.
        """
        with (
            held_lock(self._home, _LOCK, "make the index anew", self._reporter),
            storage_errors("cannot delete", self._path),
        ):
            self._unlink("", *_COMPANIONS)

    # -- reading and writing -------------------------------------------------------------------------------------------

    def _read(self, connection: sqlite3.Connection) -> dict[bytes, Row]:
        query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?"
        if connection.execute(query, (self._table,)).fetchone() is None:
            return {}
        found: dict[bytes, Row] = {}
        for *values, checksum in connection.execute(f"SELECT {_COLUMNS} FROM {self._table}"):  # noqa: S608 (our name)
            row = Row(*values)
            if not _has_types(row) or row.checksum != checksum:
                raise _DamageError("a row does not have its checksum")
            found[row.path] = row
        return found

    def _write(self, connection: sqlite3.Connection, rows: list[Row], gone: list[bytes]) -> None:
        table = self._table
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(
            f"CREATE TABLE IF NOT EXISTS {table} (path BLOB PRIMARY KEY, stamp TEXT NOT NULL, facts BLOB NOT NULL, "
            "sample TEXT NOT NULL, side_car_stamp TEXT NOT NULL, side_car BLOB NOT NULL, checksum INTEGER NOT NULL)"
        )
        connection.executemany(f"DELETE FROM {table} WHERE path = ?", [(path,) for path in gone])  # noqa: S608
        connection.executemany(
            f"INSERT OR REPLACE INTO {table} ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",  # noqa: S608
            [(*row, row.checksum) for row in rows],
        )
        connection.execute("COMMIT")

    # -- the file ------------------------------------------------------------------------------------------------------

    def _is_usable(self) -> bool:
        """Tell whether the file is there as a file, or can come; say once when it is something else."""
        if not self._is_off:
            try:
                if not stat.S_ISREG(self._path.lstat().st_mode):
                    self._switch_off("it is not a regular file")
            except FileNotFoundError:
                pass
            except OSError as error:
                self._switch_off(error.strerror or str(error))
        return not self._is_off

    def _switch_off(self, why: str) -> None:
        if not self._is_off:
            self._is_off = True
            self._reporter.warn(f"working without the index {self._path}, which takes longer: {printable(why)}")

    def _done(
        self, work: Callable[[sqlite3.Connection], Result], otherwise: Result, *, for_writing: bool = False
    ) -> Result:
        """Do `work` with a connection; on a damaged file, once more with a new one."""
        for _ in range(2):
            seen = _inode(self._path)
            try:
                return self._worked(work, for_writing=for_writing)
            except (sqlite3.Error, _DamageError) as error:
                if not _is_damage(error):
                    self._switch_off(str(error))
                    return otherwise
                self._move_aside(seen, str(error))
            if self._is_off:
                return otherwise
        self._switch_off("it is damaged again and again")
        return otherwise

    def _worked(self, work: Callable[[sqlite3.Connection], Result], *, for_writing: bool) -> Result:
        try:
            with _connection(self._path) as connection:
                return work(connection)
        except sqlite3.Error as error:
            if for_writing or _code(error) not in _CANNOT_WRITE:
                raise
        # On a read-only disk the log that belongs to the file cannot be opened; without it, the checksums must do.
        with _connection(f"file:{quote(os.fsencode(self._path))}?immutable=1") as connection:
            return work(connection)

    def _move_aside(self, seen: int | None, why: str) -> None:
        """Move the damaged file out of the way, unless another process has done so since."""
        try:
            with held_lock(self._home, _LOCK, "move the damaged index aside", self._reporter, _BUSY_TIMEOUT_S):
                if _inode(self._path) == seen is not None:
                    aside = move_aside(self._path)
                    self._unlink(*_COMPANIONS)
                    self._reporter.warn(
                        f"the index was damaged ({printable(why)}); it is made anew, the old is {aside}"
                    )
        except LlamaMgrError as error:
            self._switch_off(error.message)

    def _unlink(self, *endings: str) -> None:
        for ending in endings:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(f"{self._path}{ending}")  # noqa: PTH108 (one way for all names)


@contextlib.contextmanager
def _connection(path: object) -> Iterator[sqlite3.Connection]:
    is_uri = str(path).startswith("file:")
    connection = sqlite3.connect(str(path), timeout=_BUSY_TIMEOUT_S, isolation_level=None, uri=is_uri)
    try:
        connection.execute("PRAGMA trusted_schema = OFF")
        if not is_uri:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
        yield connection
    finally:
        with contextlib.suppress(sqlite3.Error):
            connection.close()


def _has_types(row: Row) -> bool:
    kinds = (bytes, str, bytes, str, str, bytes)
    return all(isinstance(value, kind) for value, kind in zip(row, kinds, strict=True))


def _code(error: Any) -> int | None:  # noqa: ANN401 (only some errors of sqlite3 have it)
    code = getattr(error, "sqlite_errorcode", None)
    return None if code is None else code & 0xFF


def _is_damage(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", None) == _SHORT_READ or _code(error) in _DAMAGE


def _inode(path: object) -> int | None:
    try:
        return os.stat(str(path)).st_ino  # noqa: PTH116
    except OSError:
        return None
