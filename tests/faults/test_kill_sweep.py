"""kill -9 at system calls and at random times: every instance stays whole, and the same command then succeeds."""

from pathlib import Path

import pytest

from tests.faults.arena import Templates
from tests.faults.conftest import SEED, amount
from tests.faults.sweep import CASES, Sweep

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

# Points tried in the short slice; builds take seconds each, switching takes tenths.
_SHORT = {
    "install-fresh": 1, "install-second": 2, "install-same-build": 4, "update": 1, "update-to-existing-build": 2,
    "uninstall": 3, "uninstall-default": 4, "use": 3, "rollback": 3, "gc": 2, "shims": 2,
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
@pytest.mark.usefixtures("needs_strace")
def test_a_kill_at_any_call_leaves_everything_whole(name: str, templates: Templates, tmp_path: Path) -> None:
    report = Sweep(CASES[name], templates, tmp_path).kills(amount(_SHORT[name], None), SEED)
    print(report)
    assert report.fired >= report.tried * 0.8, "the calls did not come as recorded"
    assert not report.findings, str(report)


@pytest.mark.parametrize("name", ["install-fresh", "install-second", "update"])
def test_a_kill_at_any_time_leaves_everything_whole(name: str, templates: Templates, tmp_path: Path) -> None:
    """Only llama-mgr is killed: its git, cmake and compilers live on as orphans."""
    report = Sweep(CASES[name], templates, tmp_path).random_kills(amount(2, 200) or 0, SEED)
    print(report)
    assert report.fired > 0
    assert not report.findings, str(report)
