"""Several commands on one home at once: one builds, the others wait and say for whom; no pointer ever dangles."""

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.faults import oracle, strace
from tests.faults.arena import NEW, OLD, Arena, Ended, Templates, ended, waited_for
from tests.faults.conftest import SEED, amount

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]


def _counting_compilers(arena: Arena, count_file: Path) -> dict[str, str]:
    """Return an environment whose compilers write a line for each run; no compiler cache stands before them."""
    directory = arena.root / "compilers"
    directory.mkdir()
    for name in ("cc", "c++"):
        real = shutil.which(name)
        wrapper = directory / name
        wrapper.write_text(f'#!/bin/sh\necho "$@" >> {count_file}\nexec {real} "$@"\n')
        wrapper.chmod(0o755)
    environ = arena.environ(LLAMA_MGR_BUILD_CACHE_ENABLED="false")
    return environ | {"PATH": f"{directory}{os.pathsep}{environ['PATH']}"}


def _compiled(count_file: Path) -> int:
    """Return how often a compiler made an object of the project itself (and not of a test of cmake's)."""
    return sum(1 for line in count_file.read_text().splitlines() if " -c " in line and "/source/" in line)


def _answers(done: list[Ended]) -> list[str]:
    return sorted(json.loads(one.stdout)["action"] for one in done)


def test_two_installs_of_one_name_build_once_and_say_for_whom_they_wait(arena: Arena, templates: Templates) -> None:
    arena.restore(templates["one"])
    first = arena.start("install", "second", NEW, "REPOSITORY", "--json")
    lock_file = arena.home / "locks" / "instance-second.lock"
    assert waited_for(lambda: lock_file.exists() and str(first.pid) in lock_file.read_text(), 30)
    second = arena.start("install", "second", NEW, "REPOSITORY", "--json")
    done = [ended(first), ended(second)]
    assert [one.status for one in done] == [0, 0], done
    assert [json.loads(one.stdout)["action"] for one in done] == ["built", "unchanged"]
    assert f"waiting for instance-second: pid {first.pid}" in done[1].stderr
    assert "waiting for" not in done[0].stderr
    assert not arena.violations(settled=True)


def test_eight_installs_of_one_name_compile_once(arena: Arena, templates: Templates) -> None:
    arena.restore(templates["one"])
    count_file = arena.root / "compiled"
    environ = _counting_compilers(arena, count_file)
    done = ended(arena.start("install", "alone", NEW, "REPOSITORY", "--json", environ=environ))
    assert done.status == 0, done
    alone = _compiled(count_file)
    assert alone > 0
    arena.restore(templates["one"])
    count_file.unlink()
    children = [arena.start("install", "x", NEW, "REPOSITORY", "--json", environ=environ) for _ in range(8)]
    everybody = [ended(child) for child in children]
    assert [one.status for one in everybody] == [0] * 8, everybody
    assert _answers(everybody) == ["built", *["unchanged"] * 7]
    assert _compiled(count_file) == alone
    assert not arena.violations(settled=True)


def test_installs_of_one_build_under_many_names_compile_once(arena: Arena, templates: Templates) -> None:
    arena.restore(templates["one"])
    children = [arena.start("install", f"name{number}", NEW, "REPOSITORY", "--json") for number in range(4)]
    everybody = [ended(child) for child in children]
    assert [one.status for one in everybody] == [0] * 4, everybody
    assert oracle.instance_names(arena.home) == ["base", "name0", "name1", "name2", "name3"]
    assert len(list((arena.home / "builds").iterdir())) == 2
    assert sum(json.loads(one.stdout)["action"] == "built" for one in everybody) == 1
    assert not arena.violations(settled=True)


def test_first_installs_in_an_empty_home_all_succeed(arena: Arena, templates: Templates) -> None:
    """They meet while home, mirror and locks are being made."""
    arena.restore(templates["empty"])
    children = [arena.start("install", f"name{number}", OLD, "REPOSITORY") for number in range(3)]
    everybody = [ended(child) for child in children]
    assert [one.status for one in everybody] == [0] * 3, everybody
    assert not arena.violations(settled=True)


