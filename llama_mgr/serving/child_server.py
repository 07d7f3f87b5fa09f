"""A llama-server as a child of this process: started, watched until it is ready, asked, stopped."""

import contextlib
import errno
import os
import re
import signal
import socket
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from llama_mgr import process
from llama_mgr.build import use
from llama_mgr.errors import BadInputError, ChildFailedError, ConflictError, LlamaMgrError, NotFoundError
from llama_mgr.paths import Home
from llama_mgr.report import Reporter
from llama_mgr.serving import loopback
from llama_mgr.serving.loopback import HOST, Answer
from llama_mgr.serving.server_record import (
    RECORD_KIND,
    RunningServer,
    ServerDir,
    ServerRecord,
    claimed_lock,
    running_servers,
    server_dir,
)
from llama_mgr.store import now_at, storage_errors, write_document
from llama_mgr.text import printable_lines

if TYPE_CHECKING:
    import subprocess  # noqa: TID251 (a type; processes start in process.py)

__all__ = ["Answer", "ChildServer", "Launch", "RunningServer", "running_servers"]

CONTEXT_TOKENS = 4096
READY_TIMEOUT_S = 300.0
STOP_GRACE_S = 10.0
_PORT_TRIES = 3
_PROBE_INTERVAL_S = 0.05
_POLL_INTERVAL_S = 0.01
_DYING_S = 1.0
_TAIL_LINES = 12
_TAIL_BYTES = 64 * 1024
_LAST_PORT = 65535
# Where llama.cpp says that its port is taken: "couldn't bind HTTP server socket" today, "couldn't bind to server
# socket" and "unable to bind" before.
_BIND_FAILURE = re.compile(r"(?:couldn't|unable to|failed to|cannot) bind|[Aa]ddress already in use")
# What chooses and tunes devices is the user's to say; everything else that could change a server stays out.
_DEVICE_VARIABLE = re.compile(
    r"(?:CUDA|GGML|HIP|ROCR|HSA|ROCM|MUSA|ZE|ONEAPI|SYCL|VK|NVIDIA|OMP|GOMP|MTL)_\w+|LD_LIBRARY_PATH|DYLD_LIBRARY_PATH"
)


@dataclass(frozen=True)
class Launch:
    """What to start: a program of the build `build_id`, a model, and which options the program knows."""

    build_id: str
    program: Path
    model: Path
    known_flags: Collection[str]


