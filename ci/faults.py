"""The long fault sweeps, on demand: every disk-changing call of every command, many random kills, many power cuts.

    python ci/faults.py                        everything, about an hour and a half on two cores
    python ci/faults.py kills errors uninstall use
    python ci/faults.py power --points 50
    python ci/faults.py random pull-one pull-split pull-update pull-update-split --times 50

Words are sweeps (kills, errors, random, power) and cases (install-second, use, pull-one, ...); none of a kind means all
of it.
The status is 1 if anything was found. The tests in tests/faults/ run a slice of the same; LLAMA_MGR_FAULTS=full
`pytest -m faults` makes their signals, races and full disks long, too.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.faults import mounts, pulls, strace
from tests.faults.arena import Templates
from tests.faults.power import PowerSweep
from tests.faults.sweep import CASES, Report, Sweep

SWEEPS = ("kills", "errors", "random", "power")
BUILDS = ("install-fresh", "install-second", "update")


def main() -> int:
    """Run the command line; the exit status."""
    parser = argparse.ArgumentParser(description="Break llama-mgr in every way, and look what is left.")
    parser.add_argument(
        "words", nargs="*", choices=[*SWEEPS, *CASES, *pulls.SMALL, []], metavar="WORD", help=", ".join(SWEEPS)
    )
    parser.add_argument("--points", type=int, help="how many points of each case; default all")
    parser.add_argument(
        "--times", type=int, default=200, help="how many random kills of each case that builds or pulls"
    )
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--directory", type=Path, help="where to work; a tmpfs is fast, but fsync does nothing there")
    options = parser.parse_args()
    found = 0
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="llama-mgr-faults-") as work_dir:
        templates = Templates(Path(work_dir) / "templates")
        for kind in [word for word in SWEEPS if word in options.words] or SWEEPS:
            for name in [word for word in (*CASES, *pulls.SMALL) if word in options.words] or (*CASES, *pulls.SMALL):
                work = Path(work_dir) / f"{kind}-{name}"
                reports = partial(_reports, templates=templates) if name in CASES else _pull_reports
                for report in reports(kind, name, work_dir=work, options=options):
                    print(f"{kind} {report}", flush=True)
                    found += len(report.findings)
    print(f"{found} faults with findings")
    return 1 if found else 0


def _is_possible(kind: str, name: str) -> bool:
    reason = mounts.no_power_cuts() if kind == "power" else strace.why_not() if kind != "random" else None
    if reason is not None:
        print(f"{kind} {name}: not tried: {reason}", flush=True)
    return reason is None


def _pull_reports(kind: str, name: str, work_dir: Path, options: argparse.Namespace) -> Iterator[Report]:
    if not _is_possible(kind, name):
        return
    case = (pulls.LARGE if kind == "random" else pulls.SMALL)[name]
    with ExitStack() as stack:
        power = stack.enter_context(mounts.power_supply(work_dir / "disk", "1G")) if kind == "power" else None
        sweep = stack.enter_context(pulls.PullSweep(case, work_dir / "work", options.workers, power))
        if kind in {"kills", "power"}:
            yield sweep.kills(options.points, options.seed)
        elif kind == "random":
            yield sweep.random_kills(options.times, options.seed)
        else:
            for errno_name in ("ENOSPC", "EIO"):
                yield sweep.errors(errno_name, options.points, options.seed)


def _reports(
    kind: str, name: str, templates: Templates, work_dir: Path, options: argparse.Namespace
) -> Iterator[Report]:
    if not _is_possible(kind, name):
        return
    if kind == "power":
        with ExitStack() as stack:
            power = stack.enter_context(mounts.power_supply(work_dir / "disk"))
            yield PowerSweep(CASES[name], templates, work_dir, power).cuts(options.points, options.seed)
        return
    sweep = Sweep(CASES[name], templates, work_dir, options.workers)
    if kind == "kills":
        yield sweep.kills(options.points, options.seed)
    elif kind == "errors":
        for errno_name in ("ENOSPC", "EIO"):
            yield sweep.errors(errno_name, options.points, options.seed)
    elif name in BUILDS:
        yield sweep.random_kills(options.times, options.seed)


if __name__ == "__main__":
    sys.exit(main())
