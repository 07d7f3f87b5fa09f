"""How rooms tell people what happens: they are handed a Reporter and never print."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Literal, Protocol

Unit = Literal["bytes", "steps", "objects"]


class Progress(Protocol):
    """One running bar."""

    def update(self, done: int, total: int | None = None, detail: str = "") -> None:
        """Move the bar to `done` of `total` units; `detail` is what is worked on now, made printable by the caller."""
        ...


class Reporter(Protocol):
    """What a room may say while it works. Everything it is told is for people, never for programs."""

    def step(self, text: str) -> None:
        """Say that a stage begins: `configure b11434 with recipe cpu`."""
        ...

    def note(self, text: str) -> None:
        """Say something worth knowing: a fallback that was taken, a hit rate, who is waited for."""
        ...

    def warn(self, text: str) -> None:
        """Say something that the user should look at, though work goes on."""
        ...

    def progress(self, title: str, total: int | None, unit: Unit) -> AbstractContextManager[Progress]:
        """Show a bar for as long as the context is open; `total` None means that the end is not known yet."""
        ...


class _SilentProgress:
    def update(self, done: int, total: int | None = None, detail: str = "") -> None:
        """Show nothing."""


class SilentReporter:
    """A Reporter that says nothing, for `--quiet` and for callers that only want the result."""

    def step(self, text: str) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""

    def warn(self, text: str) -> None:
        """Say nothing."""

    @contextmanager
    def progress(self, title: str, total: int | None, unit: Unit) -> Iterator[Progress]:  # noqa: ARG002
        """Show nothing."""
        yield _SilentProgress()
