"""Measure `make` against a plain shell script of the same commands, in one run: wall time, and bytes written.

    python ci/bench/make.py --home ~/.llama-mgr --checkpoint DIR [--json FILE] [--repeats 3] [--chunks 8]

Both convert the checkpoint, compute an importance matrix, make four quants, and measure all five files (distributions
of the base once, divergence, llama-bench), with the programs and the Python environment of the default instance, one
after the other and in turns. The script does what a person would write: no checks, no hashes, no records.
"""

import argparse
import json
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from llama_mgr.make.evaluate import GENERATED_TOKENS, PROMPT_TOKENS, REPETITIONS  # noqa: E402
from llama_mgr.make.texts import calibration_text, evaluation_text  # noqa: E402

QUANTS = ("Q8_0", "Q6_K", "Q4_K_M", "IQ4_XS")
MADE = ("models", "ledger", "runs", "index.sqlite", "cache/imatrix", "cache/logits")
_BLOCK_BYTES = 512  # of ru_oublock, getrusage(2)


@dataclass
class Side:
    """One way to do it: what it took each time."""

    name: str
    seconds: list[float]
    written_mib: list[float]

    def ran(self, argv: list[str], environ: dict[str, str], cwd: Path) -> None:
        """Run it once and note what it took; a failure ends the benchmark."""
        program = (
            "import resource, subprocess, sys; status = subprocess.run(sys.argv[1:]).returncode;"
            "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_oublock, file=sys.stderr); sys.exit(status)"
        )
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-c", program, *argv], env=environ, cwd=cwd, capture_output=True, text=True, check=False
        )
        took_s = time.perf_counter() - began
        if done.returncode != 0:
            sys.exit(f"{self.name} failed:\n{done.stdout[-1500:]}\n{done.stderr[-1500:]}")
        self.seconds.append(round(took_s, 2))
        self.written_mib.append(round(int(done.stderr.split()[-1]) * _BLOCK_BYTES / 1024**2, 1))
        print(f"{self.name}: {took_s:.1f} s, {self.written_mib[-1]:.0f} MiB", file=sys.stderr, flush=True)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="make against a shell script of the same commands")
    parser.add_argument("--home", type=Path, required=True, help="a home whose default instance has all tools")
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--json", type=Path, help="write the result there, too")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--chunks", type=int, default=8, help="of each text")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.home.resolve().parent, prefix="bench-make-") as directory:
        result = measured(options, Path(directory))
    text = json.dumps(result, indent=1)
    print(text)
    if options.json:
        options.json.write_text(f"{text}\n")


def measured(options: argparse.Namespace, work: Path) -> dict[str, object]:
    """Run both sides in turns; return what they took, and the ratios of the medians."""
    home = work / "home"
    home.mkdir(mode=0o700)
    for name in ("builds", "instances", "environments", "default-instance.json"):
        subprocess.run(["cp", "-al", "--", options.home.resolve() / name, home / name], check=True)
    environ = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "HOME": str(work), "LC_ALL": "C.UTF-8"}
    ours, plain = Side("llama-mgr make", [], []), Side("shell script", [], [])
    words = ["llama-mgr", "make", str(options.checkpoint.resolve()), "--quants", ",".join(QUANTS), "--imatrix", "auto"]
    words += ["--evaluate", "--chunks", str(options.chunks), "--quiet"]
    script = shell_script(home, options.checkpoint.resolve(), work, options.chunks)
    for _ in range(options.repeats + 1):
        clear(home, work)
        ours.ran(words, environ | {"LLAMA_MGR_HOME": str(home)}, work)
        clear(home, work)
        plain.ran(["bash", "-euc", script], environ, work / "out")
    for side in (ours, plain):  # the first turn only warmed up: Python's compiled modules, the page cache
        del side.seconds[0], side.written_mib[0]
    wall = statistics.median(ours.seconds) / statistics.median(plain.seconds)
    return {
        "checkpoint": options.checkpoint.name, "quants": list(QUANTS), "chunks": options.chunks,
        "seconds": {side.name: side.seconds for side in (ours, plain)},
        "written_mib": {side.name: side.written_mib for side in (ours, plain)},
        "wall_ratio": round(wall, 3),
        "written_ratio": round(statistics.median(ours.written_mib) / statistics.median(plain.written_mib), 3),
    }  # fmt: skip


def clear(home: Path, work: Path) -> None:
    """Remove what either side made."""
    for name in MADE:
        path = home / name
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    shutil.rmtree(work / "out", ignore_errors=True)
    (work / "out").mkdir()
    (work / "out" / "calibration.txt").write_bytes(calibration_text().content)
    (work / "out" / "evaluation.txt").write_bytes(evaluation_text().content)


def shell_script(home: Path, checkpoint: Path, work: Path, chunks: int) -> str:
    """Return the commands of a person in a hurry, one by one."""
    prefix = (home / "instances" / default_instance(home) / "current").resolve()
    (python,) = home.glob("environments/*/bin/python")
    tool = {
        name: shlex.quote(str(prefix / "bin" / f"llama-{name}"))
        for name in ("quantize", "imatrix", "perplexity", "bench")
    }
    sizes = f"-c 512 -b 512 -ub 512 --chunks {chunks}"
    bench = f"-p {PROMPT_TOKENS} -n {GENERATED_TOKENS} -r {REPETITIONS} -o json"
    converter = shlex.join([str(python), str(prefix / "convert" / "convert_hf_to_gguf.py")])
    lines = [
        f"{converter} --outfile F16.gguf --outtype f16 {shlex.quote(str(checkpoint))}",
        f"{tool['imatrix']} -m F16.gguf -f calibration.txt -o imatrix.gguf {sizes}",
        *(f"{tool['quantize']} --imatrix imatrix.gguf F16.gguf {quant}.gguf {quant}" for quant in QUANTS),
        f"{tool['perplexity']} -m F16.gguf -f evaluation.txt --kl-divergence-base base.kld {sizes}",
        *(f"{tool['perplexity']} -m {quant}.gguf --kl-divergence-base base.kld --kl-divergence -c 512 -b 512 -ub 512"
          for quant in QUANTS),
        *(f"{tool['bench']} -m {name}.gguf {bench}" for name in ("F16", *QUANTS)),
    ]  # fmt: skip
    return "\n".join(f"{line} > log 2>&1" for line in lines) + f"\ncd {shlex.quote(str(work))}\n"


def default_instance(home: Path) -> str:
    """Return the name of the home's default instance."""
    name: str = json.loads((home / "default-instance.json").read_text())["instance"]
    return name


if __name__ == "__main__":
    main()
