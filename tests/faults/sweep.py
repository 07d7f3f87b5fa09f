"""Break a command at every point or at random times; after each: the oracle, the same command again, the oracle again.

`ci/faults.py` runs whole sweeps; the tests of this directory run samples.
"""

import contextlib
import json
import queue
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

from tests.faults import oracle, strace
from tests.faults.arena import NEW, OLD, Arena, Ended, Templates, ended

WORKERS = 2
ORPHANS_WITHIN_S = 10.0
KILL = "signal=KILL"
STORAGE_STATUS = 10
UNKNOWN_STATUS = 3


Place = TypeVar("Place", bound=Arena)
Fault = tuple[str, Callable[[Place], tuple[bool, list[str]]]]
"""What it is called, and a function that breaks a command so; it returns whether the fault came, and what is wrong."""


@dataclass(frozen=True)
class Case:
    """A command to break, and the template of the home it starts from."""

    name: str
    template: str
    words: tuple[str, ...]
    repeats: bool = False
    """Doing it twice is not the same as doing it once (rollback)."""
    interrupted_before: int = 0
    """How many operations were interrupted in the making of the template."""


CASES = {
    case.name: case
    for case in (
        Case("install-fresh", "empty", ("install", "base", OLD, "REPOSITORY")),
        Case("install-second", "one", ("install", "second", NEW, "REPOSITORY")),
        Case("install-same-build", "one", ("install", "second", OLD, "REPOSITORY")),
        Case("update", "one", ("update", "base", NEW, "--ignore-python")),
        Case("update-to-existing-build", "two", ("update", "base", NEW, "--ignore-python")),
        Case("uninstall", "two", ("uninstall", "second")),
        Case("uninstall-default", "two", ("uninstall", "base")),
        Case("use", "two", ("use", "second")),
        Case("rollback", "updated", ("instance", "rollback", "base"), repeats=True),
        Case("gc", "rubbish", ("instance", "gc"), interrupted_before=1),
        Case("shims", "two", ("shims",)),
    )
}


@dataclass(frozen=True)
class Finding:
    """One fault after which something was wrong."""

    case: str
    fault: str
    problems: list[str]

    def __str__(self) -> str:
        """Return it as lines."""
        return "\n    ".join([f"{self.case}, {self.fault}:", *self.problems])


@dataclass
class Report:
    """What a sweep tried and found."""

    case: str
    known_points: int = 0
    tried: int = 0
    fired: int = 0
    findings: list[Finding] = field(default_factory=list)
    took_s: float = 0.0

    def __str__(self) -> str:
        """Return one line, and the findings."""
        line = (
            f"{self.case}: {self.tried} of {self.known_points} points tried, {self.fired} hit, "
            f"{len(self.findings)} with findings, {self.took_s:.0f} s"
        )
        return "\n".join([line, *map(str, self.findings)])


@dataclass(frozen=True)
class _State:
    """What a home says: generations by instance, and the default."""

    generations: dict[str, list[str]]
    default: str | None

    @classmethod
    def of(cls, home: Path) -> "_State":
        names = oracle.instance_names(home)
        default = None
        with contextlib.suppress(OSError, ValueError):
            default = json.loads((home / "default-instance.json").read_bytes()).get("instance")
        return cls({name: oracle.generations(home, name) for name in names}, default)


