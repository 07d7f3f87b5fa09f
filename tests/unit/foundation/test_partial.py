"""Unfinished downloads: names, owners, the final rename, and what is found of them later."""

import fcntl
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from llama_mgr.errors import StorageError
from llama_mgr.partial import (
    Partial,
    held_partial,
    partial_path,
    remove_unfinished,
    stepped_aside,
    unfinished,
)

DIGEST = "0123456789abcdef" + "f" * 48
OTHER = "fedcba9876543210" + "f" * 48


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "owner" / "model.gguf"


def names(target: Path) -> list[str]:
    return sorted(path.name for path in target.parent.iterdir())


@contextmanager
def given_up(target: Path, digest: str = DIGEST) -> Iterator[Partial]:
    """Hold a partial, and end with Ctrl-C."""
    with suppress(KeyboardInterrupt), held_partial(target, digest) as partial:
        yield partial
        raise KeyboardInterrupt


def left_behind(target: Path, content: bytes, digest: str = DIGEST) -> None:
    """Write a partial, and give up."""
    with given_up(target, digest) as partial:
        partial.file.write(content)


@contextmanager
def without_locks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let flock do nothing, as some network file systems do."""
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", lambda *_: None)
        yield


def test_it_becomes_the_file_when_it_is_published(target: Path) -> None:
    with held_partial(target, DIGEST) as partial:
        partial.file.write(b"whole")
        assert names(target) == [".model.gguf.0123456789abcdef.part"]
        partial.publish()
    assert names(target) == ["model.gguf"]
    assert target.read_bytes() == b"whole"
    assert target.stat().st_mode & 0o777 == 0o600


def test_the_next_one_goes_on_with_the_same_content_only(target: Path) -> None:
    left_behind(target, b"begun")
    with held_partial(target, OTHER) as partial:
        assert partial.size_bytes() == 0
    with held_partial(target, DIGEST) as partial:
        assert partial.file.read() == b"begun"


def test_nothing_is_left_of_one_that_was_not_needed_or_has_nothing(target: Path) -> None:
    with held_partial(target, DIGEST):
        pass
    left_behind(target, b"")
    with given_up(target) as partial:
        partial.file.write(b"spoilt")
        partial.discard()
    assert names(target) == []


def test_an_older_file_stays_until_the_new_one_is_published(target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"old")
    with held_partial(target, DIGEST) as partial:
        partial.file.write(b"new")
        assert target.read_bytes() == b"old"
        partial.publish()
    assert target.read_bytes() == b"new"


def test_one_works_and_the_others_wait(target: Path) -> None:
    working: list[int] = []
    found: list[bytes] = []

    def work() -> None:
        with held_partial(target, DIGEST) as partial:
            working.append(1)
            assert sum(working) == 1
            if target.exists():
                found.append(target.read_bytes())
            else:
                time.sleep(0.05)
                partial.file.write(b"whole")
                partial.publish()
            working.append(-1)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"whole"] * 7
    assert names(target) == ["model.gguf"]


def test_who_waited_works_on_what_replaced_the_file_it_waited_for(target: Path) -> None:
    seen: list[bytes] = []

    def waits() -> None:
        with held_partial(target, DIGEST) as partial:
            seen.append(partial.file.read())

    with given_up(target) as partial:
        partial.file.write(b"bad")
        thread = threading.Thread(target=waits)
        thread.start()
        time.sleep(0.05)
        partial.restart()
        partial.file.write(b"good")
    thread.join()
    assert seen == [b"good"]


def test_beginning_again_does_not_touch_the_bytes_that_another_holds(target: Path) -> None:
    with held_partial(target, DIGEST) as partial:
        partial.file.write(b"first")
        partial.file.flush()
        with partial.path.open("rb") as other:
            partial.restart()
            partial.file.write(b"second")
            assert other.read() == b"first"
        partial.publish()
    assert target.read_bytes() == b"second"
    assert names(target) == ["model.gguf"]


def test_what_somebody_put_in_its_place_is_not_published(target: Path) -> None:
    with held_partial(target, DIGEST) as partial:
        partial.file.write(b"mine")
        replaced = target.with_name("x")
        replaced.write_bytes(b"theirs")
        replaced.rename(partial.path)
        with pytest.raises(StorageError, match="replaced meanwhile"):
            partial.publish()
    assert not target.exists()
    assert partial_path(target, DIGEST).read_bytes() == b"theirs"


def test_what_the_disk_does_not_take_is_an_error_and_what_it_took_stays(target: Path) -> None:
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from llama_mgr.errors import StorageError; from llama_mgr.partial import held_partial\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "with held_partial(Path(sys.argv[1]), sys.argv[2]) as partial:\n"
        "    partial.file.write(b'x' * 8000)\n"
        "    try: partial.flush()\n"
        "    except StorageError as error: sys.exit(str(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, target, DIGEST], capture_output=True, text=True, check=False)
    assert "cannot write" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
    assert partial_path(target, DIGEST).read_bytes() == b"x" * 5000


def test_a_link_is_not_followed(target: Path, tmp_path: Path) -> None:
    target.parent.mkdir()
    (tmp_path / "victim").write_bytes(b"precious")
    partial_path(target, DIGEST).symlink_to(tmp_path / "victim")
    with pytest.raises(StorageError), held_partial(target, DIGEST):
        pass
    assert (tmp_path / "victim").read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["a" * 250 + ".gguf", "ü" * 120 + ".gguf", "a[b]*?.gguf"])
def test_every_name_of_a_file_has_a_partial(tmp_path: Path, name: str) -> None:
    left_behind(tmp_path / name, b"begun")
    (found,) = unfinished(tmp_path)
    assert found.path == partial_path(tmp_path / name, DIGEST)
    assert remove_unfinished(found)


@pytest.mark.skipif(sys.platform != "linux", reason="fallocate(2) is Linux's")
def test_reserved_space_is_taken_and_not_shown_in_the_size(target: Path) -> None:
    left_behind(target, b"begun")
    with held_partial(target, DIGEST) as partial:
        partial.reserve(1 << 20)
        assert partial.size_bytes() == 5
        if partial.path.stat().st_blocks * 512 < 1 << 20:
            pytest.skip("the file system of the tests cannot reserve")
        assert partial.file.read() == b"begun"


# -- flock that does nothing -------------------------------------------------------------------------------------------


def test_without_locks_each_has_its_own(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with without_locks(monkeypatch), held_partial(target, DIGEST) as one, held_partial(target, DIGEST) as other:
        assert len({one.path, other.path, partial_path(target, DIGEST)}) == 3
        for partial in (one, other):
            partial.file.write(b"whole")
            partial.publish()
    assert names(target) == ["model.gguf"]


def test_without_locks_only_what_was_long_left_alone_is_continued(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left_behind(target, b"begun")
    with without_locks(monkeypatch):
        with held_partial(target, DIGEST) as partial:
            assert partial.size_bytes() == 0
        os.utime(partial_path(target, DIGEST), (0, 0))
        with given_up(target) as partial:
            assert partial.file.read() == b"begun"
        (private,) = target.parent.iterdir()
        with held_partial(target, DIGEST) as partial:
            assert partial.size_bytes() == 0
        os.utime(private, (0, 0))
        with held_partial(target, DIGEST) as partial:
            assert partial.file.read() == b"begun"
            assert partial.path != private


def test_without_locks_only_what_was_long_left_alone_counts_as_unfinished(
    target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with without_locks(monkeypatch):
        left_behind(target, b"begun")
        assert unfinished(target.parent) == []
        (path,) = target.parent.iterdir()
        os.utime(path, (0, 0))
        assert [one.path for one in unfinished(target.parent)] == [path]


# -- what was left -----------------------------------------------------------------------------------------------------


def test_what_was_left_is_found_and_removed(target: Path, tmp_path: Path) -> None:
    left_behind(target, b"begun")
    older = target.with_name("old.gguf.part")
    older.write_bytes(b"x" * 5000)
    for foreign in ("movie.part", ".x.part", "model.gguf", ".model.gguf.0123456789abcdef.parts"):
        (target.parent / foreign).write_bytes(b"not ours")
    found = unfinished(tmp_path)
    assert [one.path for one in found] == [partial_path(target, DIGEST), older]
    assert found[1].size_bytes >= 5000
    assert all(map(remove_unfinished, found))
    assert not any(map(remove_unfinished, found))
    assert unfinished(tmp_path) == []
    assert len(names(target)) == 4


def test_what_a_living_process_holds_is_not_unfinished(target: Path) -> None:
    left_behind(target, b"begun")
    (found,) = unfinished(target.parent)
    code = (
        "import sys; from pathlib import Path; from llama_mgr.partial import held_partial\n"
        "with held_partial(Path(sys.argv[1]), sys.argv[2]): print(1, flush=True); input(); raise SystemExit"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, target, DIGEST], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert unfinished(target.parent) == []
        assert not remove_unfinished(found)
        assert partial_path(target, DIGEST).exists()
        child.kill()
    assert unfinished(target.parent) == [found]


def test_who_removes_what_was_left_never_disturbs_who_works(target: Path) -> None:
    done = threading.Event()

    def prune() -> None:
        while not done.is_set():
            for one in unfinished(target.parent):
                remove_unfinished(one)

    thread = threading.Thread(target=prune)
    thread.start()
    try:
        for number in range(100):
            with held_partial(target, DIGEST) as partial:
                partial.file.write(b"bad")
                partial.restart()
                partial.file.write(b"%d" % number)
                partial.publish()
            assert target.read_bytes() == b"%d" % number
            with stepped_aside(target, DIGEST):
                assert not target.exists()
            assert target.read_bytes() == b"%d" % number
    finally:
        done.set()
        thread.join()


def test_a_file_that_stepped_aside_for_ever_is_a_whole_partial(target: Path) -> None:
    target.parent.mkdir()
    target.write_bytes(b"whole")
    with suppress(KeyboardInterrupt), stepped_aside(target, DIGEST):
        raise KeyboardInterrupt
    assert not target.exists()
    with held_partial(target, DIGEST) as partial:
        assert partial.file.read() == b"whole"
        partial.publish()


def test_nothing_below_a_missing_directory_is_unfinished(tmp_path: Path) -> None:
    assert unfinished(tmp_path / "missing") == []


def test_a_partial_says_where_it_lies(target: Path) -> None:
    with held_partial(target, DIGEST) as partial:
        assert isinstance(partial, Partial)
        assert (partial.target, partial.path) == (target, partial_path(target, DIGEST))
