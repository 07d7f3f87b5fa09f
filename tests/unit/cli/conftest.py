"""What tests of the command line may ask for."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_mgr.instances.instance import Instances, WantedBuild
from llama_mgr.paths import Home
from tests.conftest import Cli
from tests.tools.bad_input import World
from tests.tools.shelf_build import plan_of, publish_build
from tests.tools.tiny_repository import TinyRepository


@pytest.fixture
def world(
    cli: Cli, home: Home, tmp_path: Path, environ: dict[str, str], tiny_repository: TinyRepository
) -> Iterator[World]:
    """A home with the instance `main`, and a working directory of its own."""
    cli.cwd = tmp_path / "work"
    cli.cwd.mkdir()
    instances = Instances(home)
    for number in (1, 2):
        instances.point("main", publish_build(home, plan_of(number)), WantedBuild(version=f"b{number}"))
    found = World(cli, home, tmp_path, environ, tiny_repository)
    with found.cleanup:
        yield found
