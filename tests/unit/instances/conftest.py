"""What tests of instances may ask for."""

from collections.abc import Mapping

import pytest

from llama_mgr.instances.installation import Installer
from llama_mgr.paths import Home
from llama_mgr.report import SilentReporter
from llama_mgr.settings import Settings
from tests.tools.shelf_build import MakeBuild, ShelfBuilder, plan_of, publish_build


@pytest.fixture
def make_build(home: Home) -> MakeBuild:
    """Make a build in the home: `make_build(7)` is b7."""
    return lambda number=1, **changes: publish_build(home, plan_of(number, **changes))


@pytest.fixture
def shelf_installer(home: Home, environ: Mapping[str, str]) -> Installer:
    """An installer that asks real repositories and recipes, and compiles nothing."""
    installer = Installer(home, Settings(), environ, SilentReporter())
    builder = ShelfBuilder(home, Settings(), environ, SilentReporter())
    builder.home, builder.built = home, []
    installer.builder = builder
    return installer
