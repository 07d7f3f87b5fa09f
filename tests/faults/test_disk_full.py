"""Disks of all sizes: install refuses before the first byte, or fails with one clear error; nothing is broken."""

from collections.abc import Iterator
from contextlib import suppress

import pytest

from tests.faults import mounts, oracle
from tests.faults.arena import NEW, OLD, Arena, Ended, Templates, ended, waited_for
from tests.faults.conftest import FULL, amount

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]

_LARGE_KIB = 64 << 20  # of a tmpfs, which takes no more memory than its files
INSTALL = ("install", "second", NEW, "REPOSITORY")


@pytest.fixture
def disk(arena: Arena) -> Iterator[Arena]:
    """An arena whose home lies on a tmpfs that looks large and can be made small."""
    reason = mounts.no_tmpfs()
    if reason is not None:
        pytest.skip(reason)
    elsewhere = Arena(arena.root, arena.url, home=arena.root / "disk" / "home")
    with mounts.small_disk(elsewhere.home.parent, _LARGE_KIB):
        yield elsewhere


@pytest.mark.parametrize("free_kib", [0, 64, 1024, 16 * 1024, 200 * 1024] if FULL else [0, 1024])
def test_a_small_disk_is_refused_before_the_first_compile(free_kib: int, disk: Arena, templates: Templates) -> None:
    disk.restore(templates["one"])
    mounts.resize(disk.home.parent, mounts.used_kib(disk.home.parent) + free_kib)
    done = disk.run(*INSTALL)
    assert done.status == 10, done
    assert str(disk.home) in done.stderr
    assert "==> configure" not in done.stderr
    assert not disk.violations(settled=True)
    mounts.resize(disk.home.parent, _LARGE_KIB)
    disk.must(*INSTALL)
    assert not disk.violations(settled=True)


def _filled_up_at(disk: Arena, stage: str, free_kib: int) -> Ended:
    """Install, and make the disk nearly full once `stage` exists in staging."""
    child = disk.start(*INSTALL)
    waited_for(lambda: child.poll() is not None or any((disk.home / "staging").glob(stage)), 60)
    mounts.leave_free(disk.home.parent, free_kib)
    return ended(child)


@pytest.mark.parametrize("free_kib", [0, 32, 256, 1024] if FULL else [0, 256])
def test_a_disk_that_fills_up_later_is_one_clear_error(free_kib: int, disk: Arena, templates: Templates) -> None:
    for stage in ("*", "*/source/CMakeLists.txt", "*/build/CMakeCache.txt", "*/prefix/bin")[: amount(1, 4)]:
        disk.restore(templates["one"])
        done = _filled_up_at(disk, stage, free_kib)
        if done.status != 0:
            assert done.status in {9, 10}, done
            assert "o space" in done.stderr or "disk" in done.stderr, done
            assert "Traceback" not in done.stderr
        assert not oracle.still_working(disk.home, 5)
        assert not disk.violations(settled=done.status == 0)
        mounts.resize(disk.home.parent, _LARGE_KIB)
        disk.must(*INSTALL)
        disk.must("instance", "gc")
        assert not disk.violations(settled=True)


def test_switching_works_on_a_full_disk_or_says_so(disk: Arena, templates: Templates) -> None:
    disk.restore(templates["two"])
    mounts.resize(disk.home.parent, mounts.used_kib(disk.home.parent))
    filler = disk.home.parent / "filler"
    with suppress(OSError), filler.open("wb") as file:
        while True:
            file.write(b"x" * 4096)
            file.flush()
    rollback, update = ("instance", "rollback", "second"), ("update", "base", NEW, "--ignore-python")
    for words in (("use", "second"), rollback, update, ("uninstall", "second")):
        done = disk.run(*words)
        assert done.status in {0, 3, 10}, (words, done)
        assert "Traceback" not in done.stderr
        assert not disk.violations()
    assert disk.run("exec", "-i", "base", "llama-server", "--", "--version").status == 0
    filler.unlink(missing_ok=True)
    mounts.resize(disk.home.parent, _LARGE_KIB)
    disk.must("install", "base", OLD, "REPOSITORY")
    disk.must("instance", "gc")
    assert not disk.violations(settled=True)
