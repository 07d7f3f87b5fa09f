"""Fixtures of the fault tests: templates made once a session, arenas made for each test, and how long to take."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import strace
from tests.faults.arena import Arena, Templates, remove_all

FULL = os.environ.get("LLAMA_MGR_FAULTS", "short") == "full"
SEED = int(os.environ.get("LLAMA_MGR_FAULTS_SEED", "1"))


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Templates]:
    made = Templates(tmp_path_factory.mktemp("templates"))
    yield made
    remove_all(made.root)


@pytest.fixture
def arena(tmp_path: Path, templates: Templates) -> Arena:
    """An arena without a home; `arena.restore(templates[...])` gives it one."""
    return Arena(tmp_path / "arena", templates.url)


@pytest.fixture
def needs_strace() -> None:
    reason = strace.why_not()
    if reason is not None:
        pytest.skip(reason)


def amount(short: int, full: int | None) -> int | None:
    """How many faults to try: LLAMA_MGR_FAULTS=full tries all of them."""
    return full if FULL else short
