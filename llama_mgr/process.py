"""Child processes: the only door to `subprocess`.

Argv lists, never a shell; an explicit environment; no standard input; a session of their own, so that stopping one
stops its children too, those among them that made process groups (as ninja does for each compiler).
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from llama_mgr.errors import ChildFailedError, MissingToolsError
from llama_mgr.peak_memory import PeakMemory
from llama_mgr.text import printable, printable_lines

Argument = str | Path
STOP_GRACE_S = 5.0
_OUTPUT_LIMIT_BYTES = 8 * 1024 * 1024
_LINE_LIMIT_BYTES = 64 * 1024
_TAIL_LINES = 12
_MEMORY_LOOK_S = 0.1
_SESSION_LOOKS = 20  # the killed take a moment to go, and may have forked between a look and its signals

# What a build may inherit. Everything else could change a result behind the plan's back (CMAKE_*, GIT_*, LD_PRELOAD,
# SOURCE_DATE_EPOCH which turns SIMD off, PYTHON*, LLAMA_ARG_*, ...).
_INHERITED = frozenset(
    {
        "PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TERM", "TZ",
        "http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
        "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "SSH_AUTH_SOCK",
        "SDKROOT", "DEVELOPER_DIR", "MACOSX_DEPLOYMENT_TARGET",
    }
)  # fmt: skip


def child_environ(environ: Mapping[str, str], **extra: str) -> dict[str, str]:
    """Return the environment for a child: the harmless part of `environ`, a plain locale, then `extra`."""
    kept = {name: value for name, value in environ.items() if name in _INHERITED}
    return {**kept, "PATH": _absolute_path(environ), "LC_ALL": "C.UTF-8", "LANG": "C.UTF-8", **extra}


def _absolute_path(environ: Mapping[str, str]) -> str:
    """Return PATH without relative entries, which would let the working directory choose programs."""
    return os.pathsep.join(part for part in environ.get("PATH", "").split(os.pathsep) if part.startswith("/"))


def found_program(name: str, environ: Mapping[str, str]) -> Path | None:
    """Return the absolute path of `name` on the PATH of `environ`; relative entries (the cwd) never count."""
    found = shutil.which(name, path=_absolute_path(environ))
    return Path(found) if found else None


@dataclass(frozen=True)
class Finished:
    """A child that has ended."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str


