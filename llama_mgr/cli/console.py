"""What people see: tables and answers on stdout, progress and remarks on stderr."""

import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, TextIO

from llama_mgr.report import Progress, SilentReporter, Unit
from llama_mgr.text import duration_words, escaped, printable, size_words

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import ProgressColumn, Task, TaskID

_PLAIN_INTERVAL_S = 10.0


def _rich_console(file: TextIO) -> "Console":
    from rich.console import Console

    return Console(file=file, highlight=False, soft_wrap=True)


class Output:
    """Answers on stdout: sentences and tables for people."""

    @cached_property
    def _console(self) -> "Console":
        return _rich_console(sys.stdout)

    def line(self, text: str = "", style: str = "") -> None:
        """Print one line, controls escaped; `style` is a rich style such as `bold`, dropped where colours are off."""
        if style and sys.stdout.isatty():
            self._console.print(escaped(text), style=style, markup=False)
        else:
            print(escaped(text))  # noqa: T201 (this is the one sink)

    def lines(self, texts: Sequence[str]) -> None:
        """Print one line for each of `texts`, controls escaped."""
        for text in texts:
            self.line(text)

    def raw(self, text: str) -> None:
        """Print `text` as it is, for programs that read a path or a script from us."""
        print(text)  # noqa: T201

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Print a table, or plain aligned columns where stdout is not a terminal."""
        if not sys.stdout.isatty():
            self._plain_table(columns, rows)
            return
        from rich import box
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(Text(escaped(cell)) for cell in row))
        self._console.print(table)

    def markdown(self, text: str) -> None:
        """Print Markdown: rendered on a terminal, with the addresses of links written out, and as it is elsewhere."""
        lines = [escaped(line) for line in text.split("\n")]
        if not sys.stdout.isatty():
            for line in lines:
                print(line)  # noqa: T201 (this is the one sink)
            return
        from rich.markdown import Markdown

        self._console.print(Markdown("\n".join(lines), hyperlinks=False), soft_wrap=False)

    def _plain_table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        rows = [[escaped(cell) for cell in row] for row in rows]
        widths = [max(len(cell) for cell in cells) for cells in zip(columns, *rows, strict=True)]
        for cells in (columns, *rows):
            self.line("  ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)).rstrip())


class ConsoleReporter:
    """A Reporter for stderr: rich bars on a terminal, a line every ten seconds elsewhere."""

    @cached_property
    def _console(self) -> "Console":
        return _rich_console(sys.stderr)

    @cached_property
    def _is_terminal(self) -> bool:
        return sys.stderr.isatty() and os.environ.get("TERM", "") not in {"", "dumb"}

    def step(self, text: str) -> None:
        """Print a stage: `==> configure`."""
        self._say("==>", text, "bold cyan")

    def note(self, text: str) -> None:
        """Print a remark."""
        self._say("   ", text, "")

    def warn(self, text: str) -> None:
        """Print a warning."""
        self._say("warning:", text, "yellow")

    def _say(self, sign: str, text: str, style: str) -> None:
        with suppress(OSError, ValueError):  # nobody reads it any more; the work goes on
            if self._is_terminal:
                from rich.text import Text

                self._console.print(Text.assemble((sign, style), " ", escaped(text)))
            else:
                print(f"{sign} {escaped(text)}", file=sys.stderr, flush=True)  # noqa: T201

    @contextmanager
    def progress(self, title: str, total: int | None, unit: Unit) -> Iterator[Progress]:
        """Show a bar (or now and then a line) for as long as the context is open."""
        if not self._is_terminal:
            yield _PlainProgress(self, title, unit)
            return
        with _rich_progress(self._console, unit) as bars:
            yield _RichBar(bars, bars.add_task(title, total=total, detail=""))


class _PlainProgress:
    def __init__(self, reporter: ConsoleReporter, title: str, unit: Unit) -> None:
        self._reporter, self._title, self._unit = reporter, title, unit
        self._said_at = self._started_at = time.monotonic()
        self._first_done: int | None = None

    def update(self, done: int, total: int | None = None, detail: str = "") -> None:
        now = time.monotonic()
        if self._first_done is None:
            self._first_done = done  # of an earlier run; it tells nothing of the speed
        if now - self._said_at < _PLAIN_INTERVAL_S:
            return
        self._said_at = now
        amount = size_words if self._unit == "bytes" else str
        fresh = done - self._first_done
        left = (
            f", {duration_words((now - self._started_at) * (total - done) / fresh)} left" if total and fresh > 0 else ""
        )
        place = f"[{amount(done)}/{amount(total)}]" if total else f"[{amount(done)}]"
        self._reporter.note(f"{self._title} {place} {printable(detail, 80)}{left}")


class _RichBar:
    def __init__(self, bars: "RichProgress", task: "TaskID") -> None:
        self._bars, self._task = bars, task

    def update(self, done: int, total: int | None = None, detail: str = "") -> None:
        self._bars.update(self._task, completed=done, total=total, detail=printable(detail, 60))


def _rich_progress(console: "Console", unit: Unit) -> "RichProgress":
    """Return bars of one line each: what is long is shortened, so that bar, amount, speed and time fit 80 columns."""
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    def flexible(ratio: int, min_width: int) -> Column:
        return Column(ratio=ratio, min_width=min_width, no_wrap=True, overflow="ellipsis")

    amount = DownloadColumn(binary_units=True) if unit == "bytes" else MofNCompleteColumn()
    detail = Column(no_wrap=True) if unit == "bytes" else flexible(3, 10)
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=flexible(3, 12)),
        BarColumn(bar_width=None, table_column=flexible(2, 8)),
        amount,
        *([_speed_column()] if unit == "bytes" else []),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}", markup=False, table_column=detail),
        console=console,
        transient=True,
        expand=True,
    )


def _speed_column() -> "ProgressColumn":
    """Return a column with the speed in the units of the amounts; rich has decimal ones."""
    from rich.progress import ProgressColumn
    from rich.text import Text

    class Speed(ProgressColumn):
        def render(self, task: "Task") -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{size_words(int(speed))}/s", style="progress.data.speed")

    return Speed()


def reporter_for(*, quiet: bool) -> "ConsoleReporter | SilentReporter":
    """Return what rooms report to: nothing when `quiet`, else stderr."""
    return SilentReporter() if quiet else ConsoleReporter()
