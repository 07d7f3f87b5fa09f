import io
import itertools
import re
import sys

import pytest

from llama_mgr.cli.console import ConsoleReporter, Output


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


def test_eighty_columns_have_room_for_bar_amount_speed_time_and_file(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    clock = itertools.count()
    monkeypatch.setattr("rich.console.monotonic", lambda: float(next(clock)))
    title = "pull bartowski/Qwen2.5-72B-Instruct-GGUF:Q4_K_M"
    with ConsoleReporter().progress(title, 40 << 30, "bytes") as progress:
        for gibibytes in range(1, 20):
            progress.update(gibibytes << 30, 40 << 30, "file 2/3 45 %")
    last = re.split(r"[\r\n]", re.sub(r"\x1b\[[0-9?]*[A-Za-z]", "", terminal.getvalue()))
    shown = [line for line in last if "19.0/40.0 GiB" in line]
    assert shown, terminal.getvalue()
    assert len(shown[-1]) <= 80
    assert re.search(r"pull bartowski/\S*… .*━.* 19\.0/40\.0 GiB \S+ [KMG]iB/s \d:\d\d:\d\d file 2/3 45 %", shown[-1])


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


HOSTILE = (
    "# Title\n\nSee [here](https://a.test/\x1b]8;;https://evil.test\x07x) \x9b31m\u202e\n\n```x\ncode\x1b[2J\n```\n"
)


def test_markdown_is_rendered_on_a_terminal_and_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("NO_COLOR", "1")
    Output().markdown(HOSTILE + "> " * 500 + "deep")
    said = terminal.getvalue()
    assert "# Title" not in said
    assert "Title" in said
    assert "https://a.test/" in said
    assert "\x1b]8" not in said
    assert "\x1b[2J" not in said
    assert not set(said) & {"\x07", "\x9b", "\u202e"}


def test_markdown_is_plain_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    Output().markdown(HOSTILE)
    said = capsys.readouterr().out
    assert said.startswith("# Title\n\nSee [here](https://a.test/\\x1b]8")
    assert "\x1b" not in said


def test_what_an_earlier_run_fetched_tells_nothing_of_the_speed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 0.0, 100.0, 100.0])
    monkeypatch.setattr("llama_mgr.cli.console.time.monotonic", lambda: next(clock))
    with ConsoleReporter().progress("pull", 2000, "bytes") as progress:
        progress.update(1000, 2000)
        progress.update(1200, 2000)
    assert "6 min 40 s left" in capsys.readouterr().err
