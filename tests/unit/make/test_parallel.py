"""Jobs side by side, each with a program: the order of what they give, and that none outlives a failure."""

import io
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from llama_mgr import process
from llama_mgr.errors import QuantizeFailedError
from llama_mgr.make.parallel import done_together
from llama_mgr.process import Children

ENVIRON = {"PATH": os.environ["PATH"]}


def ran(children: Children, script: str, begun: threading.Semaphore | None = None) -> int:
    """Run a shell script among `children`; `begun` is told when it says its first line."""

    def heard(_: str) -> None:
        if begun is not None:
            begun.release()

    argv = ["/bin/sh", "-c", script]
    return process.watch(argv, environ=ENVIRON, log=io.BytesIO(), on_line=heard, children=children).status


def test_results_come_in_the_order_of_the_jobs() -> None:
    waits_s = (0.3, 0.0, 0.15)
    jobs = [lambda children, s=s, place=place: ran(children, f"sleep {s}; exit {place}")
            for place, s in enumerate(waits_s)]  # fmt: skip
    assert done_together(jobs, 3) == [0, 1, 2]
    assert done_together(jobs, 1) == [0, 1, 2]
    assert done_together([], 4) == []


@pytest.mark.parametrize(("at_once", "expected"), [(1, 1), (2, 2), (0, 1), (9, 4)])
def test_so_many_run_together(at_once: int, expected: int) -> None:
    guard, now, most = threading.Lock(), [0], [0]

    def job(_: Children) -> None:
        with guard:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.1)
        with guard:
            now[0] -= 1

    done_together([job] * 4, at_once)
    assert most[0] == expected


def test_the_failure_of_one_ends_the_programs_of_the_others() -> None:
    begun, statuses = threading.Semaphore(0), list[int]()

    def long(children: Children) -> None:
        statuses.append(ran(children, "echo begun; sleep 20", begun))

    def failing(_: Children) -> None:
        assert all(begun.acquire(timeout=10) for _ in range(2))
        raise QuantizeFailedError("cannot quantize", "x")

    began = time.monotonic()
    with pytest.raises(QuantizeFailedError):
        done_together([long, long, failing], 3)
    assert time.monotonic() - began < 10
    assert statuses == [-signal.SIGKILL] * 2


def test_the_first_failure_is_told_and_not_what_follows_from_it() -> None:
    begun = threading.Semaphore(0)

    def long(children: Children) -> None:
        if ran(children, "echo begun; sleep 20", begun) != 0:
            raise ValueError("it was ended")

    def failing(_: Children) -> None:
        assert begun.acquire(timeout=10)
        raise QuantizeFailedError("cannot quantize", "x")

    with pytest.raises(QuantizeFailedError):
        done_together([long, failing], 2)


def test_after_a_failure_the_jobs_that_wait_are_not_done() -> None:
    ended: list[int] = []

    def failing(_: Children) -> None:
        time.sleep(0.05)
        raise QuantizeFailedError("cannot quantize", "x")

    def waiting(children: Children) -> None:
        ended.append(ran(children, "sleep 20"))

    began = time.monotonic()
    with pytest.raises(QuantizeFailedError):
        done_together([failing, *[waiting] * 8], 1)
    assert time.monotonic() - began < 10
    # The thread that failed may take the next job before all are cancelled; the program of that one ends at once.
    assert ended in ([], [-signal.SIGKILL])


def test_ctrl_c_ends_the_programs_of_all_jobs(tmp_path: Path) -> None:
    begun = threading.Semaphore(0)

    def long(children: Children) -> int:
        return ran(children, f"echo $$ >> {tmp_path}/pids; echo begun; sleep 20", begun)

    def interrupt() -> None:
        assert all(begun.acquire(timeout=10) for _ in range(2))
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    killer = threading.Thread(target=interrupt)
    killer.start()
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        done_together([long, long, long], 2)
    killer.join()
    assert time.monotonic() - began < 10
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