def run(
    argv: Sequence[Argument],
    *,
    environ: Mapping[str, str],
    cwd: Path | None = None,
    timeout_s: float = 60.0,
    check: bool = True,
) -> Finished:
    """Run a short command and return what it said (each stream decoded leniently, at most 8 MiB).

    Raises:
        MissingToolsError: the program does not exist or may not be run.
        ChildFailedError: it took longer than `timeout_s`, or `check` is set and its status is not 0.
    """
    child = _start(argv, environ=environ, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    with _stopped_at_the_end(child):
        try:
            out, err = child.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            raise ChildFailedError("cannot wait for", argv[0], f"it did not end within {timeout_s:.0f} s") from error
    finished = Finished(
        tuple(map(str, argv)),
        child.returncode,
        _decoded(out[:_OUTPUT_LIMIT_BYTES]),
        _decoded(err[:_OUTPUT_LIMIT_BYTES]),
    )
    if check and finished.status != 0:
        raise ChildFailedError(
            "cannot run", Path(finished.argv[0]).name, status_words(finished.status),
            tail=printable_lines(finished.stderr or finished.stdout, _TAIL_LINES),
        )  # fmt: skip
    return finished


def stream(
    argv: Sequence[Argument],
    *,
    environ: Mapping[str, str],
    cwd: Path | None = None,
    log: BinaryIO,
    on_line: Callable[[str], None],
) -> int:
    """Run a long command; copy its output (both streams, in order) into `log` and hand each line to `on_line`.

    Lines end at newline or carriage return; `on_line` gets them without the end, not yet made printable. If the caller
    is interrupted, the whole process group is stopped before the exception goes on.

    Returns:
        The exit status; negative is the number of the signal that killed it.

    Raises:
        MissingToolsError: the program does not exist or may not be run.
    """
    return watch(argv, environ=environ, cwd=cwd, log=log, on_line=on_line).status


@dataclass(frozen=True)
class Watched:
    """How a child ended, and the most memory that it had."""

    status: int
    """Negative is the number of the signal that killed it."""
    peak_bytes: int | None
    """The largest resident size, pages of mapped files among it; None where it cannot be told from our own."""


class Children:
    """Children that several threads watch; the main thread alone hears of Ctrl-C, and stops them all."""

    def __init__(self) -> None:
        self._running: set[subprocess.Popen[bytes]] = set()
        self._guard = threading.Lock()
        self._is_over = False

    @property
    def is_over(self) -> bool:
        """Whether `stop_all` was called."""
        return self._is_over

    def stop_all(self) -> None:
        """Kill all children with their groups; those that are started from now on end at once."""
        with self._guard:
            self._is_over = True
            running = list(self._running)
        for child in running:
            _kill_session(child.pid)

    @contextlib.contextmanager
    def holding(self, child: "subprocess.Popen[bytes]") -> Iterator[None]:
        """Have `stop_all` end `child` while the body runs."""
        with self._guard:
            self._running.add(child)
            is_over = self._is_over
        if is_over:
            _kill_session(child.pid)
        try:
            yield
        finally:
            with self._guard:
                self._running.discard(child)


def watch(
    argv: Sequence[Argument],
    *,
    environ: Mapping[str, str],
    cwd: Path | None = None,
    log: BinaryIO,
    on_line: Callable[[str], None],
    stdout: BinaryIO | None = None,
    line_ends: bytes = b"\r",
    children: Children | None = None,
) -> Watched:
    """Run a long command as `stream` does, and tell how much memory it had.

    Args:
        argv: the command.
        environ: its whole environment.
        cwd: where it runs.
        log: gets its output.
        on_line: gets each line.
        stdout: gets its standard output; then only what it says on standard error is logged.
        line_ends: bytes that end a line, besides a newline; some programs say `[1]5.2,[2]5.4,` for minutes.
        children: where it is noted while it runs, for callers with several threads.

    Raises:
        MissingToolsError: the program does not exist or may not be run.
    """
    apart = stdout is not None
    child = _start(
        argv, environ=environ, cwd=cwd, stdout=stdout or subprocess.PIPE,
        stderr=subprocess.PIPE if apart else subprocess.STDOUT,
    )  # fmt: skip
    with _stopped_at_the_end(child), (children or Children()).holding(child):
        pipe = child.stderr if apart else child.stdout
        if pipe is None:  # pragma: no cover - we asked for a pipe
            raise ChildFailedError("cannot read from", argv[0])
        memory = PeakMemory(child.pid)
        for line in _lines(pipe, log, line_ends, memory.look):
            on_line(line)
        return _waited(child, memory)


def _waited(child: "subprocess.Popen[bytes]", memory: PeakMemory) -> Watched:
    """Wait for `child` in the way that tells its memory; `Popen.wait` does not."""
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    return Watched(child.returncode, memory.peak_bytes(usage))


def start(
    argv: Sequence[Argument], *, environ: Mapping[str, str], log: BinaryIO, pass_fds: Sequence[int] = ()
) -> "subprocess.Popen[bytes]":
    """Start a child that goes on in the background, its output going into `log`; the caller must `stop` it.

    Raises:
        MissingToolsError: the program does not exist or may not be run.
    """
    return _start(argv, environ=environ, cwd=None, stdout=log, stderr=subprocess.STDOUT, pass_fds=pass_fds)


def stop(child: "subprocess.Popen[bytes]", grace_s: float = STOP_GRACE_S) -> int:
    """End `child` and its whole session: TERM, up to `grace_s` seconds, KILL. Returns the exit status."""
    try:
        if child.poll() is None:
            _signal_group(child.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(grace_s)
    finally:  # a second Ctrl-C ends the waiting, and must not leave the child behind
        _kill_session(child.pid)
    return child.wait()


def replace(argv: Sequence[Argument], *, environ: Mapping[str, str]) -> NoReturn:
    """Become the program `argv[0]`; nothing of llama-mgr remains.

    Raises:
        MissingToolsError: the program does not exist or may not be run.
    """
    words = [str(argument) for argument in argv]
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and execve would hand that on
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(words[0], words, dict(environ))  # noqa: S606 (that is what this function is for)
    except OSError as error:
        raise MissingToolsError("cannot run", words[0], error.strerror or "") from error


def status_words(status: int) -> str:
    """Return how a child ended, in words: `it ended with status 2`, `it was killed by SIGKILL`."""
    if status >= 0:
        return f"it ended with status {status}"
    try:
        return f"it was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"it was killed by signal {-status}"


def _start(
    argv: Sequence[Argument],
    *,
    environ: Mapping[str, str],
    cwd: Path | None,
    stdout: int | BinaryIO,
    stderr: int,
    pass_fds: Sequence[int] = (),
) -> "subprocess.Popen[bytes]":
    words = [str(argument) for argument in argv]
    try:
        return subprocess.Popen(
            words, env=dict(environ), cwd=cwd, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
            start_new_session=True, pass_fds=pass_fds,
        )  # fmt: skip
    except OSError as error:  # missing, not executable, for another machine
        raise MissingToolsError("cannot run", words[0], error.strerror or "") from error


@contextlib.contextmanager
def _stopped_at_the_end(child: "subprocess.Popen[bytes]") -> Iterator[None]:
    try:
        yield
    except BaseException:
        stop(child)
        raise
    else:
        if child.poll() is None:
            stop(child)
        else:
            _signal_group(child.pid, signal.SIGKILL)  # what it may have left behind in its group
    finally:
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


def _kill_session(session: int) -> None:
    """Kill all processes of a session; where there is no /proc, those of its leader's group.

    `cmake` dies of SIGTERM at once, and ninja, which would hand that on, may be killed before it did.
    """
    _signal_group(session, signal.SIGKILL)
    for _ in range(_SESSION_LOOKS):
        if not (members := _session_members(session)):
            return
        for pid in members:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _session_members(session: int) -> list[int]:
    """Return the processes of a session that have not ended."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            state, _parent, _group, its_session = stat.read_bytes().rpartition(b")")[2].split()[:4]
            if int(its_session) == session and state not in (b"Z", b"X"):
                members.append(int(stat.parent.name))
    return members


def _lines(pipe: "subprocess._FILE", log: BinaryIO, line_ends: bytes, meanwhile: Callable[[], None]) -> Iterator[str]:
    pending = b""
    ends = bytes.maketrans(line_ends, b"\n" * len(line_ends))
    for chunk in _chunks(pipe.fileno(), meanwhile):  # type: ignore[union-attr]
        log.write(chunk)
        pending += chunk.translate(ends)
        *whole, pending = pending.split(b"\n")
        for line in whole:
            if line:
                yield _decoded(line[:_LINE_LIMIT_BYTES])
        pending = pending[-_LINE_LIMIT_BYTES:]
    if pending:
        yield _decoded(pending)
    log.flush()


def _chunks(descriptor: int, meanwhile: Callable[[], None]) -> Iterator[bytes]:
    readable = select.poll()
    readable.register(descriptor, select.POLLIN)
    due = time.monotonic()
    while True:
        if (now := time.monotonic()) >= due:
            meanwhile()
            due = now + _MEMORY_LOOK_S
        if readable.poll(_MEMORY_LOOK_S * 1000):
            if not (chunk := os.read(descriptor, 65536)):
                return
            yield chunk


def _decoded(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def argv_words(argv: Sequence[Argument]) -> str:
    """Return `argv` as a line that a person can paste into a shell."""
    import shlex  # noqa: PLC0415 (only dry runs and error messages need it)

    return shlex.join(printable(argument, 4000) for argument in argv)