class Sweep:
    """One case, broken again and again."""

    def __init__(self, case: Case, templates: Templates, work_dir: Path, workers: int = WORKERS) -> None:
        """Run the case once without faults, to know how long it takes and what it makes."""
        self.case = case
        self._template = templates[case.template]
        self._arenas: queue.Queue[Arena] = queue.Queue()
        work_dir.mkdir(parents=True, exist_ok=True)
        for number in range(workers):
            self._arenas.put(Arena(work_dir / f"worker{number}", templates.url))
        self._workers = workers
        with self._arena() as arena:
            self._before = _State.of(arena.home)
            began = time.monotonic()
            arena.must(*case.words)
            self.duration_s = time.monotonic() - began
            self._after = _State.of(arena.home)

    # -- what can be tried ---------------------------------------------------------------------------------------------

    def points(self) -> list[strace.Point]:
        """Return every disk-changing call that the command makes."""
        with self._arena() as arena:
            return strace.record(arena, self.case.words)

    def kills(self, count: int | None, seed: int) -> Report:
        """Kill the command at `count` of its points (None: at all)."""
        points = self.points()
        chosen = strace.sample(points, count, seed)
        return self._tried(len(points), [(str(point), partial(self._killed_at, point=point)) for point in chosen])

    def errors(self, errno_name: str, count: int | None, seed: int) -> Report:
        """Let `count` of the points (None: all) fail with `errno_name`, once."""
        points = [
            point for point in self.points() if errno_name != "ENOSPC" or point.call not in strace.CANNOT_FILL_DISK
        ]
        chosen = strace.sample(points, count, seed)
        faults = [
            (f"{errno_name} at {point}", partial(self._failed_at, point=point, errno_name=errno_name))
            for point in chosen
        ]
        return self._tried(len(points), faults)

    def random_kills(self, count: int, seed: int) -> Report:
        """Kill llama-mgr (and nothing else: its children become orphans) at `count` random times."""
        chooser = random.Random(seed)  # noqa: S311 (reproducible, not secret)
        times = [chooser.uniform(0.05, self.duration_s) for _ in range(count)]
        return self._tried(
            count,
            [(f"killed after {after_s:.3f} s", partial(self._killed_after, after_s=after_s)) for after_s in times],
        )

    # -- one fault -----------------------------------------------------------------------------------------------------

    def _killed_at(self, arena: Arena, point: strace.Point) -> tuple[bool, list[str]]:
        faulted = strace.inject(arena, self.case.words, point, KILL)
        problems = [] if faulted.hit or faulted.ended.status == 0 else [f"without the fault: {faulted.ended}"]
        return faulted.hit is not None, problems + self._consequences(arena)

    def _failed_at(self, arena: Arena, point: strace.Point, errno_name: str) -> tuple[bool, list[str]]:
        faulted = strace.inject(arena, self.case.words, point, f"error={errno_name}")
        problems = []
        if faulted.hit is not None:
            problems = _error_problems(faulted.ended, arena)
        elif faulted.ended.status != 0:
            problems = [f"without the fault: {faulted.ended}"]
        return faulted.hit is not None, problems + self._consequences(arena)

    def _killed_after(self, arena: Arena, after_s: float) -> tuple[bool, list[str]]:
        child = arena.start(*self.case.words)
        try:
            child.wait(after_s)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
        fired = ended(child).status == -signal.SIGKILL
        return fired, self._consequences(arena)

    def _consequences(self, arena: Arena) -> list[str]:
        interrupted = 1 + self.case.interrupted_before
        problems = [f"after the fault: {line}" for line in arena.violations(interrupted=interrupted)]
        problems += self._state_problems("after the fault", arena, [self._before, self._after])
        again = arena.run(*self.case.words)
        gone = self.case.words[0] == "uninstall" and again.status == UNKNOWN_STATUS and self._is_gone(arena)
        if again.status != 0 and not gone:
            problems.append(f"the same command again: {again}")
        problems += [f"after the repetition: {line}" for line in arena.violations(interrupted=interrupted)]
        allowed = [self._before, self._after] if self.case.repeats else [self._after]
        problems += self._state_problems("after the repetition", arena, allowed)
        if left := oracle.still_working(arena.home, ORPHANS_WITHIN_S):
            problems.append(f"I5 still working after {ORPHANS_WITHIN_S:.0f} s: {left}")
        collected = arena.run("instance", "gc")
        if collected.status != 0:
            problems.append(f"instance gc: {collected}")
        return problems + [f"after gc: {line}" for line in arena.violations(settled=True)]

    def _is_gone(self, arena: Arena) -> bool:
        name = self.case.words[1]
        return not list((arena.home / "instances").glob(f"{name}*"))

    def _state_problems(self, when: str, arena: Arena, allowed: Sequence[_State]) -> list[str]:
        try:
            found = _State.of(arena.home)
        except Exception as error:  # noqa: BLE001 (whatever cannot be read is a finding)
            return [f"{when}: {error}"]
        problems = []
        for name in {name for state in (*allowed, found) for name in state.generations}:
            has, possible = found.generations.get(name), [state.generations.get(name) for state in allowed]
            if has not in possible:
                problems.append(f"{when}: instance {name} has {has}, expected one of {possible}")
        if found.default not in [state.default for state in allowed]:
            problems.append(f"{when}: the default is {found.default}, expected {[state.default for state in allowed]}")
        return problems

    # -- many faults ---------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _arena(self) -> Iterator[Arena]:
        arena = self._arenas.get()
        try:
            arena.restore(self._template)
            yield arena
        finally:
            self._arenas.put(arena)

    def _tried(self, known: int, faults: Sequence[Fault[Arena]]) -> Report:
        return tried(Report(self.case.name, known_points=known), faults, self._arena, self._workers)


def tried(
    report: Report,
    faults: Sequence[Fault[Place]],
    arena_for: Callable[[], contextlib.AbstractContextManager[Place]],
    workers: int,
) -> Report:
    """Try `faults`, `workers` at once, each in an arena of its own, and note in `report` what came of it."""
    began = time.monotonic()

    def one(fault: Fault[Place]) -> None:
        name, breaks = fault
        with arena_for() as arena:
            outside = arena.outside()
            fired, problems = breaks(arena)
            problems += outside.changes()
        report.tried += 1
        report.fired += fired
        if problems:
            report.findings.append(Finding(report.case, name, problems))

    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(one, faults))
    report.took_s = time.monotonic() - began
    return report


def _error_problems(done: Ended, arena: Arena) -> list[str]:
    """Return what is wrong with how a command met one failing call: it may do without, or say so and exit with 10."""
    if done.status == 0:
        return []
    if done.status != STORAGE_STATUS:
        return [f"not exit {STORAGE_STATUS}: {done}"]
    if str(arena.root) not in done.stderr:
        return [f"the message names no path: {done}"]
    return []
