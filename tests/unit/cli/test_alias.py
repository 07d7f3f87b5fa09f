"""The `alias` commands on the real command line."""

import pytest

from llama_mgr.paths import Home
from tests.conftest import Cli


def test_an_alias_is_added_listed_and_removed(cli: Cli, home: Home) -> None:
    added = cli.done("alias", "add", "Qwen:32B", "bartowski/Qwen2.5-32B-Instruct-GGUF:Q4_K_M")
    assert added.stdout == "qwen:32b stands for bartowski/Qwen2.5-32B-Instruct-GGUF:Q4_K_M\n"
    rows = {row["name"]: row for row in cli.json("alias", "list")["aliases"]}
    assert rows["qwen:32b"] == {
        "name": "qwen:32b",
        "target": "bartowski/Qwen2.5-32B-Instruct-GGUF:Q4_K_M",
        "origin": "own",
        "stands_before": None,
    }
    assert rows["smollm2:135m"]["origin"] == "shipped"
    assert cli.json("alias", "rm", "qwen:32b")["name"] == "qwen:32b"
    assert "qwen:32b" not in cli.done("alias", "list").stdout
    assert (home.root / "aliases.toml").exists()


def test_taking_the_place_of_a_shipped_alias_is_said(cli: Cli) -> None:
    added = cli.done("alias", "add", "qwen3", "a/b")
    assert added.stdout == "qwen3 stands for a/b, instead of the shipped unsloth/Qwen3-8B-GGUF\n"
    assert "own, before a shipped one" in cli.done("alias", "list").stdout
    removed = cli.done("alias", "rm", "qwen3")
    assert "it stands for the shipped unsloth/Qwen3-8B-GGUF again" in removed.stdout


def test_the_same_as_a_shipped_alias_takes_no_place(cli: Cli) -> None:
    added = cli.done("alias", "add", "qwen3", "unsloth/Qwen3-8B-GGUF")
    assert added.stdout == "qwen3 stands for unsloth/Qwen3-8B-GGUF\n"
    assert "before a shipped one" not in cli.done("alias", "list").stdout


@pytest.mark.parametrize(
    ("words", "status", "code", "says"),
    [
        (("add", "x", "a b/c"), 2, "bad_reference", "owner/name[:quant][@rev]"),
        (("add", "x", "../../y/z"), 2, "bad_reference", "aliases stand for owner/name"),
        (("add", "a/b", "a/b"), 2, "bad_name", "name or name:tag"),
        (("rm", "smollm2"), 2, "bad_input", "it ships with llama-mgr"),
        (("rm", "nothing"), 3, "unknown_model", "cannot find the alias"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    cli: Cli, home: Home, words: tuple[str, ...], status: int, code: str, says: str
) -> None:
    error = cli.json("alias", *words, status=status)["error"]
    assert error["code"] == code
    assert says in error["message"]
    assert not (home.root / "aliases.toml").exists()


def test_the_shell_completes_own_aliases(cli: Cli) -> None:
    cli.done("alias", "add", "mine", "a/b")
    answer = cli(_LLAMA_MGR_COMPLETE="bash_complete", COMP_WORDS="llama-mgr alias rm m", COMP_CWORD="3")
    assert answer.stdout == "plain,mine\n"