class ChildServer:
    """A running llama-server. Use `started`; leaving it stops the server."""

    def __init__(self, directory: ServerDir, port: int, child: "subprocess.Popen[bytes]") -> None:
        self.port = port
        self.log_file = directory.log_file
        self._child = child

    @property
    def pid(self) -> int:
        """The process id, for messages."""
        return self._child.pid

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{HOST}:{self.port}"

    def ask(self, prompt: str, *, max_tokens: int = 128, timeout_s: float = 300.0) -> Answer:
        """Return the model's answer to `prompt`.

        Raises:
            ChildFailedError: the server died or did not answer.
        """
        try:
            return loopback.ask(self.port, prompt, max_tokens=max_tokens, timeout_s=timeout_s)
        except ChildFailedError as error:
            if self._ended_within(_DYING_S):
                raise self._death() from error  # a server that died while it worked is the better story
            raise

    def wait(self) -> None:
        """Return when the server ends by itself.

        Raises:
            ChildFailedError: it ended with an error.
        """
        if self._child.wait() != 0:
            raise self._death()

    def stop(self) -> None:
        """End the server: TERM, up to 10 s, KILL. Its lock is free afterwards."""
        process.stop(self._child, STOP_GRACE_S)

    def wait_ready(self, timeout_s: float) -> None:
        """Return as soon as the model is loaded.

        Raises:
            ChildFailedError: the server ended instead, or was not ready within `timeout_s`; it is stopped then.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self._ended_within(_PROBE_INTERVAL_S):
                raise self._death()
            if loopback.is_ready(self.port) and self._child.poll() is None:
                return
        self.stop()
        raise ChildFailedError(
            "cannot wait for", "llama-server", f"it was not ready within {timeout_s:.0f} s",
            tail=self._tail(), log_file=self.log_file,
        )  # fmt: skip

    def _ended_within(self, timeout_s: float) -> bool:
        deadline = time.monotonic() + timeout_s
        while self._child.poll() is None:
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_INTERVAL_S)
        return True

    def _death(self) -> ChildFailedError:
        status = self._child.wait()
        hint = None
        if status in {-signal.SIGILL, -signal.SIGSEGV}:
            # Virtual machines may announce instructions, AMX for one, that then crash in either way.
            hint = "was it built for another CPU? rebuild it here, or with `llama-mgr install --arch cpu-portable`"
        return ChildFailedError(
            "the server ended:", "llama-server", process.status_words(status),
            hint=hint, tail=self._tail(), log_file=self.log_file,
        )  # fmt: skip

    def _tail(self) -> list[str]:
        return printable_lines(_end_of(self.log_file), _TAIL_LINES)


@contextlib.contextmanager
def started(
    home: Home,
    name: str,
    launch: Launch,
    environ: Mapping[str, str],
    reporter: Reporter,
    *,
    port: int | None = None,
    ready_timeout_s: float = READY_TIMEOUT_S,
) -> Iterator[ChildServer]:
    """Start the server `name`, wait until it is ready, and stop it at the end of the body.

    On disk meanwhile: `servers/<name>/` with the record, the log and the lock that the server holds.

    Where the system has util-linux's `setpriv`, the kernel ends the server (TERM) with the thread that started it, so
    that a kill -9 of this process leaves none behind. Elsewhere it lives on then, and messages name its pid.

    Args:
        home: where the server's directory lies.
        name: the server's name, unique among living servers.
        launch: what to start.
        environ: devices, proxies and PATH are taken from it; `LLAMA_ARG_*` never.
        reporter: hears when another port is tried.
        port: where to listen on 127.0.0.1; None takes a free one.
        ready_timeout_s: how long loading the model may take.

    Raises:
        BadInputError: the port is out of range.
        ConflictError: the port is taken.
        InUseError: a server of this name runs.
        NotFoundError: the build was deleted meanwhile.
        ChildFailedError: the server ended before it was ready; the last lines of its log are in the error.
    """
    if port is not None:
        require_free_port(port)
    directory = server_dir(home, name)
    server = _ready_server(home, directory, launch, environ, reporter, port=port, timeout_s=ready_timeout_s)
    try:
        yield server
    finally:
        server.stop()


def require_free_port(port: int) -> None:
    """Check that a server may listen on `port`; llama-server of some eras would silently share it with another.

    Raises:
        BadInputError: it is not within 1-65535, or needs privileges that this user lacks.
        ConflictError: something listens there.
    """
    if not 1 <= port <= _LAST_PORT:
        raise BadInputError("cannot use the port", port, f"a number from 1 to {_LAST_PORT} is needed")
    try:
        _bound(port).close()
    except OSError as error:
        if error.errno == errno.EACCES:
            raise BadInputError("cannot use the port", port, "this user may not", hint="use 1024 or higher") from error
        raise ConflictError(
            "cannot listen on port", port, "another program does", hint="choose another one with --port"
        ) from error


def _bound(port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # connections that are closing do not count
        listener.bind((HOST, port))
        listener.listen(1)
    except OSError:
        listener.close()
        raise
    return listener


def _free_port() -> int:
    with _bound(0) as listener:
        port: int = listener.getsockname()[1]
        return port


def _ready_server(
    home: Home,
    directory: ServerDir,
    launch: Launch,
    environ: Mapping[str, str],
    reporter: Reporter,
    *,
    port: int | None,
    timeout_s: float,
) -> ChildServer:
    prefix = _dying_with_us(environ) if os.access(launch.program, os.X_OK) else []
    for tries_left in reversed(range(_PORT_TRIES)):
        with _undeleted(home, launch, reporter):
            server = _spawned(directory, launch, environ, port or _free_port(), prefix)
        try:
            server.wait_ready(timeout_s)
        except ChildFailedError as error:
            if not _BIND_FAILURE.search(_end_of(directory.log_file)):
                raise
            if port is not None or tries_left == 0:
                raise ConflictError(
                    "cannot listen on port", server.port, "another program took it", log_file=directory.log_file
                ) from error
            reporter.note(f"port {server.port} was taken meanwhile: trying another one")
        except BaseException:
            server.stop()
            raise
        else:
            return server
    raise ConflictError("cannot find a free port")  # pragma: no cover - the loop returns or raises


@contextlib.contextmanager
def _undeleted(home: Home, launch: Launch, reporter: Reporter) -> Iterator[None]:
    """Keep the build until the server's own lock does."""
    if not launch.build_id:  # a linked directory
        yield
        return
    with use.used(home, launch.build_id, "start a server", reporter):
        if not launch.program.exists():
            raise NotFoundError(
                "cannot start", launch.program, "its build was deleted meanwhile", hint="run the command again"
            )
        yield


