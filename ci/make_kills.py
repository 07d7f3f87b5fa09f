"""Kill a real `make` at random moments, again and again: nothing unfinished is listed, and the end is always the same.

    python ci/make_kills.py --home ~/.llama-mgr --checkpoint DIR --times 50 [-i INSTANCE] [--chunks 2]

The instances and Python environments of the home are used through hard links in a copy of it; what is made goes into
that copy. The fast form of the same, on the tiny project, is tests/faults/test_make_faults.py.
"""

import argparse
import math
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.faults.arena import Arena
from tests.faults.makes import MakeSweep

_USED = ("builds", "instances", "environments", "default-instance.json")
_QUANTS = "Q8_0,Q6_K,Q4_K_M,IQ4_XS"


def main() -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(description="Kill a real make at random moments, again and again.")
    parser.add_argument("--home", type=Path, required=True, help="a home with an instance of all tools")
    parser.add_argument("--checkpoint", type=Path, required=True, help="a checkpoint of this disk")
    parser.add_argument("--times", type=int, default=50, help="how many kills")
    parser.add_argument("--chunks", type=int, default=2, help="of the texts, so that it takes a minute and no hour")
    parser.add_argument("--quants", default=_QUANTS)
    parser.add_argument("-i", "--instance", help="the instance; default that of the home")
    parser.add_argument("--within", type=float, default=math.inf, help="seconds from a start to its kill, at most")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    words = ["make", str(options.checkpoint.resolve()), "--quants", options.quants, "--imatrix", "auto", "--evaluate"]
    words += ["--no-speed", "--chunks", str(options.chunks), "--quiet"]
    words += ["-i", options.instance] if options.instance else []
    source = options.home.resolve()
    with tempfile.TemporaryDirectory(dir=source.parent, prefix="make-kills-") as directory:
        home = Path(directory) / "home"
        home.mkdir(mode=0o700)
        for name in _USED:
            if (source / name).exists():
                subprocess.run(["cp", "-al", "--", source / name, home / name], check=True)
        sweep = MakeSweep(Arena(Path(directory) / "arena", "", home), tuple(words))
        print(f"undisturbed: {sweep.duration_s:.0f} s, {len(sweep.expected)} files", flush=True)
        report = sweep.random_kills(options.times, options.seed, partial(print, flush=True), options.within)
    print(report)
    return 1 if report.findings else 0


if __name__ == "__main__":
    sys.exit(main())