def test_uninstall_raced_with_install_and_exec_never_dangles(arena: Arena, templates: Templates) -> None:
    chooser = random.Random(SEED)  # noqa: S311 (reproducible, not secret)
    arena.restore(templates["two"])
    exec_words = ("exec", "-i", "second", "llama-server", "--", "--version")
    for _ in range(amount(2, 100) or 0):
        contenders = [("uninstall", "second"), ("install", "second", NEW, "REPOSITORY"), exec_words, ("use", "second")]
        chooser.shuffle(contenders)
        children = []
        for words in contenders:
            children.append((words, arena.start(*words)))
            time.sleep(chooser.uniform(0, 0.15))
        for words, child in children:
            done = ended(child)
            # 3: there is no such instance just now; 4: `exec` runs a program of it
            fitting = {"install": {0}, "uninstall": {0, 3, 4}}.get(words[0], {0, 3})
            assert done.status in fitting, (words, done)
        assert not arena.violations(interrupted=0)


# The exact races: one command is held for a moment before one of its disk-changing calls, and meanwhile another one
# runs again and again.
_INTERLEAVED = {
    "install-gc": ("rubbish", ("install", "third", NEW, "REPOSITORY"), ("instance", "gc")),
    "gc-install": ("rubbish", ("instance", "gc"), ("install", "third", NEW, "REPOSITORY")),
    "install-uninstall": ("two", ("install", "third", NEW, "REPOSITORY"), ("uninstall", "second")),
    "uninstall-install": ("two", ("uninstall", "second"), ("install", "third", NEW, "REPOSITORY")),
    "use-uninstall": ("two", ("use", "second"), ("uninstall", "second")),
    "uninstall-use": ("two", ("uninstall", "second"), ("use", "second")),
    "shims-uninstall": ("two", ("shims",), ("uninstall", "second")),
    "build-gc": ("one", ("install", "second", NEW, "REPOSITORY"), ("instance", "gc")),
}


@pytest.mark.parametrize("name", _INTERLEAVED)
@pytest.mark.usefixtures("needs_strace")
def test_no_interleaving_dangles(name: str, arena: Arena, templates: Templates) -> None:
    template, held, meanwhile = _INTERLEAVED[name]
    arena.restore(templates[template])
    points = strace.record(arena, held)
    for point in strace.sample(points, amount(1, None), SEED):
        arena.restore(templates[template])
        child = strace.delayed(arena, held, point, delay_s=1.0)
        others = []
        while child.poll() is None:
            others.append(arena.run(*meanwhile))
        done = ended(child)
        assert done.status in {0, 3} if held[0] in {"use", "uninstall"} else done.status == 0, (point, done, others)
        for other in others:
            assert other.status in {0, 3} if meanwhile[0] in {"use", "uninstall"} else other.status == 0, (point, other)
        assert not arena.violations(interrupted=0), point


def test_a_killed_holder_does_not_block_the_next(arena: Arena, templates: Templates) -> None:
    """I6: the lock is free in under a second, though orphans of the killed command may still run."""
    arena.restore(templates["one"])
    first = arena.start("install", "second", NEW, "REPOSITORY")
    assert waited_for(lambda: any((arena.home / "staging").glob("*/build/CMakeCache.txt")), 60)
    first.send_signal(signal.SIGKILL)
    ended(first)
    began = time.monotonic()
    done = arena.run("uninstall", "second")  # takes the instance's lock, and finds nothing to do
    assert done.status == 3, done
    assert "waiting for" not in done.stderr
    assert time.monotonic() - began < 5
    arena.must("install", "second", NEW, "REPOSITORY")
    assert not oracle.still_working(arena.home, 10)
    arena.must("instance", "gc")
    assert not arena.violations(settled=True)
