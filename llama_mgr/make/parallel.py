"""Several jobs at once in threads, each of which waits for a program; Ctrl-C ends the programs of all."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

from llama_mgr.process import Children

Result = TypeVar("Result")


def done_together(jobs: Sequence[Callable[[Children], Result]], at_once: int) -> list[Result]:
    """Do all `jobs`, `at_once` of them together; return what they return, in their order.

    When one fails, or the user interrupts, no other begins, and the programs that run are ended.

    Args:
        jobs: each is handed the children that it must note its program in.
        at_once: how many threads there are.
    """
    children = Children()
    with ThreadPoolExecutor(max(at_once, 1)) as pool:
        futures = [pool.submit(job, children) for job in jobs]
        try:
            for future in wait(futures, return_when="FIRST_EXCEPTION").done:
                future.result()  # the first failure, before others that only follow from it
            return [future.result() for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            children.stop_all()
            raise
