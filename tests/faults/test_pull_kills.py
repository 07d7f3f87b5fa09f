"""kill -9, failing disks and power cuts during a pull: no partial ever looks whole, and the next pull goes on."""

from pathlib import Path

import pytest

from tests.faults import mounts
from tests.faults.conftest import FULL, SEED, amount
from tests.faults.pulls import LARGE, SMALL, PullSweep

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

_RANDOM = {"pull-one": 5, "pull-split": 5}
_RANDOM_FULL = {"pull-one": 70, "pull-split": 70, "pull-update": 30, "pull-update-split": 30}


@pytest.mark.parametrize("name", _RANDOM_FULL if FULL else _RANDOM)
def test_a_kill_at_any_time_is_mended_by_the_next_pull(name: str, tmp_path: Path) -> None:
    with PullSweep(LARGE[name], tmp_path) as sweep:
        report = sweep.random_kills((_RANDOM_FULL if FULL else _RANDOM)[name], SEED)
    print(report, f"resumed {sweep.resumed}")
    assert report.fired > 0
    assert sweep.resumed > 0, "no pull went on with what an earlier one had"
    assert not report.findings, str(report)


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.usefixtures("needs_strace")
def test_a_kill_at_any_call_is_mended_by_the_next_pull(name: str, tmp_path: Path) -> None:
    with PullSweep(SMALL[name], tmp_path) as sweep:
        report = sweep.kills(amount(4, None), SEED)
    print(report)
    assert report.fired >= report.tried * 0.8, "the calls did not come as recorded"
    assert not report.findings, str(report)


@pytest.mark.parametrize("errno_name", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("name", ["pull-split", "pull-update-split"])
@pytest.mark.usefixtures("needs_strace")
def test_a_failing_call_is_one_clear_error(name: str, errno_name: str, tmp_path: Path) -> None:
    with PullSweep(SMALL[name], tmp_path) as sweep:
        report = sweep.errors(errno_name, amount(3, None), SEED)
    print(report)
    assert report.fired >= report.tried * 0.8, "the calls did not come as recorded"
    assert not report.findings, str(report)


@pytest.mark.parametrize("name", ["pull-split", "pull-update-split"])
@pytest.mark.usefixtures("needs_strace")
def test_a_power_cut_tears_nothing_and_loses_nothing(name: str, tmp_path: Path) -> None:
    reason = mounts.no_power_cuts()
    if reason is not None:
        pytest.skip(reason)
    with (
        mounts.power_supply(tmp_path / "disk", "1G") as power,
        PullSweep(SMALL[name], tmp_path / "work", power=power) as sweep,
    ):
        report = sweep.kills(amount(3, None), SEED)
    print(report)
    assert not report.findings, str(report)
