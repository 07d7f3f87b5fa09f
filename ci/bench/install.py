"""Measure installing against the same work done by hand, in one run, as ratios (docs/benchmarks.md has the results).

    python ci/bench/install.py --repository PATH [--versions b11401 b11434] [--json FILE] [--quick]

PATH is a local git repository with the two tags (tests/tools/llama_repository.py makes one from the package index).
Every side starts with nothing cached: no compiler cache, no clone. `--quick` leaves out the build of all targets.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPEATS = 15
LIST_COMMAND = "llama-mgr instance list"
SCRIPTS_DIR = Path(sys.executable).parent
TARGETS = (
    "llama-server", "llama-quantize", "llama-imatrix", "llama-perplexity", "llama-bench", "llama-gguf-split",
    "llama-cli", "llama-completion",
)  # fmt: skip


@dataclass
class Bench:
    """One run: where it works, and what it has measured."""

    repository: Path
    older: str
    newer: str
    work_dir: Path
    seconds: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def timed(self, name: str, work: Callable[[], object]) -> None:
        """Run `work` once and note how long it took."""
        started = time.perf_counter()
        work()
        self.seconds[name] = round(time.perf_counter() - started, 3)
        print(f"{name}: {self.seconds[name]:.1f} s", file=sys.stderr, flush=True)

    @property
    def environ(self) -> dict[str, str]:
        """The environment of both sides: our cmake and ninja first, an own home, no variables that steer builds."""
        kept = {name: os.environ[name] for name in ("HOME", "TMPDIR", "LANG") if name in os.environ}
        return {**kept, "PATH": f"{SCRIPTS_DIR}:{os.environ['PATH']}", "LLAMA_MGR_HOME": str(self.work_dir / "home")}

    def run(self, *argv: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command quietly; a failure ends the benchmark with its output."""
        done = subprocess.run(argv, env=self.environ, cwd=cwd, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{' '.join(argv)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
        return done

    def install(self, name: str, version: str) -> dict[str, Any]:
        """Install with llama-mgr and return what it reports."""
        url = f"file://{self.repository}"
        options = ["--arch", "cpu", "--repo-url", url, "--ignore-python", "--json", "--quiet"]
        done = self.run(sys.executable, "-m", "llama_mgr", "install", name, version, *options)
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def by_hand(self, name: str, version: str, configure: Sequence[str], build: Sequence[str]) -> None:
        """Clone, configure and build as a person would."""
        tree = self.work_dir / name
        self.run("git", "clone", "--quiet", "--depth", "1", "--branch", version, f"file://{self.repository}", str(tree))
        self.run("cmake", "-B", "build", "-DCMAKE_BUILD_TYPE=Release", *configure, cwd=tree)
        self.run(*build, cwd=tree)
        shutil.rmtree(tree)


def start_up_ratio(bench: Bench) -> None:
    """Measure `llama-mgr --version` and `instance list` against `python -c "import click"`, turn by turn."""
    sides = {
        "import click": [sys.executable, "-c", "import click"],
        "llama-mgr --version": [str(SCRIPTS_DIR / "llama-mgr"), "--version"],
        LIST_COMMAND: [str(SCRIPTS_DIR / "llama-mgr"), "instance", "list"],
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(REPEATS):
        for name, argv in sides.items():
            started = time.perf_counter()
            bench.run(*argv)
            times[name].append(time.perf_counter() - started)
    bench.seconds |= {name: round(statistics.median(found), 4) for name, found in times.items()}


def measure(bench: Bench, *, quick: bool) -> None:
    """Do all the work, both sides."""
    jobs = str(os.cpu_count() or 1)
    named = ["cmake", "--build", "build", "--parallel", jobs, "--target", *TARGETS]
    bench.timed("install, nothing cached", lambda: bench.facts.update(first=bench.install("older", bench.older)))
    bench.timed("install of a neighbour", lambda: bench.facts.update(neighbour=bench.install("newer", bench.newer)))
    bench.timed("same plan again", lambda: bench.facts.update(again=bench.install("again", bench.newer)))
    bench.timed("by hand, same targets", lambda: bench.by_hand("hand", bench.older, ["-G", "Ninja"], named))
    if not quick:
        everything = ["cmake", "--build", "build", "--config", "Release", "-j", jobs]
        bench.timed("by hand, upstream's documented command", lambda: bench.by_hand("all", bench.older, [], everything))
    start_up_ratio(bench)


def ratios(bench: Bench) -> list[tuple[str, float, str]]:
    """Return (what, ratio or seconds, budget) of design rows 1-4."""
    seconds = bench.seconds
    ours, by_hand = seconds["install, nothing cached"], seconds["by hand, same targets"]
    click, version, listing = (seconds[name] for name in ("import click", "llama-mgr --version", LIST_COMMAND))
    rows = [
        ("`llama-mgr --version` / `import click`", version / click, "≤ 2"),
        ("`llama-mgr instance list` / `import click`", listing / click, "≤ 5"),
        ("install, nothing cached / same targets by hand", ours / by_hand, "≤ 1.05"),
        ("install of a neighbour / by hand from nothing", seconds["install of a neighbour"] / by_hand, "≤ 0.45"),
        ("same plan again, seconds", seconds["same plan again"], "≤ 2"),
        ("same plan again, compiler runs", float(bench.facts["again"]["compiler_runs"]), "0"),
    ]
    documented = seconds.get("by hand, upstream's documented command")
    if documented:
        rows.insert(3, ("install, nothing cached / upstream's documented command", ours / documented, "≤ 0.6"))
    return rows


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=Path, required=True)
    parser.add_argument("--versions", nargs=2, default=("b11401", "b11434"), metavar=("OLDER", "NEWER"))
    parser.add_argument("--json", type=Path, dest="json_file")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llama-mgr-bench-") as work_dir:
        bench = Bench(options.repository.resolve(), *options.versions, Path(work_dir))
        measure(bench, quick=options.quick)
    rows = ratios(bench)
    print("| what | measured | budget |\n|---|--:|--:|")
    for what, value, budget in rows:
        print(f"| {what} | {value:.2f} | {budget} |")
    if options.json_file:
        machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
        document = {
            "machine": machine, "versions": [bench.older, bench.newer], "seconds": bench.seconds,
            "ratios": {what: round(value, 4) for what, value, _ in rows}, "facts": bench.facts,
        }  # fmt: skip
        options.json_file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
