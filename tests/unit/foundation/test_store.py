import errno
import json
import multiprocessing
import os
import stat
import time
from pathlib import Path

import msgspec
import pytest

from llama_mgr import locks, staging, store
from llama_mgr.errors import (
    BusyError,
    CorruptStateError,
    NewerStateError,
    NoSpaceError,
    NotFoundError,
    RefusedError,
    StorageError,
)
from llama_mgr.paths import Home
from llama_mgr.report import SilentReporter
from tests.tools.listener import Listener


class Body(msgspec.Struct):
    name: str
    count: int = 0


@pytest.fixture
def own_home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "home")
    home.prepare()
    return home


def test_a_document_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "one.json"
    store.write_document(path, "body", Body("x", 3))
    assert store.read_document(path, "body", Body) == Body("x", 3)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert json.loads(path.read_text())["schema"] == store.SCHEMA
    assert [one.name for one in path.parent.iterdir()] == ["one.json"]


def test_a_failed_write_leaves_the_old_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "one.json"
    store.write_document(path, "body", Body("old"))

    def failing_fsync(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", failing_fsync)
    with pytest.raises(NoSpaceError):
        store.write_document(path, "body", Body("new"))
    monkeypatch.undo()
    assert store.read_document(path, "body", Body).name == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["one.json"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"[" * 100_000,
        b'{"schema": 1, "kind": "body", "name": "x", "name": "y"}',
        b'{"schema": 1, "kind": "other", "name": "x"}',
        b'{"schema": 1, "kind": "body", "name": 7}',
        b'{"schema": 1, "kind": "body", "name": "x", "count": NaN}',
        b'{"schema": 1, "kind": "body", "name": "x", "count": 1e400}',
        b'{"schema": "x", "kind": "body", "name": "x"}',
        b'{"schema": -1, "kind": "body", "name": "x"}',
        b'{"schema": true, "kind": "body", "name": "x"}',
        b"\xff\xfe{\x00}\x00",
    ],
)
def test_a_damaged_document_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "one.json"
    path.write_bytes(content)
    with pytest.raises(CorruptStateError):
        store.read_document(path, "body", Body)
    assert path.read_bytes() == content


def test_a_newer_document_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "one.json"
    path.write_text('{"schema": 99, "kind": "body", "whatever": 1}')
    with pytest.raises(NewerStateError, match="schema 99") as caught:
        store.read_document(path, "body", Body)
    assert caught.value.exit_status == 12
    assert caught.value.hint == "upgrade llama-mgr"


