"""Every disk-changing system call of a command: recorded, then killed at or failed, one at a time.

strace counts calls per name, and here in llama-mgr's own process only: git, cmake and compilers run in parallel and
would make numbers unstable. The signal arrives before the call, so that point N+1 is also "right after N".
"""

import functools
import random
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.faults.arena import COMMAND_TIMEOUT_S, Arena, Ended

CALLS = (
    "open", "openat", "write", "pwrite64", "rename", "renameat", "renameat2", "link", "linkat", "symlink", "symlinkat",
    "unlink", "unlinkat", "mkdir", "mkdirat", "rmdir", "fsync", "fdatasync", "ftruncate", "chmod", "fchmod", "fchmodat",
    "copy_file_range", "sendfile",
)  # fmt: skip
CANNOT_FILL_DISK = frozenset({"unlink", "unlinkat", "rmdir", "chmod", "fchmod", "fchmodat"})
_LINE = re.compile(r"^(?P<call>[a-z0-9_]+)\((?P<rest>.*)$")
_PATH = re.compile(r'"(/[^"]*)"|<(/[^>]*)>')
_RANDOM = re.compile(r"[0-9a-f]{12,}|(?<=-)[0-9a-f]{8}(?=[-/]|$)|bug-[0-9TZ:-]+")


@dataclass(frozen=True)
class Point:
    """The `nth` call named `call`; `place` is what it changes, below the arena, with random parts replaced."""

    call: str
    nth: int
    place: str

    def __str__(self) -> str:
        """Return it for messages: `rename#12 home/instances/base.json`."""
        return f"{self.call}#{self.nth} {self.place}"


@dataclass(frozen=True)
class Faulted:
    """A command that met a fault: how it ended, and the call that was hit (None when it made fewer calls)."""

    ended: Ended
    hit: str | None


@functools.cache
def why_not() -> str | None:
    """Return why strace cannot be used here, or None."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    done = subprocess.run(["strace", "-qq", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else f"strace does not work here: {done.stderr.strip()[:200]}"


def record(arena: Arena, words: Sequence[str]) -> list[Point]:
    """Run a command, which must succeed, and return its disk-changing calls inside the arena, in order."""
    trace_file = arena.root.with_name(f"{arena.root.name}.trace")
    done = _run(arena, words, ["-y", "-e", f"trace={','.join(CALLS)}", "-o", str(trace_file)])
    if done.status != 0:
        message = f"llama-mgr {' '.join(words)} under strace: {done}"
        raise AssertionError(message)
    counts: dict[str, int] = defaultdict(int)
    points = []
    for line in trace_file.read_text(errors="replace").splitlines():
        found = _LINE.match(line)
        if found:
            call = found["call"]
            counts[call] += 1
            place = _changed_place(call, found["rest"], arena)
            if place is not None:
                points.append(Point(call, counts[call], place))
    return points


def _changed_place(call: str, rest: str, arena: Arena) -> str | None:
    arguments, _, result = rest.rpartition(" = ")
    only_reads = call in {"open", "openat"} and "O_CREAT" not in arguments and "O_TRUNC" not in arguments
    if result.startswith("-1") or only_reads:
        return None
    paths = [quoted or resolved for quoted, resolved in _PATH.findall(arguments)]
    mine = [(root, path) for root in (arena.home, arena.root) for path in paths if Path(path).is_relative_to(root)]
    if not mine:
        return None
    root, path = mine[0] if mine[0][0] == arena.home else mine[-1]
    below = [_RANDOM.sub("*", part) for part in Path(path).relative_to(root).parts]
    return "/".join(["home" if root == arena.home else "outside", *below[:3]])


def inject(arena: Arena, words: Sequence[str], point: Point, fault: str) -> Faulted:
    """Run a command with `fault` at one point: `signal=KILL` or `error=ENOSPC`."""
    trace_file = arena.root.with_name(f"{arena.root.name}.trace")
    what = f"inject={point.call}:{fault}:when={point.nth}"
    done = _run(arena, words, ["-y", "-e", f"trace={point.call}", "-e", what, "-o", str(trace_file)])
    lines = [line for line in trace_file.read_text(errors="replace").splitlines() if _LINE.match(line)]
    if fault.startswith("signal"):
        hit = lines[-1] if done.status == -9 and lines else None
    else:
        hit = next((line for line in lines if line.endswith("(INJECTED)")), None)
    return Faulted(done, hit)


def _run(arena: Arena, words: Sequence[str], options: list[str]) -> Ended:
    argv = ["strace", "-qq", "-e", "signal=none", *options, *arena.argv(*words)]
    done = subprocess.run(
        argv, env=arena.environ(), cwd=arena.user_dir, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=2 * COMMAND_TIMEOUT_S, check=False,
    )  # fmt: skip
    return Ended(done.returncode, done.stdout, done.stderr)


def sample(points: Sequence[Point], count: int | None, seed: int) -> list[Point]:
    """Return `count` of the points (None: all), one of every kind (call and place) before a second of any."""
    if count is None or count >= len(points):
        return list(points)
    kinds: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for point in points:
        kinds[point.call, point.place].append(point)
    chooser = random.Random(seed)  # noqa: S311 (reproducible, not secret)
    groups = list(kinds.values())
    chooser.shuffle(groups)
    for group in groups:
        chooser.shuffle(group)
    rounds = max(map(len, groups), default=0)
    in_turn = [group[turn] for turn in range(rounds) for group in groups if turn < len(group)]
    return sorted(in_turn[:count], key=points.index)


def delayed(arena: Arena, words: Sequence[str], point: Point, delay_s: float) -> "subprocess.Popen[str]":
    """Start a command that is held for `delay_s` seconds before one of its calls."""
    what = f"inject={point.call}:delay_enter={int(delay_s * 1_000_000)}:when={point.nth}"
    argv = ["strace", "-qq", "-e", "signal=none", "-e", f"trace={point.call}", "-e", what, "-o", "/dev/null"]
    return subprocess.Popen(
        [*argv, *arena.argv(*words)], env=arena.environ(), cwd=arena.user_dir, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
