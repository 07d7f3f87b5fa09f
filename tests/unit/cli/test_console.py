import io
import sys

import pytest

from llama_mgr.cli.console import ConsoleReporter


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    def write(self, _: str) -> int:
        raise BrokenPipeError


def test_titles_and_details_are_not_markup(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    reporter = ConsoleReporter()
    reporter.note("[/nothing] [bold]x")
    with reporter.progress("fetch file:///srv/[/x]/llama.cpp", 3, "steps") as progress:
        progress.update(1, 3, "[/detail]")
    assert "[/x]" in terminal.getvalue()
    assert "[/nothing] [bold]x" in terminal.getvalue()


def test_work_goes_on_when_nobody_reads_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Gone())
    reporter = ConsoleReporter()
    reporter.step("one")
    with reporter.progress("two", None, "steps") as progress:
        progress.update(1)


def test_without_a_terminal_there_are_plain_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_mgr.cli.console._PLAIN_INTERVAL_S", 0)
    reporter = ConsoleReporter()
    reporter.step("build")
    with reporter.progress("compile", None, "steps") as progress:
        progress.update(1, 4, "a.c\x1b[31m")
    said = capsys.readouterr().err
    assert said.startswith("==> build\n    compile [1/4] a.c\\x1b[31m")
