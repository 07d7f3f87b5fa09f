"""Long programs that are watched: their lines, their memory, and that several of them end together."""

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from llama_mgr import process
from llama_mgr.process import Children, Watched

ENVIRON = {"PATH": os.environ["PATH"]}
MIB = 1024 * 1024


def is_gone(pid: int, within_s: float = 5.0) -> bool:
    """Tell whether a process has ended; a zombie that nobody has waited for yet has."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
            os.kill(pid, 0)
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def watched(script: str, **more: object) -> tuple[Watched, list[str], bytes]:
    log, lines = io.BytesIO(), list[str]()
    ended = process.watch(["/bin/sh", "-c", script], environ=ENVIRON, log=log, on_line=lines.append, **more)  # type: ignore[arg-type]
    return ended, lines, log.getvalue()


def test_status_lines_and_log_of_both_streams() -> None:
    ended, lines, log = watched("echo one; echo two >&2; exit 3")
    assert (ended.status, lines, log) == (3, ["one", "two"], b"one\ntwo\n")
    assert watched("kill -KILL $$")[0].status == -signal.SIGKILL


def told_peak(child: str, own_bytes: int) -> int | None:
    """Return the peak memory that a process with `own_bytes` tells of a Python program that it watched."""
    parent = f"""
import io, json, os, sys
from llama_mgr import process
own = bytearray({own_bytes})
for place in range(0, len(own), 4096): own[place] = 1
environ = {{"PATH": os.environ["PATH"]}}
watched = process.watch([sys.executable, "-c", {child!r}], environ=environ, log=io.BytesIO(), on_line=print)
print(json.dumps(watched.peak_bytes))
"""
    told = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=True)
    peak: int | None = json.loads(told.stdout)
    return peak


@pytest.mark.parametrize("own_bytes", [0, 500 * MIB], ids=["small parent", "large parent"])
def test_the_most_memory_is_the_child_s_own_in_bytes(own_bytes: int) -> None:
    held = f"held = bytearray({200 * MIB})\nfor place in range(0, len(held), 4096): held[place] = 1"
    peak = told_peak(f"{held}\nimport time; time.sleep(0.5)\ndel held", own_bytes)
    assert peak is not None
    assert 200 * MIB < peak < 300 * MIB


def test_no_memory_is_told_that_nobody_saw() -> None:
    assert told_peak("pass", 500 * MIB) is None


def test_standard_output_may_go_elsewhere(tmp_path: Path) -> None:
    with (tmp_path / "out").open("w+b") as out:
        ended, lines, log = watched("echo result; echo remark >&2", stdout=out)
        out.seek(0)
        assert out.read() == b"result\n"
    assert (ended.status, lines, log) == (0, ["remark"], b"remark\n")


def test_other_bytes_may_end_a_line() -> None:
    _, lines, log = watched(r"printf '[1]5.2,[2]5.4,\nlast, one\rmore'", line_ends=b"\r,")
    assert lines == ["[1]5.2", "[2]5.4", "last", " one", "more"]
    assert log == b"[1]5.2,[2]5.4,\nlast, one\rmore"
    assert watched("echo a,b")[1] == ["a,b"]


def test_lines_without_end_and_bytes_that_are_no_text_are_bounded() -> None:
    _, lines, log = watched(r"head -c 300000 /dev/zero | tr '\0' x; printf '\377\n'; echo next")
    assert lines[-1] == "next"
    assert all(len(line) <= 64 * 1024 for line in lines)
    assert len(log) == 300_007
    assert [len(line) for line in watched(r"head -c 300000 /dev/zero | tr '\0' x")[1]] == [64 * 1024]
    assert watched(r"printf 'a\377b\n'")[1] == ["a\ufffdb"]


def test_a_listener_that_fails_ends_the_program() -> None:
    pids: list[int] = []

    def heard(line: str) -> None:
        pids.append(int(line))
        raise ValueError(line)

    began = time.monotonic()
    with pytest.raises(ValueError, match=r"\d"):
        process.watch(["/bin/sh", "-c", "echo $$; sleep 60"], environ=ENVIRON, log=io.BytesIO(), on_line=heard)
    assert time.monotonic() - began < 5
    assert is_gone(pids[0])


def test_all_children_of_several_threads_are_ended_with_their_own() -> None:
    children, ready, pids, statuses = Children(), threading.Semaphore(0), list[int](), list[int]()

    def heard(line: str) -> None:
        pids.append(int(line))
        ready.release()

    def work() -> None:
        script = ["/bin/sh", "-c", "trap '' TERM; sleep 60 & echo $!; wait"]
        ended = process.watch(script, environ=ENVIRON, log=io.BytesIO(), on_line=heard, children=children)
        statuses.append(ended.status)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert all(ready.acquire(timeout=10) for _ in threads)
    children.stop_all()
    for thread in threads:
        thread.join(10)
    assert statuses == [-signal.SIGKILL] * 3
    assert all(is_gone(pid) for pid in pids)


def test_what_begins_after_the_end_of_all_ends_at_once() -> None:
    children = Children()
    children.stop_all()
    began = time.monotonic()
    ended, _, _ = watched("sleep 60", children=children)
    assert ended.status == -signal.SIGKILL
    assert time.monotonic() - began < 5


def test_the_end_of_all_leaves_other_programs_alone() -> None:
    children, done = Children(), list[Watched]()
    other = threading.Thread(target=lambda: done.append(watched("sleep 0.3; exit 7", children=Children())[0]))
    other.start()
    assert watched("exit 5", children=children)[0].status == 5
    children.stop_all()
    other.join(10)
    assert done[0].status == 7
    assert children._running == set()
