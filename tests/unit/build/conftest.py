"""What tests of builds may ask for."""

from pathlib import Path

import pytest

from tests.tools.fake_program import GCC_12, make_compiler


@pytest.fixture
def bin_dir(tmp_path: Path) -> Path:
    """A PATH entry with a C and a C++ compiler and nothing else."""
    for name in ("cc", "c++", "g++"):
        make_compiler(tmp_path / "bin", name, GCC_12)
    return tmp_path / "bin"
