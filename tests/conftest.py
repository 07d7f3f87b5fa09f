"""What every test may ask for: a home and an environment of its own, the shared cache, the real command line."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llama_mgr.paths import HOME_VARIABLE, Home
from tests.tools.small_model import fetched_small_model
from tests.tools.tiny_repository import TinyRepository, make_tiny_repository

CACHE_VARIABLE = "LLAMA_MGR_TEST_CACHE"
ROOT = Path(__file__).resolve().parent.parent

# How this machine reaches a package index. All the rest of the environment stays out: a test that passes only with
# its author's PATH or locale shows nothing.
_NETWORK_PREFIXES = ("SSL_CERT_", "PIP_", "UV_")
_NETWORK_NAMES = frozenset(
    {
        "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO",
        "http_proxy", "https_proxy", "no_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY",
    }
)  # fmt: skip


def pytest_configure() -> None:
    # A shell's background job ignores Ctrl-C, and so would every command that a test starts and interrupts.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@dataclass(frozen=True)
class Answer:
    """How a run of the command line ended, and what it said."""

    status: int
    stdout: str
    stderr: str


class Cli:
    """The real command line, run as a child process the way a user's shell does."""

    def __init__(self, environ: Mapping[str, str], cwd: Path) -> None:
        self.environ = environ
        self.cwd = cwd

    def argv(self, *words: object) -> list[str]:
        """The argument list of a run, for tests that start and kill it themselves."""
        return [sys.executable, "-m", "llama_mgr.cli.app", *map(str, words)]

    def __call__(self, *words: object, timeout_s: float = 60, stdin: str | None = None, **extra: str) -> Answer:
        """Run `llama-mgr WORDS…` with the environment variables `extra` on top, to its end."""
        ended = subprocess.run(
            self.argv(*words),
            env={**self.environ, **extra},
            cwd=self.cwd,
            input=stdin or "",
            capture_output=True,
            encoding="utf-8",
            timeout=timeout_s,
            check=False,
        )
        return Answer(ended.returncode, ended.stdout, ended.stderr)

    def done(self, *words: object, timeout_s: float = 60, **extra: str) -> Answer:
        """Run a command that must end with status 0; what it said is in the failure message if it does not."""
        answer = self(*words, timeout_s=timeout_s, **extra)
        assert answer.status == 0, f"{words} ended with {answer.status}\n{answer.stdout}\n{answer.stderr}"
        return answer

    def json(self, *words: object, status: int = 0, timeout_s: float = 60, **extra: str) -> Any:  # noqa: ANN401
        """Run with `--json` and return the one document on stdout; nothing else may be there."""
        answer = self(*words, "--json", timeout_s=timeout_s, **extra)
        assert answer.status == status, f"{words} ended with {answer.status}\n{answer.stdout}\n{answer.stderr}"
        return json.loads(answer.stdout)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """An empty home that is ready for use."""
    fresh = Home(tmp_path / "llama-mgr-home")
    fresh.prepare()
    return fresh


@pytest.fixture
def environ(home: Home, tmp_path: Path) -> dict[str, str]:
    """The environment of a user who has never heard of this machine: own HOME, own LLAMA_MGR_HOME, plain locale."""
    user_home = tmp_path / "user"
    user_home.mkdir()
    network = {
        name: value
        for name, value in os.environ.items()
        if name in _NETWORK_NAMES or name.startswith(_NETWORK_PREFIXES)
    }
    programs = [str(Path(sys.executable).parent), *os.environ.get("PATH", os.defpath).split(os.pathsep)]
    return {
        **network,
        "HOME": str(user_home),
        HOME_VARIABLE: str(home.root),
        "PATH": os.pathsep.join(dict.fromkeys(programs)),
        "LANG": "C.UTF-8",
        "LC_ALL": "C.UTF-8",
        "TERM": "dumb",
        "GIT_CONFIG_NOSYSTEM": "1",
        "PYTHONPATH": str(ROOT),  # the checkout is tested, whatever is installed
    }


@pytest.fixture(scope="session")
def test_cache() -> Path:
    """A directory that outlives the run: downloads and compiled objects. Tests must pass when it is empty."""
    chosen = os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "llama-mgr-tests"
    directory = Path(chosen).absolute()
    directory.mkdir(parents=True, exist_ok=True)
    return directory


@pytest.fixture(scope="session")
def small_model(test_cache: Path) -> Path:
    """A real chat model of 98 MB; for `real` tests, which must not change it."""
    return fetched_small_model(test_cache)


@pytest.fixture
def compiler_cache(environ: dict[str, str], test_cache: Path) -> Path:
    """The compiler cache of all runs, which `environ` and `cli` use when a test asks for this; for `real` tests."""
    directory = test_cache / "ccache"
    environ["LLAMA_MGR_BUILD_CACHE_DIRECTORY"] = str(directory)
    return directory


@pytest.fixture(scope="session")
def tiny_repository(tmp_path_factory: pytest.TempPathFactory) -> TinyRepository:
    """A local git repository of the tiny llama.cpp, shared by all tests: they must not change it."""
    return make_tiny_repository(tmp_path_factory.mktemp("tiny") / "llama.cpp.git")


@pytest.fixture
def cli(environ: dict[str, str], tmp_path: Path) -> Cli:
    """The command line in the fresh home."""
    return Cli(environ, tmp_path)
