"""Work trees of mirrors, and what survives kills, leftovers and company."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from llama_mgr import locks
from llama_mgr.build import git_program, mirror
from llama_mgr.build.source import Sources, Wanted
from llama_mgr.errors import BusyError
from llama_mgr.paths import Home
from llama_mgr.report import SilentReporter
from tests.tools.scratch_repository import Scratch, git_config
from tests.tools.tiny_repository import TinyRepository, run_git


def mirror_of(home: Home) -> Path:
    (mirror,) = home.source_dir.glob("*.git")
    return mirror


def test_a_work_tree_comes_and_goes(sources: Sources, tiny_repository: TinyRepository, home: Home) -> None:
    source = sources.locate(Wanted("b11401", repo_url=tiny_repository.url))
    target = home.staging_dir / "x" / "source"

    sources.check_out(source, target)

    assert run_git("rev-parse", "HEAD", cwd=target) == source.commit
    assert run_git("rev-list", "--count", "HEAD", cwd=target) == "11401"
    assert run_git("status", "--porcelain", cwd=target) == ""
    (target / "build-info.cpp").write_text("made by a build")
    sources.release(target)
    assert not target.exists()
    assert run_git("worktree", "list", cwd=mirror_of(home)).count("\n") == 0
    sources.release(target)


def test_two_work_trees_of_one_commit_stand_side_by_side(
    sources: Sources, tiny_repository: TinyRepository, home: Home
) -> None:
    source = sources.locate(Wanted("b11434", repo_url=tiny_repository.url))
    first, second = home.staging_dir / "1" / "source", home.staging_dir / "2" / "source"

    sources.check_out(source, first)
    sources.check_out(source, second)
    sources.release(first)

    assert run_git("rev-parse", "HEAD", cwd=second) == source.commit


def test_a_work_tree_that_vanished_is_forgotten(sources: Sources, tiny_repository: TinyRepository, home: Home) -> None:
    source = sources.locate(Wanted("b11434", repo_url=tiny_repository.url))
    target = home.staging_dir / "x" / "source"
    sources.check_out(source, target)
    shutil.rmtree(target)

    sources.check_out(source, home.staging_dir / "y" / "source")

    assert run_git("worktree", "list", cwd=mirror_of(home)).count("\n") == 1


def test_release_leaves_alone_what_is_not_in_the_home(sources: Sources, scratch: Scratch) -> None:
    scratch.commit("b1")

    sources.release(scratch.directory)

    assert (scratch.directory / "CMakeLists.txt").is_file()
    assert (scratch.directory / ".git").is_dir()


LOCATE = """
import os, sys
from pathlib import Path
from llama_mgr.build.source import Sources, Wanted
from llama_mgr.paths import Home
from llama_mgr.report import SilentReporter
from llama_mgr.settings import Settings
print("ready", flush=True)
sources = Sources(Home(Path(sys.argv[1])), os.environ, SilentReporter(), Settings())
print(sources.locate(Wanted(sys.argv[2], sys.argv[3])).commit)
"""


def start_locate(environ: dict[str, str], home: Home, version: str, url: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", LOCATE, str(home.root), version, url], env=environ, stdout=subprocess.PIPE, text=True
    )


@pytest.mark.faults
def test_a_kill_at_any_moment_never_blocks_the_next_try(
    sources: Sources, environ: dict[str, str], tiny_repository: TinyRepository, home: Home
) -> None:
    expected = tiny_repository.commits["b11434"]
    for delay_ms in range(0, 400, 20):
        shutil.rmtree(home.source_dir, ignore_errors=True)
        child = start_locate(environ, home, "b11434", tiny_repository.url)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        time.sleep(delay_ms / 1000)
        child.send_signal(signal.SIGKILL)
        child.wait()

        assert sources.locate(Wanted("b11434", repo_url=tiny_repository.url)).commit == expected
        assert sources.locate(Wanted("latest", repo_url=tiny_repository.url)).commit == expected


def test_a_mirror_that_is_no_mirror_is_replaced(sources: Sources, tiny_repository: TinyRepository, home: Home) -> None:
    sources.locate(Wanted("b11434", repo_url=tiny_repository.url))
    (mirror_of(home) / "HEAD").unlink()

    source = sources.locate(Wanted("b11434", repo_url=tiny_repository.url))

    assert source.commit == tiny_repository.commits["b11434"]


def test_leftovers_of_a_killed_git_are_cleared(sources: Sources, scratch: Scratch, home: Home) -> None:
    scratch.commit("b1")
    sources.locate(Wanted(repo_url=scratch.url))
    mirror = mirror_of(home)
    for name in ("packed-refs.lock", "HEAD.lock", "config.lock", "refs/heads/master.lock", "refs/tags/b2.lock"):
        (mirror / name).parent.mkdir(parents=True, exist_ok=True)
        (mirror / name).touch()
    half = mirror / "objects" / "pack" / "tmp_pack_x"
    half.write_bytes(b"half")
    os.utime(half, (time.time() - 7200, time.time() - 7200))
    second = scratch.commit("b2")

    assert sources.locate(Wanted(repo_url=scratch.url)).commit == second
    assert not list(mirror.rglob("*.lock"))
    assert not half.exists()


def test_two_at_once_share_one_clone(environ: dict[str, str], tiny_repository: TinyRepository, home: Home) -> None:
    children = [start_locate(environ, home, "b11434", tiny_repository.url) for _ in range(3)]

    said = [child.communicate(timeout=60)[0].split() for child in children]

    assert said == [["ready", tiny_repository.commits["b11434"]]] * 3
    assert [path.suffix for path in home.source_dir.iterdir()] == [".git"]


def _runs(pid: int) -> bool:
    stat_file = Path(f"/proc/{pid}/stat")
    # a zombie only waits for whoever adopted it
    return stat_file.exists() and stat_file.read_text().rpartition(")")[2].split()[0] != "Z"


def test_an_interrupted_clone_leaves_no_process_and_no_mirror(
    sources: Sources, home: Home, environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_ssh = tmp_path / "ssh"
    fake_ssh.write_text(f"#!/bin/sh\necho $$ > {tmp_path / 'pid'}\nexec sleep 600\n")
    fake_ssh.chmod(0o755)
    git_config(environ, "[core]", f"  sshCommand = {fake_ssh}")
    monkeypatch.setattr(git_program, "QUIET_LIMIT_S", 60.0)
    timer = threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()

    with pytest.raises(KeyboardInterrupt):
        sources.locate(Wanted("b1", repo_url="git@example.invalid:llama.cpp"))

    assert not _runs(int((tmp_path / "pid").read_text()))
    assert not list(home.source_dir.glob("*"))
    assert not list(home.staging_dir.glob("*"))


def test_a_release_does_not_wait_for_long_and_the_next_check_out_forgets_the_tree(
    sources: Sources, tiny_repository: TinyRepository, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "_RELEASE_PATIENCE_S", 0.1)
    source = sources.locate(Wanted("b11401", repo_url=tiny_repository.url))
    target = home.staging_dir / "x" / "source"
    sources.check_out(source, target)
    started = time.monotonic()
    with (
        locks.held_lock(home, f"source-{mirror_of(home).stem}", "fetch for an hour", SilentReporter()),
        pytest.raises(BusyError),
    ):
        sources.release(target)
    assert time.monotonic() - started < 2
    shutil.rmtree(target)
    sources.check_out(source, home.staging_dir / "y" / "source")
    assert len(run_git("worktree", "list", "--porcelain", cwd=mirror_of(home)).split("worktree ")) == 3