def _dying_with_us(environ: Mapping[str, str]) -> list[process.Argument]:
    """Return the words before a command that make the kernel end it when we die; none where nothing can.

    A `preexec_fn` could do the same, but may deadlock where there are threads.
    """
    setpriv = process.found_program("setpriv", environ)
    if setpriv is None:
        return []
    words: list[process.Argument] = [setpriv, "--pdeathsig", "TERM", "--"]
    try:  # busybox and old versions do not have the option, and a sandbox may forbid it
        tried = process.run([*words, setpriv, "--version"], environ=process.child_environ(environ), check=False)
    except LlamaMgrError:
        return []
    return words if tried.status == 0 else []


def _spawned(
    directory: ServerDir, launch: Launch, environ: Mapping[str, str], port: int, prefix: Sequence[process.Argument]
) -> ChildServer:
    lock = claimed_lock(directory)
    try:
        record = ServerRecord(build_id=launch.build_id, model=str(launch.model), port=port, started_at=now_at())
        # Before the start, so that whoever sees the server live also sees which build it needs.
        write_document(directory.record_file, RECORD_KIND, record)
        with storage_errors("cannot write", directory.log_file):
            log = directory.log_file.open("wb")
        with log:
            argv = [*prefix, *_argv(launch, port)]
            child = process.start(argv, environ=_environ(directory, environ), log=log, pass_fds=(lock,))
    finally:
        os.close(lock)  # the child's copy keeps it held
    server = ChildServer(directory, port, child)
    try:
        write_document(directory.record_file, RECORD_KIND, msgspec.structs.replace(record, pid=child.pid))
    except BaseException:
        server.stop()
        raise
    return server


def _argv(launch: Launch, port: int) -> list[process.Argument]:
    quiet_ui = next((flag for flag in ("--no-ui", "--no-webui") if flag in launch.known_flags), None)
    return [
        launch.program, "--host", HOST, "--port", str(port), "-m", launch.model, "-c", str(CONTEXT_TOKENS),
        *([quiet_ui] if quiet_ui else []),
    ]  # fmt: skip


def _environ(directory: ServerDir, environ: Mapping[str, str]) -> dict[str, str]:
    devices = {name: value for name, value in environ.items() if _DEVICE_VARIABLE.fullmatch(name)}
    return process.child_environ(environ, **devices, XDG_CONFIG_HOME=str(directory.config_dir))


def _end_of(log_file: Path) -> str:
    try:
        with log_file.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return log.read().decode("utf-8", "replace")
    except OSError:
        return ""
