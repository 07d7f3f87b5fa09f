"""What tests of sources, and of what instances make, may ask for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from llama_mgr.build.source import Sources
from llama_mgr.paths import HOME_VARIABLE, Home
from llama_mgr.settings import Settings
from tests.conftest import ROOT, Cli
from tests.tools.checkpoints import write_checkpoint
from tests.tools.listener import Listener
from tests.tools.llama_repository import make_llama_repository
from tests.tools.scratch_repository import Scratch
from tests.tools.tiny_repository import TinyRepository

OLD, NEW = 11401, 11434
BUILD_LIMIT_S = 2300


@pytest.fixture
def listener() -> Listener:
    """What `sources` reported so far."""
    return Listener()


@pytest.fixture
def sources(home: Home, environ: dict[str, str], listener: Listener) -> Sources:
    """The sources of the fresh home, with the settings that nobody changed."""
    return Sources(home, environ, listener, Settings())


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A small checkpoint with code in no file."""
    return write_checkpoint(tmp_path / "small-llama")


@pytest.fixture
def f16(tiny: Cli, checkpoint: Path, tmp_path: Path) -> Path:
    """An unquantized model outside the library."""
    (tmp_path / "work").mkdir()
    tiny.done("convert", checkpoint, tmp_path / "work" / "small-F16.gguf")
    return tmp_path / "work" / "small-F16.gguf"


@pytest.fixture
def scratch(tmp_path: Path) -> Scratch:
    """An empty repository in which a test may commit, tag and reset."""
    return Scratch(tmp_path / "scratch")


@pytest.fixture(scope="session")
def real_cli(test_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Cli:
    """A home with the instances `old` and `new` of real llama.cpp, for `real` tests; they leave it as it is."""
    directory = tmp_path_factory.mktemp("real")
    scripts = str(Path(sys.executable).parent)
    os.environ["PATH"] = os.pathsep.join([scripts, os.environ["PATH"]])
    repository = make_llama_repository(test_cache / "llama.cpp", [f"b{OLD}", f"b{NEW}"], test_cache / "downloads")
    home = Home(directory / "home")
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("LLAMA_")},
        "HOME": str(directory),
        HOME_VARIABLE: str(home.root),
        "PYTHONPATH": str(ROOT),
        "LLAMA_MGR_SOURCE_REPO_URL": f"file://{repository}",
        "LLAMA_MGR_BUILD_CACHE_DIRECTORY": str(test_cache / "ccache"),
    }
    cli = Cli(environ, directory)
    for name, number in (("old", OLD), ("new", NEW)):
        cli.done("install", name, f"b{number}", "--arch", "cpu", "--ignore-python", timeout_s=BUILD_LIMIT_S)
    return cli


@pytest.fixture(scope="session")
def tiny_template(tiny_repository: TinyRepository, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the instances `old` and `new` of the tiny llama.cpp, all its tools, and Python for its converter."""
    directory = tmp_path_factory.mktemp("tiny-home")
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith("LLAMA_")},
        "HOME": str(directory), HOME_VARIABLE: str(directory / "home"), "PYTHONPATH": str(ROOT),
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }  # fmt: skip
    cli = Cli(environ, directory)
    for name, number in (("old", OLD), ("new", NEW)):
        cli.done("install", name, f"b{number}", "--arch", "cpu", "--repo-url", tiny_repository.url, timeout_s=300)
    cli.done("use", "new")
    return directory / "home"


@pytest.fixture
def tiny(cli: Cli, home: Home, tiny_template: Path) -> Cli:
    """The command line in a home of its own with the tiny instances; `new` is the default."""
    for entry in tiny_template.iterdir():
        if entry.name not in {"cache", "locks", "logs", "staging", "source"}:
            subprocess.run(["cp", "-al", "--", entry, home.root], check=True)
    return cli
