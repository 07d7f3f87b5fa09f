"""Which servers run: one directory each, whose lock is held by the server itself for as long as it lives."""

import fcntl
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec

from llama_mgr.errors import CorruptStateError, InUseError, NotFoundError
from llama_mgr.locks import is_locked
from llama_mgr.paths import Home, join_below
from llama_mgr.store import read_document, storage_errors

RECORD_KIND = "server"
_SETTLING_S = 1.0  # somebody who only looks whether a server lives holds its lock for a moment

Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]


class ServerRecord(msgspec.Struct, kw_only=True, frozen=True):
    """`server.json`: what a server was started with. `pid` is for messages only, never a target of signals."""

    build_id: str
    model: str
    port: Port
    started_at: str
    pid: int = 0


@dataclass(frozen=True)
class RunningServer:
    """A server that lives now."""

    name: str
    build_id: str
    pid: int
    port: int
    model: str = ""
    """The path of the model's (first) file."""


@dataclass(frozen=True)
class ServerDir:
    """The private directory of one server."""

    path: Path

    @property
    def alive_file(self) -> Path:
        """Locked by the server through a descriptor that it inherited; never unlinked."""
        return self.path / "alive.lock"

    @property
    def record_file(self) -> Path:
        """The `ServerRecord`."""
        return self.path / "server.json"

    @property
    def log_file(self) -> Path:
        """What the server says."""
        return self.path / "server.log"

    @property
    def config_dir(self) -> Path:
        """An empty place instead of the user's own configuration of llama.cpp."""
        return self.path / "config"


def server_dir(home: Home, name: str) -> ServerDir:
    """Return the directory of the server `name`; nothing is made on disk."""
    return ServerDir(join_below(home.servers_dir, name))


def running_servers(home: Home) -> list[RunningServer]:
    """Return all living servers, by name. A server lives while its lock is held; its pid says nothing.

    Raises:
        CorruptStateError: a server lives whose record cannot be read, so that nobody can tell what it needs.
    """
    if not home.servers_dir.is_dir():
        return []
    found = []
    for path in sorted(home.servers_dir.iterdir()):
        directory = ServerDir(path)
        if is_locked(directory.alive_file):
            record = _record_of(directory)
            if record:
                found.append(RunningServer(path.name, record.build_id, record.pid, record.port, record.model))
    return found


def _record_of(directory: ServerDir) -> ServerRecord | None:
    """Return the record of a living server; None when it ended meanwhile."""
    deadline = time.monotonic() + _SETTLING_S
    while True:
        try:
            return read_document(directory.record_file, RECORD_KIND, ServerRecord)
        except NotFoundError as error:
            if not is_locked(directory.alive_file):
                return None
            if time.monotonic() > deadline:
                raise CorruptStateError(
                    "cannot tell which build is run by the server", directory.path.name, "it has no server.json",
                    hint="stop that server",
                ) from error  # fmt: skip
        time.sleep(0.02)


def _already_runs(name: str, record: ServerRecord | None) -> InUseError:
    why, hint = "one of this name runs already", "use that one, or stop it first"
    if record is not None:
        why = f"one of this name runs on port {record.port}"
    if record is not None and record.pid:
        why, hint = f"{why} (pid {record.pid})", f"use that one, or stop it first: kill {record.pid}"
    return InUseError("cannot start the server", name, why, hint=hint)


def claimed_lock(directory: ServerDir) -> int:
    """Make the directory (0700) and return a descriptor that holds its lock.

    Whoever inherits the descriptor keeps the lock; the caller closes its own copy.

    Raises:
        InUseError: a server of this name runs.
        StorageError: the directory cannot be made.
    """
    with storage_errors("cannot make", directory.path):
        directory.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.config_dir.mkdir(mode=0o700, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(directory.alive_file, flags, 0o600)
    deadline = time.monotonic() + _SETTLING_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                os.close(descriptor)
                record = _record_of(directory)
                raise _already_runs(directory.path.name, record) from error
            time.sleep(0.02)
        else:
            return descriptor
