"""Power cuts: at a disk-changing call of a command, and right after its success."""

import random
import time
from pathlib import Path

from tests.faults import oracle, strace
from tests.faults.arena import Arena, Templates
from tests.faults.mounts import PowerSupply
from tests.faults.sweep import KILL, Case, Finding, Report


class PowerSweep:
    """One case on an ext4 image, its power cut again and again."""

    def __init__(self, case: Case, templates: Templates, work_dir: Path, power: PowerSupply) -> None:
        self._case = case
        self._template = templates[case.template]
        self._power = power
        self._arena = Arena(work_dir / "arena", templates.url, home=power.mount_dir / "home")
        self._restore()
        self._before = self._pointers()
        self._arena.must(*case.words)
        self._after = self._pointers()

    def cuts(self, count: int | None, seed: int) -> Report:
        """Cut the power at `count` of the command's points (None: at all) and as often after its success, up to 20.

        Every other cut commits the journal first.
        """
        began = time.monotonic()
        self._restore()
        points = strace.record(self._arena, self._case.words)
        chosen = strace.sample(points, count, seed)
        report = Report(self._case.name, known_points=len(points))
        for number, point in enumerate(chosen):
            self._restore()
            faulted = strace.inject(self._arena, self._case.words, point, KILL)
            allowed = [self._before, self._after] if faulted.hit else [self._after]
            self._judge(report, f"cut at {point}", allowed, journal=number % 2 == 0)
        for number in range(min(len(chosen), 20)):
            self._restore()
            self._arena.must(*self._case.words)
            self._judge(report, "cut after success", [self._after], journal=number % 4 == 0)
        report.took_s = time.monotonic() - began
        return report

    def random_cuts(self, count: int, seed: int, longest_s: float) -> Report:
        """Cut the power at `count` random times of the running command."""
        chooser = random.Random(seed)  # noqa: S311 (reproducible, not secret)
        began = time.monotonic()
        report = Report(self._case.name, known_points=count)
        for number in range(count):
            self._restore()
            after_s = chooser.uniform(0.1, longest_s)
            child = self._arena.start(*self._case.words)
            time.sleep(after_s)
            ended = child.poll() == 0
            child.kill()
            child.communicate()
            allowed = [self._after] if ended else [self._before, self._after]
            self._judge(report, f"cut after {after_s:.3f} s", allowed, journal=number % 2 == 0)
        report.took_s = time.monotonic() - began
        return report

    def _judge(self, report: Report, fault: str, allowed: list[dict[str, str]], *, journal: bool) -> None:
        report.tried += 1
        report.fired += 1
        problems = []
        if left := oracle.still_working(self._arena.home, 20):
            problems.append(f"I5 {left}")
        self._power.cut(journal=journal)
        problems += [f"after the cut: {line}" for line in self._arena.violations()]
        if (found := self._pointers()) not in allowed:
            problems.append(f"after the cut: {found}, expected one of {allowed}")
        if self._after not in allowed or len(allowed) > 1:
            again = self._arena.run(*self._case.words)
            if again.status != 0 and not (self._case.words[0] == "uninstall" and again.status == 3):
                problems.append(f"the same command again: {again}")
        collected = self._arena.run("instance", "gc")
        if collected.status != 0:
            problems.append(f"instance gc: {collected}")
        problems += [f"after gc: {line}" for line in self._arena.violations(settled=True)]
        if problems:
            report.findings.append(Finding(self._case.name, f"{fault}, journal {journal}", problems))

    def _restore(self) -> None:
        self._arena.restore(self._template)
        self._power.settle()

    def _pointers(self) -> dict[str, str]:
        """Return what the home points at, as text: every instance's builds, and the default."""
        home = self._arena.home
        pointers = {}
        for name in oracle.instance_names(home):
            try:
                pointers[name] = " ".join(oracle.generations(home, name))
            except Exception as error:  # noqa: BLE001 (whatever cannot be read is a finding)
                pointers[name] = f"unreadable: {error}"
        default = home / "default-instance.json"
        pointers[""] = default.read_text() if default.exists() else ""
        return pointers
