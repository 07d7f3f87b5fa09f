"""Ctrl-C, SIGTERM and closed pipes: the right status, no orphans, no staging, and the next run works."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.faults import oracle
from tests.faults.arena import NEW, Arena, Templates, ended, waited_for
from tests.faults.conftest import SEED, amount

# To a shell, 130 and death by SIGINT are the same; the latter is what happens in the last moment of a process.
STATUSES = {signal.SIGINT: {130, -2}, signal.SIGTERM: {143, -15}, signal.SIGHUP: {129, -1}}
INSTALL = ("install", "second", NEW, "REPOSITORY")
LISTINGS = (
    ("instance", "list"), ("instance", "which"), ("instance", "show", "base"), ("recipe", "list"),
    ("recipe", "show", "cpu"), ("config", "show"), ("doctor",), ("--help",), ("install", "--help"),
)  # fmt: skip


def _interrupted(arena: Arena, number: signal.Signals, after_s: float) -> list[str]:
    """Send a signal `after_s` seconds after the command began its work; return what is wrong."""
    child = arena.start(*INSTALL)
    waited_for((arena.home / "locks" / "instance-second.lock").exists, 30)
    time.sleep(after_s)
    child.send_signal(number)
    sent_at = time.monotonic()
    done = ended(child)
    took_s = time.monotonic() - sent_at
    problems = []
    too_late = done.status == 0 and took_s < 1  # it came when all was done, and only the answer was left
    if done.status not in STATUSES[number] and not too_late:
        problems.append(f"{number.name}: {done}")
    if "Traceback" in done.stderr:
        problems.append(f"{number.name}: {done.stderr}")
    if took_s > 10:
        problems.append(f"{number.name}: it took {took_s:.1f} s to end")
    if left := oracle.still_working(arena.home, 5):
        problems.append(f"I5 {number.name}: orphans after 5 s: {left}")
    return problems + oracle.violations(arena.home, settled=True)


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("number", STATUSES, ids=lambda number: number.name)
def test_a_signal_ends_everything_and_leaves_nothing(
    number: signal.Signals, arena: Arena, templates: Templates
) -> None:
    chooser = random.Random(SEED)  # noqa: S311 (reproducible, not secret)
    for _ in range(amount(1, 50) or 0):
        arena.restore(templates["one"])
        after_s = chooser.uniform(0.3, 2.5)
        problems = _interrupted(arena, number, after_s)
        assert not problems, f"after {after_s:.3f} s: {problems}"
        arena.must(*INSTALL)
        assert not arena.violations(settled=True)


@pytest.mark.faults
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_stops_compilers_that_say_nothing(number: signal.Signals, arena: Arena, templates: Templates) -> None:
    """Most children die of their closed pipe; one that is silent for minutes must be stopped."""
    arena.restore(templates["one"])
    slow = arena.root / "compilers" / "cc"
    slow.parent.mkdir()
    slow.write_text(f'#!/bin/sh\ncase "$*" in */source/*) sleep 300;; esac\nexec {shutil.which("cc")} "$@"\n')
    slow.chmod(0o755)
    environ = arena.environ(LLAMA_MGR_BUILD_CACHE_ENABLED="false")
    environ["PATH"] = f"{slow.parent}{os.pathsep}{environ['PATH']}"
    child = arena.start(*INSTALL, environ=environ)
    assert waited_for(lambda: any("sleep 300" in line for line in oracle.processes(arena.home).values()), 60)
    child.send_signal(number)
    done = ended(child, 20)
    assert done.status in STATUSES[number], done
    assert not oracle.still_working(arena.home, 5)
    assert not arena.violations(settled=True)


@pytest.mark.faults
def test_a_second_interrupt_does_not_make_a_mess(arena: Arena, templates: Templates) -> None:
    chooser = random.Random(SEED)  # noqa: S311 (reproducible, not secret)
    for _ in range(amount(1, 30) or 0):
        arena.restore(templates["one"])
        child = arena.start(*INSTALL)
        waited_for((arena.home / "locks" / "instance-second.lock").exists, 30)
        time.sleep(chooser.uniform(0, 1.5))
        child.send_signal(signal.SIGINT)
        time.sleep(chooser.uniform(0, 0.05))
        child.send_signal(signal.SIGINT)
        done = ended(child)
        assert done.status in {130, 0, -signal.SIGINT}, done
        assert not oracle.still_working(arena.home, 5)
        assert not arena.violations()
        arena.must(*INSTALL)
        arena.must("instance", "gc")
        assert not arena.violations(settled=True)


@pytest.mark.faults
@pytest.mark.parametrize("words", LISTINGS, ids=" ".join)
@pytest.mark.parametrize("lines", [0, 1])
def test_a_closed_pipe_is_no_error(words: tuple[str, ...], lines: int, arena: Arena, templates: Templates) -> None:
    """What `llama-mgr … | head -1` meets; with 0 lines the reader is gone before the first byte."""
    arena.restore(templates["one"])
    reading, writing = os.pipe()
    child = subprocess.Popen(
        arena.argv(*words), env=arena.environ(), cwd=arena.user_dir, stdin=subprocess.DEVNULL, stdout=writing,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(writing)
    with open(reading, "rb") as reader:  # noqa: PTH123 (a descriptor, not a path)
        for _ in range(lines):
            assert reader.readline()
    done = ended(child)
    assert done.status in {0, 141}, done
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.faults
def test_a_full_device_is_said(arena: Arena, templates: Templates) -> None:
    """Unlike a closed pipe, an answer that cannot be written is an error."""
    arena.restore(templates["one"])
    with Path("/dev/full").open("w") as full:
        child = subprocess.Popen(
            arena.argv("instance", "list"), env=arena.environ(), cwd=arena.user_dir, stdin=subprocess.DEVNULL,
            stdout=full, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        done = ended(child)
    assert done.status == 10, done
    assert "Traceback" not in done.stderr
