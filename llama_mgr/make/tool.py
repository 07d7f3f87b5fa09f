"""Runs of programs that may take hours: a log, the last lines, the memory, and no orphan if we are killed."""

import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from llama_mgr.errors import ChildFailedError
from llama_mgr.paths import Home
from llama_mgr.process import Argument, Children, child_environ, found_program, status_words, watch
from llama_mgr.store import storage_errors
from llama_mgr.text import printable

_TAIL_LINES = 12
# Which devices a program may use is the user's choice, as `launch-environ` of the recipes lists them.
_DEVICE_VARIABLES = frozenset(
    {
        "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "GGML_CUDA_ENABLE_UNIFIED_MEMORY", "HIP_VISIBLE_DEVICES",
        "ROCR_VISIBLE_DEVICES", "HSA_OVERRIDE_GFX_VERSION", "GGML_VK_VISIBLE_DEVICES", "VK_ICD_FILENAMES",
        "VK_DRIVER_FILES", "ONEAPI_DEVICE_SELECTOR", "ZES_ENABLE_SYSMAN", "MUSA_VISIBLE_DEVICES",
        "ASCEND_RT_VISIBLE_DEVICES",
    }
)  # fmt: skip


@dataclass(frozen=True)
class ToolRun:
    """A program that has ended; its log is kept only if it failed."""

    argv: tuple[str, ...]
    status: int
    took_s: float
    peak_bytes: int | None
    """The largest resident size; None where it cannot be told."""
    tail: tuple[str, ...]
    """Its last lines, printable."""
    log_file: Path

    def has_said(self, *words: str) -> bool:
        """Tell whether one of `words` is in its last lines."""
        return any(word in line for line in self.tail for word in words)


def tool_environ(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a program: the harmless part of the user's, and which devices to use."""
    devices = {name: value for name, value in environ.items() if name in _DEVICE_VARIABLES}
    return child_environ(environ, **devices)


def run_tool(
    home: Home,
    argv: Sequence[Argument],
    *,
    environ: Mapping[str, str],
    cwd: Path,
    on_line: Callable[[str], None] = lambda line: None,  # noqa: ARG005
    stdout: BinaryIO | None = None,
    line_ends: bytes = b"\r",
    children: Children | None = None,
    called: str = "",
) -> ToolRun:
    """Run `argv` to its end, whatever that is; with us it dies, too, even if we are killed (Linux).

    On disk afterwards: its output below `home.logs_dir` if it failed.

    Args:
        home: where the log lies.
        argv: the program and its arguments.
        environ: its whole environment.
        cwd: where it runs.
        on_line: hears each line, which is not printable yet.
        stdout: gets its standard output, which is logged otherwise.
        line_ends: as in `process.watch`.
        children: as in `process.watch`.
        called: what its log is named after; by default the program.

    Raises:
        MissingToolsError: it cannot be run.
        StorageError: the log cannot be written.
    """
    words = tuple(map(str, argv))
    log_file = home.logs_dir / f"{called or Path(words[0]).name}-{secrets.token_hex(4)}.log"
    tail: deque[str] = deque(maxlen=_TAIL_LINES)

    def heard(line: str) -> None:
        if line.strip():
            tail.append(printable(line.rstrip()))
        on_line(line)

    began = time.monotonic()
    with storage_errors("cannot write", log_file):
        log_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with log_file.open("xb") as log:
            watched = watch(
                [*_dying_with_us(environ), *words], environ=environ, cwd=cwd, log=log, on_line=heard, stdout=stdout,
                line_ends=line_ends, children=children,
            )  # fmt: skip
        if watched.status == 0:
            log_file.unlink(missing_ok=True)
    return ToolRun(words, watched.status, time.monotonic() - began, watched.peak_bytes, tuple(tail), log_file)


def require_success(
    run: ToolRun, what: str, subject: object, kind: type[ChildFailedError], hint: str | None = None
) -> None:
    """Raise what the failure of `run` means to users, unless it succeeded."""
    if run.status == 0:
        return
    why = status_words(run.status)
    if run.status == -9:  # noqa: PLR2004 (SIGKILL)
        why = f"{why}, as the kernel does when memory runs out"
        hint = hint or "give it less to do at once: --parallel 1"
    raise kind(what, subject, why, hint=hint, tail=list(run.tail), log_file=run.log_file)


def _dying_with_us(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Return the words that let a program be killed when the thread that started it dies (prctl(2), PDEATHSIG)."""
    setpriv = found_program("setpriv", environ)
    return (str(setpriv), "--pdeathsig", "KILL", "--") if setpriv else ()
