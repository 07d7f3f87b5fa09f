"""URLs are shown without the secrets in them, and otherwise as they are."""

import time

import pytest

from llama_mgr.text import story_without_secrets, without_secrets


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("redis://:s@cret@host:6379", "redis://***@host:6379"),
        ("https://user@host/x", "https://***@host/x"),
        ("https://h/list?token=SECRET", "https://h/list?token=***"),
        ("https://h/list?a=1&token=SEC=RET&SECRET#part", "https://h/list?a=***&token=***&***#part"),
        ("redis+unix:/run/r?password=abc", "redis+unix:/run/r?password=***"),
        ("http://h/c|bearer-token=abc|read-only", "http://h/c|bearer-token=***|read-only"),
        ("http://h/c|header=Authorization: Basic abc", "http://h/c|header=***"),
        ('remote = ["redis://:a@h", "redis://:b@h"]', 'remote = ["redis://***@h", "redis://***@h"]'),
        ("-DURLS=https://u:p@a/x;https://u:p@b/x", "-DURLS=https://***@a/x;https://***@b/x"),
    ],
)
def test_secrets_in_urls_are_left_out(text: str, shown: str) -> None:
    assert without_secrets(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "https://host/org/_packaging/feed@Local/list/",
        "git@host:fork.git",
        "-DCMAKE_CXX_FLAGS=-O2",
        "pattern = '(?P<version>a=b)?&c=d'",
        "10G",
        "",
    ],
)
def test_what_holds_no_secret_stays_as_it_is(text: str) -> None:
    assert without_secrets(text) == text


@pytest.mark.parametrize("part", ["://", "://a", "@", "://@", ":/?", "?&", "&=", "|header=", "a", "' "])
def test_long_text_takes_no_time(part: str) -> None:
    started = time.perf_counter()
    without_secrets(part * 100_000)
    without_secrets(":/?" + part * 100_000)
    assert time.perf_counter() - started < 2


def test_a_traceback_has_no_query_of_a_relative_url() -> None:
    told = "MaxRetryError: Max retries exceeded with url: /m.gguf?token=SECRET&x=1 (Caused by https://u:p@h/?k=v)"
    shown = story_without_secrets(told)
    assert "SECRET" not in shown
    assert "u:p" not in shown
    assert shown.startswith("MaxRetryError: Max retries exceeded with url: /m.gguf?***")
