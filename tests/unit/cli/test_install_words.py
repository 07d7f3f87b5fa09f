"""What is said where a word or option of a command line was probably meant otherwise."""

import pytest

from llama_mgr.paths import Home
from tests.conftest import Cli
from tests.tools.bad_input import World
from tests.tools.tiny_repository import TinyRepository


@pytest.mark.parametrize(
    ("word", "version"),
    [
        ("./llama.cpp", "./llama.cpp"), ("../src/llama.cpp", "../src/llama.cpp"), (".", "."), ("~/x y", "'~/x y'"),
        ("llama.cpp/", "./llama.cpp/"), ("src/llama.cpp", "./src/llama.cpp"), ("gg/fix", "gg/fix"),
    ],
)  # fmt: skip
def test_a_tree_or_branch_alone_is_told_that_a_name_comes_first(world: World, word: str, version: str) -> None:
    for directory in ("llama.cpp", "src/llama.cpp"):
        (world.cli.cwd / directory).mkdir(parents=True)
    error = world.cli.json("install", word, status=2)["error"]
    assert (error["code"], error["hint"]) == ("bad_name", f"llama-mgr install NAME {version}")


@pytest.mark.parametrize(
    "words", [("A/b", "b1"), ("-i", "./x"), ("./x", "--from", "m.toml"), ("a//b",), ("UPPER",)], ids=str
)
def test_a_bad_name_that_is_no_only_word_or_no_version_stays_one(world: World, words: tuple[str, ...]) -> None:
    (world.cli.cwd / "m.toml").write_text('name = "m"\n')
    error = world.cli.json("install", *words, status=2)["error"]
    assert (error["code"], error["hint"]) == ("bad_name", None)


def said(cli: Cli, repository: TinyRepository, *words: str) -> bool:
    """Whether a dry run says that the branch is not what will be built."""
    answer = cli.done("install", *words, "--dry-run", "--arch", "cpu", "--repo-url", repository.url)
    return f"for the branch write it after a name: {words[0]} {words[0]}" in " ".join(answer.stderr.split())


def test_a_name_that_is_also_a_branch_is_said_before_anything_is_built(
    cli: Cli, home: Home, tiny_repository: TinyRepository
) -> None:
    assert not home.source_dir.exists()
    assert said(cli, tiny_repository, "dev"), "the branches are not known yet, and this is a usual one"
    assert not said(cli, tiny_repository, "dev"), "the repository has no such branch"
    assert said(cli, tiny_repository, "feature-x")
    assert not said(cli, tiny_repository, "feature-x", "feature-x")
    assert not said(cli, tiny_repository, "gpu")


def test_an_instance_that_is_named_like_a_branch_is_known(world: World) -> None:
    assert not said(world.cli, world.repository, "main")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("--json",), "it stands after the command: llama-mgr COMMAND --json"),
        (("instance", "--quiet"), "it stands after the command: llama-mgr instance COMMAND --quiet"),
        (("--versoin",), "did you mean '--version'?"),
        (("install", "--dry-rum"), "did you mean '--dry-run'?"),
        (("instance", "--xyz"), "see `llama-mgr instance --help`"),
    ],
    ids=str,
)
def test_an_unknown_option_is_explained_once(cli: Cli, words: tuple[str, ...], hint: str) -> None:
    answer = cli(*words)
    assert answer.status == 2
    said_of_it = answer.stdout + answer.stderr
    assert hint in said_of_it
    assert said_of_it.lower().count("did you mean") == hint.count("did you mean")
