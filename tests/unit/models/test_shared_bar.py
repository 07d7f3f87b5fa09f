"""One bar for several files: it never jumps, whatever was there before."""

from collections.abc import Iterator
from contextlib import contextmanager

from llama_mgr.models.shared_bar import Coming, shared_bar
from llama_mgr.report import Progress, SilentReporter, Unit


class Bars(SilentReporter):
    """Remembers where the bar was."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, int | None, str]] = []

    @contextmanager
    def progress(self, title: str, total: int | None, unit: Unit) -> Iterator[Progress]:  # noqa: ARG002
        yield self

    def update(self, done: int, total: int | None = None, detail: str = "") -> None:
        self.seen.append((done, total, detail))


def test_each_file_moves_the_bar_by_its_part() -> None:
    bars = Bars()
    with shared_bar("pull x", [Coming("a", 100, 40), Coming("b", 300, 200)], bars) as (first, second):
        for done in (50, 100):
            first.update(done, 100)
        for done in (200, 300):
            second.update(done, 300)
    assert [done for done, _, _ in bars.seen] == [240, 250, 300, 300, 400]
    assert {total for _, total, _ in bars.seen} == {400}
    assert [detail for _, _, detail in bars.seen] == ["", *(f"file 1/2 {n} %" for n in (50, 100)),
                                                      *(f"file 2/2 {n} %" for n in (66, 100))]  # fmt: skip


def test_one_file_needs_no_name_and_may_have_no_size() -> None:
    bars = Bars()
    with shared_bar("pull x", [Coming("a", 0, 0)], bars) as (only,):
        only.update(10)
        only.update(20, 50)
    assert bars.seen == [(10, None, ""), (20, 50, "")]
