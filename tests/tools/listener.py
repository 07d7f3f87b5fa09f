"""A Reporter that remembers what it was told."""

from collections.abc import Iterator
from contextlib import contextmanager

from llama_mgr.report import Progress, SilentReporter, Unit


class Listener(SilentReporter):
    """Shows nothing, and keeps every note, warning and title of a progress bar."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.bars: list[str] = []

    @property
    def lines(self) -> list[str]:
        """All notes, then all warnings."""
        return [*self.notes, *self.warnings]

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)

    @contextmanager
    def progress(self, title: str, total: int | None, unit: Unit) -> Iterator[Progress]:
        self.bars.append(title)
        with super().progress(title, total, unit) as bar:
            yield bar