def test_missing_is_not_damaged(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        store.read_document(tmp_path / "none.json", "body", Body)


def test_a_pipe_and_a_huge_file_are_not_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    started = time.monotonic()
    with pytest.raises(StorageError, match="regular"):
        store.read_bounded(pipe, 10)
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(StorageError, match="limit"):
        store.read_bounded(big, 10)
    assert time.monotonic() - started < 5


def test_a_temporary_that_is_taken_away_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where locks do nothing, another process takes it for a leftover."""
    made_durable, takings = store.make_durable, iter([True, True, False, False])

    def taken_away(descriptor: int) -> None:
        made_durable(descriptor)
        if next(takings):
            next(tmp_path.glob(".*.tmp")).unlink()

    monkeypatch.setattr(store, "make_durable", taken_away)
    store.write_bytes(tmp_path / "document", b"content")
    assert [path.name for path in tmp_path.iterdir()] == ["document"]
    assert (tmp_path / "document").read_bytes() == b"content"


def test_a_planted_link_is_not_written_through(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    path = tmp_path / "one.json"
    path.symlink_to(victim)
    store.write_document(path, "body", Body("x"))
    assert victim.read_text() == "mine"
    assert not path.is_symlink()


def test_publish_moves_the_whole_directory(own_home: Home) -> None:
    with staging.staging(own_home, "work") as staged:
        (staged / "result" / "deep").mkdir(parents=True)
        (staged / "result" / "deep" / "file").write_text("x")
        store.publish(staged / "result", own_home.builds_dir / "one")
    assert (own_home.builds_dir / "one" / "deep" / "file").read_text() == "x"
    assert not list(own_home.staging_dir.iterdir())


def test_point_replaces_a_link_but_nothing_else(tmp_path: Path) -> None:
    link = tmp_path / "names" / "current"
    for target in ("a", "b"):
        (tmp_path / target).mkdir()
        store.point(link, tmp_path / target)
        assert link.resolve() == tmp_path / target
    assert not link.readlink().is_absolute()
    link.unlink()
    link.mkdir()
    with pytest.raises(StorageError, match="not a link"):
        store.point(link, tmp_path / "a")


def _hold(home: Home, ready: "multiprocessing.synchronize.Event") -> None:
    with locks.held_lock(home, "x", "hold it", SilentReporter()):
        ready.set()
        time.sleep(60)


def test_a_lock_is_waited_for_aloud_and_freed_by_death(own_home: Home) -> None:
    ready = multiprocessing.get_context("fork").Event()
    holder = multiprocessing.get_context("fork").Process(target=_hold, args=(own_home, ready))
    holder.start()
    ready.wait(10)
    listener = Listener()
    with (
        pytest.raises(BusyError, match=f"pid {holder.pid}.*hold it"),
        locks.held_lock(own_home, "x", "try", listener, 0.2),
    ):
        pass
    assert len(listener.notes) == 1
    assert locks.is_locked(locks.lock_file(own_home, "x"))
    holder.kill()
    holder.join()
    with locks.held_lock(own_home, "x", "try", listener, 1):
        pass
    assert locks.lock_file(own_home, "x").exists()


def test_a_replaced_lock_file_never_gives_two_writers(own_home: Home) -> None:
    ready = multiprocessing.get_context("fork").Event()
    with locks.held_lock(own_home, "y", "first", SilentReporter()):
        path = locks.lock_file(own_home, "y")
        path.unlink()
        path.touch(mode=0o600)
        with locks.held_lock(own_home, "y", "second", SilentReporter(), 1):
            assert locks.is_locked(path)
    assert not ready.is_set()


def test_stale_staging_is_what_a_dead_process_left(own_home: Home) -> None:
    process = multiprocessing.get_context("fork").Process(target=_stage_and_die, args=(own_home,))
    process.start()
    process.join()
    with staging.staging(own_home, "living"):
        stale = staging.stale_staging(own_home)
        assert [path.name.split("-")[0] for path in stale] == ["dead"]
        staging.remove_staging(own_home, stale[0])
        assert len(list(own_home.staging_dir.iterdir())) == 1


def _stage_and_die(home: Home) -> None:
    with staging.staging(home, "dead"):
        os._exit(1)


def made(home: Home, name: str) -> Path:
    directory = home.builds_dir / name
    directory.mkdir(parents=True)
    staging.mark(directory, of=name)
    return directory


def test_discard_deletes_what_is_ours(own_home: Home) -> None:
    directory = made(own_home, "one")
    staging.discard(own_home, directory, of="one")
    assert not directory.exists()
    assert not list(own_home.trash_dir.iterdir())


def test_discard_refuses_what_is_not_ours(own_home: Home, tmp_path: Path) -> None:
    unmarked = own_home.builds_dir / "unmarked"
    unmarked.mkdir(parents=True)
    other = made(own_home, "other")
    outside = tmp_path / "outside"
    outside.mkdir()
    staging.mark(outside, of="outside")
    link = own_home.builds_dir / "link"
    link.symlink_to(outside)
    for directory, of in (
        (unmarked, "unmarked"),
        (other, "else"),
        (outside, "outside"),
        (link, "outside"),
        (own_home.root, "x"),
    ):
        with pytest.raises(RefusedError):
            staging.discard(own_home, directory, of=of)
        assert directory.exists()


def test_too_little_disk_is_said_before_the_first_byte(tmp_path: Path) -> None:
    with pytest.raises(NoSpaceError, match="needs about") as caught:
        store.require_free(tmp_path / "not" / "yet", 1 << 60, "install")
    assert caught.value.exit_status == 10
