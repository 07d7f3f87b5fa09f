"""What tests of checkpoints may ask for."""

from pathlib import Path

import pytest

from tests.tools.checkpoints import write_checkpoint


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint that nothing is wrong with."""
    return write_checkpoint(tmp_path / "checkpoint")
