"""What the tests of pulls ask for: a hub that runs here, and a puller that uses it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llama_mgr.download import Patience
from llama_mgr.models.hub import Hub
from llama_mgr.models.memory import Machine
from llama_mgr.models.pull import Puller
from llama_mgr.paths import Home
from tests.tools.listener import Listener
from tests.tools.local_hub import LocalHub


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub() as running:
        yield running


@pytest.fixture
def listener() -> Listener:
    return Listener()


@pytest.fixture
def puller(home: Home, hub: LocalHub, listener: Listener) -> Callable[..., Puller]:
    def made(machine: Machine | None = None, tries: int = 1) -> Puller:
        client = Hub(hub.environ, listener, Patience(tries=tries, first_delay_s=0.01, stall_s=5))
        return Puller(home, client, listener, machine=machine)

    return made


@pytest.fixture
def place(home: Home) -> Path:
    return home.models_dir / "owner" / "tiny-GGUF"
