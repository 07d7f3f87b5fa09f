"""Work that is got ready in a directory of the user's: it vanishes, and so does what killed processes left there."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from llama_mgr.errors import StorageError
from llama_mgr.models.import_staging import import_staging
from llama_mgr.paths import Home
from tests.conftest import ROOT
from tests.tools.model_library import put

WORK = """
import sys, time
from pathlib import Path
from llama_mgr.models.import_staging import import_staging
from llama_mgr.paths import Home
with import_staging(Home(Path(sys.argv[1])), Path(sys.argv[2])) as staged:
    (staged / "made.gguf").write_bytes(b"half of it")
    print(staged.parent.name, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@contextmanager
def at_work(home: Home, place: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Have another process work in `place`; yield it and its hidden directory, and kill it afterwards."""
    argv = [sys.executable, "-c", WORK, str(home.root), str(place)]
    with subprocess.Popen(argv, env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout is not None
        try:
            yield worker, place / worker.stdout.readline().strip()
        finally:
            worker.kill()


def left_by_a_kill(home: Home, place: Path) -> Path:
    with at_work(home, place) as (worker, directory):
        worker.send_signal(signal.SIGKILL)
        worker.wait(10)
    assert (directory / "model/made.gguf").exists()
    return directory


def test_the_directory_is_in_the_place_and_vanishes(home: Home, out: Path) -> None:
    with import_staging(home, out) as staged:
        assert staged.parent.parent == out
        assert staged.parent.name.startswith(".import-")
        assert list(staged.iterdir()) == []
        assert staged.parent.stat().st_mode & 0o777 == 0o700
        put(staged / "deep/file")
    assert list(out.iterdir()) == []
    assert not home.models_dir.exists()


def test_it_vanishes_after_an_error_too(home: Home, out: Path) -> None:
    with pytest.raises(ZeroDivisionError), import_staging(home, out) as staged:
        _ = put(staged / "file").stat().st_size / 0
    assert list(out.iterdir()) == []


def test_what_a_kill_left_is_removed_by_the_next_who_works_there(home: Home, out: Path) -> None:
    leftovers = [left_by_a_kill(home, out) for _ in range(2)]
    mine = put(out / "mine.gguf", b"content")
    with import_staging(home, out) as staged:
        assert not any(directory.exists() for directory in leftovers)
        assert set(out.iterdir()) == {mine, staged.parent}
    assert list(out.iterdir()) == [mine]


def test_what_a_kill_left_elsewhere_stays(home: Home, out: Path, tmp_path: Path) -> None:
    leftover = left_by_a_kill(home, out)
    (tmp_path / "other").mkdir()
    for place in (tmp_path / "other", None):
        with import_staging(home, place):
            pass
    assert leftover.exists()


def test_who_works_there_now_is_left_alone(home: Home, out: Path) -> None:
    leftover = left_by_a_kill(home, out)
    with at_work(home, out) as (_, directory):
        with import_staging(home, out) as staged, import_staging(home, out) as second:
            assert set(out.iterdir()) == {directory, staged.parent, second.parent}
        assert (directory / "model/made.gguf").read_bytes() == b"half of it"
    assert not leftover.exists()


def test_work_for_another_home_is_left_alone_too(home: Home, out: Path, tmp_path: Path) -> None:
    with at_work(Home(tmp_path / "second-home"), out) as (_, directory), import_staging(home, out):
        assert (directory / "model/made.gguf").exists()


def test_links_and_files_with_such_a_name_are_not_followed(home: Home, out: Path, tmp_path: Path) -> None:
    theirs = put(tmp_path / "theirs/file", b"content")
    (out / ".import-0123456789ab").symlink_to(theirs.parent)
    put(out / ".import-ba9876543210", b"a file")
    with import_staging(home, out):
        pass
    assert theirs.read_bytes() == b"content"
    assert sorted(path.name for path in out.iterdir()) == [".import-0123456789ab", ".import-ba9876543210"]


def test_a_place_that_is_no_directory_is_said(home: Home, tmp_path: Path) -> None:
    put(tmp_path / "file", b"")
    with pytest.raises(StorageError, match="cannot make"), import_staging(home, tmp_path / "file"):
        pytest.fail("it was lent")
    assert (tmp_path / "file").read_bytes() == b""


def test_the_lock_is_held_as_long_as_the_body_runs(home: Home, out: Path) -> None:
    with import_staging(home, out) as staged:
        descriptor = os.open(staged.parent / "alive.lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.close(descriptor)
