"""One progress bar for several files that come one after the other."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from llama_mgr.report import Progress, Reporter


class Coming(NamedTuple):
    """A file that will come: its size (0: unknown), and how much of it is there already."""

    name: str
    size_bytes: int
    present_bytes: int


class Share:
    """The part that one file has of the bar for all of them; it is a Progress itself."""

    def __init__(self, bar: Progress, others_bytes: int, total: int | None, words: str) -> None:
        self._bar = bar
        self._others_bytes = others_bytes
        self._total = total
        self._words = words

    def update(self, done: int, total: int | None = None, detail: str = "") -> None:
        """Move the bar by what this file has; without a `detail`, which file it is, and how far, is said."""
        percent = f" {100 * done // total} %" if self._words and total else ""
        self._bar.update(self._others_bytes + done, self._total or total, detail or f"{self._words}{percent}")


@contextmanager
def shared_bar(title: str, files: Sequence[Coming], reporter: Reporter) -> Iterator[list[Share]]:
    """Show a bar for as long as the context is open, and give each of `files` its share, in their order."""
    sizes = [file.size_bytes for file in files]
    present = [file.present_bytes for file in files]
    total = sum(sizes) if all(sizes) else None
    with reporter.progress(title, total, "bytes") as bar:
        if sum(present):
            bar.update(sum(present), total)
        yield [
            Share(
                bar,
                sum(sizes[:number]) + sum(present[number + 1 :]),
                total,
                f"file {number + 1}/{len(files)}" if len(files) > 1 else "",
            )
            for number, file in enumerate(files)
        ]
