"""`search`, against a hub that runs here."""

from collections.abc import Iterator

import pytest

from tests.conftest import Cli
from tests.tools.local_hub import LocalHub
from tests.tools.local_hub_faults import Fault

FILES = {"m-Q4_K_M.gguf": b"GGUF", "m-Q8_0.gguf": b"GGUF"}


@pytest.fixture
def hub(environ: dict[str, str]) -> Iterator[LocalHub]:
    with LocalHub() as made:
        made.add("owner/model-GGUF", FILES, downloads=12345, likes=7, gated="auto")
        made.add("liar/model-GGUF", {"m.bin": b"x"}, tags=("gguf",), downloads=10**9)
        environ.update(made.environ)
        yield made


def test_hits_are_a_table(hub: LocalHub, cli: Cli) -> None:
    head, row, hint = cli.done("search", "model").stdout.splitlines()
    assert head.split() == ["repository", "ggufs", "downloads", "likes", "updated", "gated"]
    assert row.split() == ["owner/model-GGUF", "2", "12,345", "7", "2026-10-01", "yes"]
    assert hint == "`llama-mgr info REPOSITORY` shows its quants"
    assert "search=model" in hub.requests[0].path


def test_the_document_says_the_same(hub: LocalHub, cli: Cli) -> None:
    document = cli.json("search", "Model", "owner")
    assert document == {
        "words": ["Model", "owner"],
        "page": 1,
        "models": [
            {
                "repo": "owner/model-GGUF", "downloads": 12345, "likes": 7, "updated_at": "2026-10-01T12:00:00Z",
                "gated": True, "ggufs": 2,
            },
        ],
    }  # fmt: skip
    assert len(hub.requests) == 1


def test_nothing_found_is_no_error(hub: LocalHub, cli: Cli) -> None:
    assert cli.done("search", "none").stdout == "the hub has no such model in the GGUF format\n"
    assert cli.done("search", "model", "--page", "2").stdout == "there are no more\n"
    assert hub.served.total() == 0


def test_a_full_page_names_the_next_one(hub: LocalHub, cli: Cli) -> None:
    hub.add("owner/model-2-GGUF", FILES, downloads=5)
    assert "--page 2 shows more" in cli.done("search", "model", "--limit", "1").stdout
    assert "owner/model-2-GGUF" in cli.done("search", "model", "--limit", "1", "--page", "2").stdout
    first = cli.json("search", "model", "--sort", "likes")["models"][0]
    assert first["repo"] == "owner/model-GGUF"


@pytest.mark.usefixtures("hub")
def test_bad_numbers_are_bad_input(cli: Cli) -> None:
    assert cli("search", "x", "--limit", "0").status == 2
    assert cli("search", "x", "--limit", "101").status == 2
    answer = cli("search", "x", "--limit", "100", "--page", "6")
    assert (answer.status, "that is page 5" in answer.stderr) == (2, True)


def test_what_the_hub_says_does_not_reach_the_terminal_raw(hub: LocalHub, cli: Cli) -> None:
    body = b'[{"id": "a/\\u001b[31mb\\u202e", "siblings": [{"rfilename": "x.gguf"}]}]'
    hub.fault(Fault(status=200, body=body, headers={"X-HF-Warning": "x; \x1b[31mlook"}), origin="hub")
    answer = cli.done("search", "x")
    assert "a/\\x1b[31mb\\u202e" in answer.stdout
    assert "\x1b" not in answer.stdout + answer.stderr


@pytest.mark.parametrize(
    ("fault", "status", "words"),
    [
        (Fault(status=200, body=b"<html>"), 6, "what answered is not a Hugging Face hub"),
        (Fault(status=401, headers={"X-Error-Message": "Invalid credentials in Authorization header"}), 7, "HF_TOKEN"),
    ],
    ids=["a page", "an old token"],
)
def test_refusals_have_their_exit_codes(fault: Fault, status: int, words: str, hub: LocalHub, cli: Cli) -> None:
    hub.fault(fault, origin="hub")
    answer = cli("search", "x", HF_TOKEN="hf_canary")
    assert answer.status == status
    assert words in answer.stderr
    assert "canary" not in answer.stderr
    assert len(answer.stderr.splitlines()) <= 3
