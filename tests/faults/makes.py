"""`make` killed at random moments again and again: whatever is listed is whole, and the end is always the same.

A kill is followed by the same command, which goes on and may be killed in its turn. When it comes to its end, all files
must be those of a run that nobody disturbed; then everything is removed, and it begins anew.
"""

import hashlib
import json
import math
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults import oracle
from tests.faults.arena import Arena, ended
from tests.faults.sweep import Finding, Report

ORPHANS_WITHIN_S = 10.0
UNDISTURBED_LIMIT_S = 1800
_OURS = ("models", "ledger", "runs", "index.sqlite", "cache/imatrix", "cache/logits")


@dataclass
class MakeSweep:
    """One `make`, broken again and again in the home of `arena`, which has an instance and nothing else."""

    arena: Arena
    words: tuple[str, ...]
    extra: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Run it once without a fault, to know how long it takes and what it makes."""
        began = time.monotonic()
        self.must()
        self.duration_s = time.monotonic() - began
        self.expected = self.hashes()

    def must(self) -> None:
        done = ended(self.arena.start(*self.words, environ=self.arena.environ(**self.extra)), UNDISTURBED_LIMIT_S)
        assert done.status == 0, f"{self.words}: {done}"

    def hashes(self) -> dict[str, str]:
        """Return the sha256 of every GGUF in the library by its name."""
        return {file.name: sha256_of(file) for file in visible(self.arena.home / "models")}

    def clear(self) -> None:
        """Remove all that was made and measured; what was compiled and the Python environments stay."""
        for name in _OURS:
            path = self.arena.home / name
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def random_kills(
        self, times: int, seed: int, said: Callable[[str], None] = lambda _: None, within_s: float = math.inf
    ) -> Report:
        """Kill it `times` times, each within `within_s` of its start; return what was wrong after a kill, or at an end.

        A run goes on where the one before it was killed, so that a short `within_s` reaches all of its steps, too.
        """
        report, chooser = Report("make", known_points=times), random.Random(seed)  # noqa: S311 (reproducible, not secret)
        began = time.monotonic()
        self.clear()
        while report.fired < times and report.tried < 3 * times:
            after_s = chooser.uniform(0.05, min(within_s, self.duration_s))
            report.tried += 1
            was_killed = self._killed_after(after_s)
            report.fired += was_killed
            problems = self._listed_problems()
            if not was_killed:
                problems += self._end_problems()
                self.clear()
            said(
                f"{report.fired} of {times} kills, {report.tried - report.fired} ends, {len(report.findings)} findings"
            )
            if problems:
                report.findings.append(Finding("make", f"killed after {after_s:.3f} s", problems))
        self.must()
        if problems := self._end_problems():
            report.findings.append(Finding("make", "at the end", problems))
        report.took_s = time.monotonic() - began
        return report

    def _killed_after(self, after_s: float) -> bool:
        child = self.arena.start(*self.words, environ=self.arena.environ(**self.extra))
        try:
            child.wait(after_s)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGKILL)
        return ended(child).status == -signal.SIGKILL

    def _listed_problems(self) -> list[str]:
        """Return what is wrong with what is listed: a model that is not whole, or not what its record says."""
        problems = []
        if left := oracle.still_working(self.arena.home, ORPHANS_WITHIN_S):
            problems.append(f"I5 still working after {ORPHANS_WITHIN_S:.0f} s: {left}")
        listed = self.arena.run("list", "--json")
        if listed.status != 0:
            return [*problems, f"list: {listed}"]
        document = json.loads(listed.stdout)
        problems += [f"listed as broken: {one}" for one in document.get("broken", [])]
        for model in document["models"]:
            (file,) = (Path(path) for path in model["files"])
            found = sha256_of(file)
            if model["sha256"] not in {None, found}:
                problems.append(f"{file.name} is listed with sha256 {model['sha256']}, and has {found}")
            if file.name in self.expected and found != self.expected[file.name]:
                problems.append(f"{file.name} is listed with another content than an undisturbed run gives")
        return problems

    def _end_problems(self) -> list[str]:
        found = self.hashes()
        problems = [
            f"{name}: {found.get(name)}, and an undisturbed run gives {self.expected.get(name)}"
            for name in sorted(self.expected.keys() | found.keys())
            if found.get(name) != self.expected.get(name)
        ]
        return problems + unrecorded(self.arena.home / "models")


def visible(models: Path) -> list[Path]:
    """Return every GGUF below `models` that is in no hidden directory: those are what kills left behind."""
    found = (file for file in models.rglob("*.gguf") if file.is_file())
    return sorted(file for file in found if not any(part.startswith(".") for part in file.relative_to(models).parts))


def sha256_of(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def unrecorded(models: Path) -> list[str]:
    """Return the files whose side-car is missing, or says another content."""
    problems = []
    for file in visible(models):
        side_car = file.with_name(f"{file.name}.json")
        recorded = json.loads(side_car.read_bytes())["sha256"] if side_car.is_file() else "nothing"
        if recorded != sha256_of(file):
            problems.append(f"{file}: its side-car says {recorded}")
    return problems
