"""Bad inputs: one row of the project's table of hostile and mistaken input each, run on the real command line.

All cases assert the exact exit status, the shape of the message (`error: what 'input': why`, at most three lines
besides a child's last lines, nothing unprintable, no traceback), and that nothing was made or changed below the user's
directories: names, kinds, modes and bytes are compared before and after, and canary files stay absent. Lock files may
appear, and the bare mirror of a repository that really was asked.

Where our command line differs from the table's words: `--ref` is the VERSION argument and `--branch`; `--profile` is
`--arch`; `--repo` is `--repo-url`; `server start --port` is `quickstart --port`. What else differs stands in the files
of the rows, `tests/unit/cli/test_bad_*.py`.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llama_mgr.paths import Home
from tests.conftest import Answer, Cli
from tests.tools.shelf_build import plan_of
from tests.tools.tiny_repository import TinyRepository

ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory to somebody else")
_REMARKS = ("error: ", "hint:  ", "log:   ", "  | ", "==> ", "    ", "warning: ")


@dataclass
class World:
    """A home with the instance `main` (two generations), and everything that must not change."""

    cli: Cli
    home: Home
    root: Path
    environ: dict[str, str]
    repository: TinyRepository
    cleanup: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @property
    def canary(self) -> Path:
        """What hostile input tries to make."""
        return self.root / "canary"

    @property
    def config(self) -> Path:
        return self.home.config_file

    def snapshot(self) -> dict[str, str]:
        """Every path below the test's directory, with its kind, mode and content."""
        found = {}
        for directory, names, files in os.walk(self.root):
            place = Path(directory)
            if place in {self.home.locks_dir, self.home.source_dir}:
                names.clear()
                continue
            for name in [*names, *files]:
                path = place / name
                if path not in {self.home.locks_dir, self.home.source_dir, self.home.staging_dir}:
                    found[str(path.relative_to(self.root))] = _described(path)
        return found


def _described(path: Path) -> str:
    mode = path.lstat().st_mode
    if path.is_symlink():
        return f"{mode:o} -> {path.readlink()}"
    if path.is_file():
        with path.open("rb") as file:
            return f"{mode:o} {path.stat().st_size} {hashlib.sha256(file.read(1 << 20)).hexdigest()}"
    return f"{mode:o}"


@dataclass(frozen=True)
class Case:
    """One bad input."""

    row: int
    name: str
    words: tuple[object, ...]
    status: int
    says: tuple[str, ...] = ()
    """Parts of what is said on stderr."""
    before: Callable[[World], object] | None = None
    extra: tuple[tuple[str, str], ...] = ()
    marks: tuple[pytest.MarkDecorator, ...] = ()

    @property
    def parameter(self) -> object:
        return pytest.param(self, id=f"row-{self.row:02d}-{self.name}", marks=self.marks)


def case(row: int, name: str, *words: object, status: int, says: str | tuple[str, ...] = (), **more: object) -> Case:
    return Case(row, name, words, status, (says,) if isinstance(says, str) else says, **more)  # type: ignore[arg-type]


def server_runs_main(world: World) -> None:
    directory = world.home.servers_dir / "chat"
    directory.mkdir(parents=True)
    document = {
        "schema": 1, "kind": "server", "written_by": "0", "build_id": plan_of(2).build_id, "model": "m.gguf",
        "port": 8080, "pid": 1, "started_at": "2026-01-01T00:00:00Z",
    }  # fmt: skip
    (directory / "server.json").write_text(json.dumps(document))
    lock = world.cleanup.enter_context((directory / "alive.lock").open("wb"))
    fcntl.flock(lock, fcntl.LOCK_EX)


def run(world: World, one: Case) -> Answer:
    def filled(word: object) -> str:
        return str(word).replace("ROOT", str(world.root)).replace("TINY", world.repository.url)

    extra = {name: filled(value) for name, value in one.extra}
    return world.cli(*map(filled, one.words), **extra)


def assert_shape(answer: Answer) -> None:
    """The message is one a person can read, whatever the input was."""
    assert answer.stdout == ""
    assert "Traceback" not in answer.stderr
    for character in answer.stderr.replace("\n", ""):
        assert unicodedata.category(character) not in {"Cc", "Cf", "Co", "Cs", "Zl", "Zp"}, hex(ord(character))
    lines = answer.stderr.splitlines()
    assert all(line.startswith(_REMARKS) for line in lines), answer.stderr
    own = [line for line in lines if line.startswith(("error: ", "hint:  "))]
    assert [line[:6] for line in own] in (["error:"], ["error:", "hint: "]), answer.stderr
    assert all(len(line) <= 1000 for line in own)


def assert_refused(world: World, one: Case) -> None:
    """Run a case: exact status, readable message, and nothing made or changed."""
    if one.before is not None:
        one.before(world)
    before = world.snapshot()
    answer = run(world, one)
    assert answer.status == one.status, answer.stderr
    assert_shape(answer)
    for part in one.says:
        assert part in answer.stderr, answer.stderr
    assert "tok3n" not in answer.stderr
    changed = before.items() ^ world.snapshot().items()
    assert not changed, changed
    assert not list(world.root.rglob("canary"))
