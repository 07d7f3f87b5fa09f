"""A private place to break things in: a home, a user's HOME and a TMPDIR beside it, and llama-mgr run there."""

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.faults import oracle
from tests.tools.tiny_repository import make_tiny_repository

PROJECT_DIR = Path(__file__).resolve().parents[2]
PACKAGE_VARIABLE = "LLAMA_MGR_FAULTS_PACKAGE"
"""A directory to import llama_mgr from, to see the sweep catch a package that was broken on purpose."""
COMMAND_TIMEOUT_S = 110
OLD, NEW = "b11401", "b11434"


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str

    def __str__(self) -> str:
        """Return the status and the last words, for messages."""
        return f"status {self.status}: {self.stderr[-400:].strip()}"


class Arena:
    """One home that may be destroyed, with everything that a command may touch beside it."""

    def __init__(self, root: Path, url: str, home: Path | None = None) -> None:
        """Make the places around the home below `root`; the home itself may lie elsewhere, and is not made."""
        self.root = root.resolve()
        self.url = url
        self.home = home or self.root / "home"
        self.user_dir = self.root / "user"
        self.temporary_dir = self.root / "tmp"
        for directory in (self.user_dir, self.temporary_dir):
            directory.mkdir(parents=True, exist_ok=True)

    def environ(self, **extra: str) -> dict[str, str]:
        """Return the environment of commands here: nothing of this process but its PATH."""
        package = os.environ.get(PACKAGE_VARIABLE, str(PROJECT_DIR))
        return {
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
            "HOME": str(self.user_dir),
            "TMPDIR": str(self.temporary_dir),
            "LLAMA_MGR_HOME": str(self.home),
            "PYTHONPATH": package,
            "PYTHONDONTWRITEBYTECODE": "1",  # a sweep counts the program's own calls
            "LC_ALL": "C.UTF-8",
        } | extra

    def argv(self, *words: str) -> list[str]:
        """Return the command line of llama-mgr with `words`; REPOSITORY in them is the repository's options."""
        options = ["--repo-url", self.url, "--arch", "cpu", "--ignore-python"]
        spread = [option for word in words for option in (options if word == "REPOSITORY" else [word])]
        return [sys.executable, "-m", "llama_mgr", *spread]

    def start(self, *words: str, environ: Mapping[str, str] | None = None) -> "subprocess.Popen[str]":
        """Start llama-mgr with `words`; its outputs are pipes."""
        return subprocess.Popen(
            self.argv(*words), env=environ or self.environ(), cwd=self.user_dir, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def run(self, *words: str, **extra: str) -> Ended:
        """Run llama-mgr with `words` to its end, with `extra` in its environment."""
        return ended(self.start(*words, environ=self.environ(**extra)))

    def must(self, *words: str) -> Ended:
        """Run llama-mgr with `words`, which must succeed."""
        done = self.run(*words)
        if done.status != 0:
            message = f"llama-mgr {' '.join(words)}: {done}"
            raise AssertionError(message)
        return done

    def restore(self, template: Path) -> None:
        """Make the home a copy of `template`."""
        if self.home.exists():
            remove_all(self.home)
        copy_all(template, self.home)

    def outside(self) -> oracle.Outside:
        """Return a snapshot of everything around the home."""
        return oracle.Outside.of(self.root, homes=(self.home,))

    def violations(self, *, settled: bool = False, interrupted: int = 1) -> list[str]:
        """Return what the oracle says about the home."""
        return oracle.violations(self.home, settled=settled, interrupted=interrupted)


def ended(child: "subprocess.Popen[str]", timeout_s: float = COMMAND_TIMEOUT_S) -> Ended:
    """Wait for a command; one that hangs is killed and has the status -9."""
    try:
        stdout, stderr = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        child.kill()
        stdout, stderr = child.communicate()
        stderr += f"\n(killed: it hung for {timeout_s} s)"
    return Ended(child.returncode, stdout, stderr)


def copy_all(source: Path, target: Path) -> None:
    """Copy a tree with links, modes and times; cp is several times faster than shutil."""
    subprocess.run(["cp", "-a", "--", source, target], check=True)


def remove_all(directory: Path) -> None:
    """Remove a tree, although a process may still be writing there."""
    for _ in range(100):
        shutil.rmtree(directory, ignore_errors=True)
        if not directory.exists():
            return
        time.sleep(0.05)


def waited_for(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Wait until `condition` holds; tell whether it did in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class Templates:
    """Homes to start from, each made once by real commands.

    empty    nothing but a warm compiler cache
    one      the instance `base` (OLD)
    two      `base` (OLD, the default) and `second` (NEW)
    updated  `base` was OLD and is NEW, so that it can be rolled back
    shared   `base` and `second` are one build
    rubbish  as `one`, with a build that nothing needs, a dead staging directory and something in the trash
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)
        self._guard = threading.Lock()
        repository = make_tiny_repository(root / "tiny.git", broken=True)
        self.url = repository.url

    def __getitem__(self, name: str) -> Path:
        """Return the directory of a template, made on first use."""
        with self._guard:
            return self._made(name)

    def _made(self, name: str) -> Path:
        finished = self.root / name
        if not finished.exists():
            arena = Arena(self.root / "making" / name, self.url)
            getattr(self, f"_make_{name}")(arena)
            wrong = arena.violations(settled=name != "rubbish")
            if wrong:
                message = f"template {name}: {wrong}"
                raise AssertionError(message)
            arena.home.rename(finished)
        return finished

    def _make_empty(self, arena: Arena) -> None:
        (arena.home / "cache").mkdir(parents=True, mode=0o700)
        arena.home.chmod(0o700)
        ccache_dir = self._made("two") / "cache" / "ccache"
        if ccache_dir.is_dir():
            copy_all(ccache_dir, arena.home / "cache" / "ccache")

    def _make_one(self, arena: Arena) -> None:
        arena.must("install", "base", OLD, "REPOSITORY")

    def _make_two(self, arena: Arena) -> None:
        arena.restore(self._made("one"))
        arena.must("install", "second", NEW, "REPOSITORY")

    def _make_updated(self, arena: Arena) -> None:
        arena.restore(self._made("two"))
        arena.must("update", "base", NEW, "--ignore-python")
        arena.must("uninstall", "second")

    def _make_shared(self, arena: Arena) -> None:
        arena.restore(self._made("one"))
        arena.must("install", "second", OLD, "REPOSITORY")

    def _make_rubbish(self, arena: Arena) -> None:
        arena.restore(self._made("two"))
        (arena.home / "instances" / "second.json").unlink()
        shutil.rmtree(arena.home / "instances" / "second")
        for place in ("staging/b11434-cpu-0123456789ab", "trash/b11434-cpu-0123abcd-0123456789ab"):
            directory = arena.home / place / "prefix"
            directory.mkdir(parents=True)
            (directory / "half").write_text("half a file")


def is_sound_default(arena: Arena) -> bool:
    """Tell whether the home has a default instance that exists."""
    path = arena.home / "default-instance.json"
    found = re.search(r'"instance": "([^"]+)"', path.read_text()) if path.exists() else None
    return found is not None and found[1] in oracle.instance_names(arena.home)
