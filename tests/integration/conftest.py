"""What tests of sources may ask for."""

from pathlib import Path

import pytest

from llama_mgr.build.source import Sources
from llama_mgr.paths import Home
from llama_mgr.settings import Settings
from tests.tools.listener import Listener
from tests.tools.scratch_repository import Scratch


@pytest.fixture
def listener() -> Listener:
    """What `sources` reported so far."""
    return Listener()


@pytest.fixture
def sources(home: Home, environ: dict[str, str], listener: Listener) -> Sources:
    """The sources of the fresh home, with the settings that nobody changed."""
    return Sources(home, environ, listener, Settings())


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    """An empty repository in which a test may commit, tag and reset."""
    return Scratch(tmp_path / "scratch")
