"""Power cuts on a real ext4: nothing torn at any moment, nothing lost after success."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import mounts
from tests.faults.arena import Templates
from tests.faults.conftest import SEED, amount
from tests.faults.mounts import PowerSupply
from tests.faults.power import PowerSweep
from tests.faults.sweep import CASES

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

_SHORT = {"install-second": 1, "install-same-build": 2, "use": 2, "rollback": 2, "uninstall-default": 2, "shims": 1}


@pytest.fixture
def power(tmp_path: Path) -> Iterator[PowerSupply]:
    reason = mounts.no_power_cuts()
    if reason is not None:
        pytest.skip(reason)
    with mounts.power_supply(tmp_path / "disk") as supply:
        yield supply


@pytest.mark.parametrize("name", _SHORT)
@pytest.mark.usefixtures("needs_strace")
def test_nothing_is_torn_and_nothing_lost(name: str, templates: Templates, tmp_path: Path, power: PowerSupply) -> None:
    report = PowerSweep(CASES[name], templates, tmp_path, power).cuts(amount(_SHORT[name], None), SEED)
    print(report)
    assert not report.findings, str(report)
