"""The git program: the only door to GitPython, which runs it for us.

Argv lists, no prompts, no hooks, no submodules, no LFS, a short list of protocols. The user's own git configuration is
read, because `url.<base>.insteadOf`, proxies, certificates and credential helpers live there; whatever in it could run
programs or change bytes on the way is switched off on every command line.
"""

import contextlib
import os
import selectors
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING

from llama_mgr import process
from llama_mgr.build.git_answer import PROGRESS, GitAnswer, failure
from llama_mgr.build.toolchain import tool
from llama_mgr.errors import ChildFailedError, MissingToolsError, RemoteError
from llama_mgr.report import Progress
from llama_mgr.store import storage_errors
from llama_mgr.text import printable

if TYPE_CHECKING:
    import subprocess

Word = str | Path
QUIET_LIMIT_S = 60.0
"""A remote that says nothing for so long is taken for dead; git reports progress every second while it works."""
_RETRY = "try again when the network is back"
_OUTPUT_LIMIT_BYTES = 512 * 1024 * 1024
_STDERR_LIMIT_BYTES = 256 * 1024

_CONFIG = (
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.autocrlf=false",
    "core.attributesFile=/dev/null",
    "filter.lfs.smudge=",
    "filter.lfs.process=",
    "filter.lfs.required=false",
    "submodule.recurse=false",
    "fetch.recurseSubmodules=false",
    "gc.auto=0",  # a collection in the background would outlive our lock; mirror.py tidies up under it
    "maintenance.auto=false",
    "http.lowSpeedLimit=1000",
    "http.lowSpeedTime=30",
    "advice.detachedHead=false",
    "color.ui=false",
)
_ENVIRON = {
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_ASKPASS": "",
    "SSH_ASKPASS": "",
    "GCM_INTERACTIVE": "never",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_PAGER": "cat",
}
# What a person sets to make git work at their place at all; the rest of GIT_* would point us at other repositories.
_INHERITED = ("XDG_CONFIG_HOME", "GIT_SSH", "GIT_SSH_COMMAND", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM")
_NEVER_INHERITED = frozenset(
    {
        "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_CEILING_DIRECTORIES", "GIT_COMMON_DIR", "GIT_CONFIG",
        "GIT_CONFIG_COUNT", "GIT_CONFIG_PARAMETERS", "GIT_CONFIG_SYSTEM", "GIT_DIR", "GIT_EXEC_PATH",
        "GIT_EXTERNAL_DIFF", "GIT_GRAFT_FILE", "GIT_INDEX_FILE", "GIT_NAMESPACE", "GIT_NO_REPLACE_OBJECTS",
        "GIT_OBJECT_DIRECTORY", "GIT_PREFIX", "GIT_PROXY_COMMAND", "GIT_REPLACE_REF_BASE", "GIT_SHALLOW_FILE",
        "GIT_TEMPLATE_DIR", "GIT_TRACE", "GIT_WORK_TREE",
    }
)  # fmt: skip


class GitProgram:
    """Runs git. Errors are ours, with the remote's words made printable."""

    def __init__(self, environ: Mapping[str, str], overrides: Mapping[str, Path]) -> None:
        """Run the git that the user's configuration names (`overrides`, as for other tools), or that on PATH.

        Nothing is looked up before the first command.
        """
        self._environ = environ
        self._overrides = overrides

    def run(
        self, words: Sequence[Word], *, cwd: Path, stdin: bytes = b"", check: bool = True, timeout_s: float = 120.0
    ) -> GitAnswer:
        """Run a command that needs no network, in `cwd`, and return its answer.

        Raises:
            MissingToolsError: there is no git.
            ChildFailedError: it took longer than `timeout_s`, or failed and `check` is set.
        """
        answer = self._finished(words, cwd, stdin, _no_line, quiet_limit_s=timeout_s, protocols="")
        if answer is None:
            raise ChildFailedError("cannot run git", _verb(words), f"it said nothing for {timeout_s:.0f} s")
        if check and answer.status != 0:
            raise failure("run git", _verb(words), answer)
        return answer

    def talk(
        self,
        words: Sequence[Word],
        *,
        cwd: Path,
        remote: str,
        progress: Progress,
        stdin: bytes = b"",
        http: bool = False,
    ) -> GitAnswer:
        """Run a command that talks to the remote, moving the bar by what git reports; `remote` is only for messages.

        Raises:
            MissingToolsError: there is no git.
            RemoteError: the remote cannot be reached, broke off, or was silent for `QUIET_LIMIT_S`.
            RemoteDeniedError: it wants a login, or refuses this one.
            NotFoundError: there is no such repository.
            RefusedError: the user's git configuration leads to a protocol that is not allowed.
            NoSpaceError: the disk is full.
        """
        protocols = "https:ssh:file:http" if http else "https:ssh:file"
        moved = _Bar(progress)
        answer = self._finished(words, cwd, stdin, moved.line, quiet_limit_s=QUIET_LIMIT_S, protocols=protocols)
        if answer is None:
            raise RemoteError("cannot fetch from", remote, f"it said nothing for {QUIET_LIMIT_S:.0f} s", hint=_RETRY)
        if answer.status != 0:
            raise failure("fetch from", remote, answer)
        return answer

    def _finished(
        self, words: Sequence[Word], cwd: Path, stdin: bytes, on_line: Callable[[str], None], *,
        quiet_limit_s: float, protocols: str,
    ) -> GitAnswer | None:  # fmt: skip
        with self._started(words, cwd, stdin, protocols) as child:
            collected = _collected(child, on_line, quiet_limit_s)
            if collected is None:
                return None
            stdout, stderr = collected
            return GitAnswer(child.wait(), stdout, stderr.decode("utf-8", "replace"))

    @contextlib.contextmanager
    def _started(
        self, words: Sequence[Word], cwd: Path, stdin: bytes, protocols: str
    ) -> Iterator["subprocess.Popen[bytes]"]:
        environ = self._child_environ(protocols)
        argv = [*self._cleared(environ), str(self._program()), *_config_words(), *map(str, words)]
        with _given(stdin, cwd) as given:
            child = _popen(argv, cwd, environ, given.fileno())
            try:
                yield child
            finally:
                process.stop(child)
                for pipe in (child.stdout, child.stderr):
                    if pipe is not None:
                        pipe.close()

    def _program(self) -> Path:
        try:
            return tool("git", self._environ, self._overrides)
        except MissingToolsError as error:
            if "git" not in self._overrides:
                error.hint = "install git, or use --source snapshot"
            raise

    def _child_environ(self, protocols: str) -> dict[str, str]:
        kept = {name: self._environ[name] for name in _INHERITED if name in self._environ}
        return process.child_environ(self._environ, **kept, **_ENVIRON, GIT_ALLOW_PROTOCOL=protocols)

    def _cleared(self, wanted: Mapping[str, str]) -> list[str]:
        # GitPython lays our environment over this process's own; `env -u` takes away what should not be there, and
        # unlike `env -i NAME=VALUE` shows no values (a proxy's password) in the list of processes.
        program = process.found_program("env", self._environ) or Path("/usr/bin/env")
        unwanted = sorted((_NEVER_INHERITED | set(self._environ)) - set(wanted))
        return [str(program), *(word for name in unwanted for word in ("-u", name))]


def _config_words() -> list[str]:
    return [word for setting in _CONFIG for word in ("-c", setting)]


def _given(stdin: bytes, cwd: Path) -> IO[bytes]:
    """Return a file with `stdin` to read, without a name."""
    if not stdin:
        return open(os.devnull, "rb")  # noqa: PTH123 (the caller closes it)
    with storage_errors("cannot write in", cwd):
        # In the home and not in TMPDIR: Python tries that directory with a file that a kill would leave there.
        given = tempfile.TemporaryFile(dir=cwd)  # noqa: SIM115
        given.write(stdin)
        given.seek(0)
    return given


def _popen(argv: list[str], cwd: Path, environ: Mapping[str, str], stdin: int) -> "subprocess.Popen[bytes]":
    try:
        from git.cmd import Git  # noqa: PLC0415 (heavy, and runs `git version` when imported)
        from git.exc import GitCommandNotFound  # noqa: PLC0415
    except ImportError as error:
        raise MissingToolsError("cannot run git", None, printable(error), hint="install git") from error
    try:
        running = Git(str(cwd)).execute(
            argv, istream=stdin, as_process=True, env=dict(environ), start_new_session=True, shell=False
        )
    except GitCommandNotFound as error:
        raise MissingToolsError("cannot run", argv[0], "it does not exist", hint="install git") from error
    if running.proc is None:  # pragma: no cover - GitPython has just started it
        raise ChildFailedError("cannot run git", argv[0])
    child: subprocess.Popen[bytes] = running.proc
    running.proc = None  # its finalizer must not signal a process that is ours to stop
    return child


def _collected(
    child: "subprocess.Popen[bytes]", on_line: Callable[[str], None], quiet_limit_s: float
) -> tuple[bytes, bytes] | None:
    """Return both outputs of `child`, or None when it was silent for `quiet_limit_s`."""
    stdout, stderr, pending = bytearray(), bytearray(), b""
    with selectors.DefaultSelector() as ready:
        for pipe in (child.stdout, child.stderr):
            if pipe is not None:
                ready.register(pipe, selectors.EVENT_READ)
        heard_at = time.monotonic()
        while ready.get_map():
            events = ready.select(timeout=max(0.0, heard_at + quiet_limit_s - time.monotonic()))
            if not events:
                return None
            heard_at = time.monotonic()
            for key, _ in events:
                chunk = os.read(key.fd, 65536)
                if not chunk:
                    ready.unregister(key.fileobj)
                elif key.fileobj is child.stdout:
                    stdout += chunk[: _OUTPUT_LIMIT_BYTES - len(stdout)]
                else:
                    stderr += chunk
                    del stderr[:-_STDERR_LIMIT_BYTES]
                    *lines, pending = (pending + chunk).replace(b"\r", b"\n")[-65536:].split(b"\n")
                    for line in lines:
                        on_line(line.decode("utf-8", "replace"))
    return bytes(stdout), bytes(stderr)


def _verb(words: Sequence[Word]) -> str:
    return next((str(word) for word in words if not str(word).startswith("-")), "")


def _no_line(_line: str) -> None:
    """Ignore what git says on its way."""


class _Bar:
    """Moves a bar by git's own `--progress` output; each of git's phases counts from zero."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def line(self, line: str) -> None:
        found = PROGRESS.match(line)
        if not found:
            return
        done, total = found["done"] or found["count"], found["total"]
        detail = ", ".join(part for part in (found["phase"].lower(), found["speed"]) if part)
        self._progress.update(int(done), int(total) if total else None, printable(detail, 80))
