"""A full or failing disk at single system calls: exit 10 with the path, the old state intact, and a rerun works."""

from pathlib import Path

import pytest

from tests.faults.arena import Templates
from tests.faults.conftest import SEED, amount
from tests.faults.sweep import CASES, Sweep

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

_SHORT = {"install-second": 1, "install-same-build": 2, "uninstall": 2, "use": 2}


@pytest.mark.parametrize("errno_name", ["ENOSPC", "EIO"])
@pytest.mark.parametrize("name", _SHORT)
@pytest.mark.usefixtures("needs_strace")
def test_a_failing_call_is_one_clear_error(name: str, errno_name: str, templates: Templates, tmp_path: Path) -> None:
    report = Sweep(CASES[name], templates, tmp_path).errors(errno_name, amount(_SHORT[name], None), SEED)
    print(report)
    assert report.fired >= report.tried * 0.8, "the calls did not come as recorded"
    assert not report.findings, str(report)
