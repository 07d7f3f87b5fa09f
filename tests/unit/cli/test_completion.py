"""Completion as shells run it: with `_LLAMA_MGR_COMPLETE` set, in a process of its own."""

import shutil
import subprocess

import pytest

from llama_mgr.instances.instance import Instances, WantedBuild
from llama_mgr.paths import Home
from tests.conftest import Cli
from tests.tools.shelf_build import plan_of, publish_build


def completed(cli: Cli, *words: str) -> list[str]:
    """What bash is offered for the last of `words`."""
    answer = cli(
        _LLAMA_MGR_COMPLETE="bash_complete", COMP_WORDS=" ".join(["llama-mgr", *words]), COMP_CWORD=str(len(words))
    )
    assert answer.stderr == ""
    return [line.partition(",")[2] for line in answer.stdout.splitlines() if line]


@pytest.fixture
def instances(home: Home) -> list[str]:
    build = publish_build(home, plan_of(1))
    for name in ("gpu", "gpu-old", "cpu"):
        Instances(home).point(name, build, WantedBuild())
    return Instances(home).names()


@pytest.mark.usefixtures("instances")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("use", ""), ["cpu", "gpu", "gpu-old"]),
        (("use", "gpu"), ["gpu", "gpu-old"]),
        (("use", "x"), []),
        (("uninstall", "c"), ["cpu"]),
        (("instance", "rollback", "c"), ["cpu"]),
        (("exec", "-i", "gpu-"), ["gpu-old"]),
        (("instance", "ro"), ["rollback"]),
        (("config", "get", "build.cache.e"), ["build.cache.enabled"]),
        (("inst"), ["install", "instance"]),
        (("install", "--arch", "nonsense"), []),
    ],
    ids=str,
)
def test_offers(cli: Cli, words: tuple[str, ...] | str, offered: list[str]) -> None:
    assert completed(cli, *([words] if isinstance(words, str) else words)) == offered


def test_offers_recipes(cli: Cli) -> None:
    assert completed(cli, "install", "--arch", "cp") == ["cpu", "cpu-portable"]
    assert "auto" in completed(cli, "install", "--arch", "")


def test_an_unknown_command_is_no_error_while_typing(cli: Cli) -> None:
    assert "install" in completed(cli, "nonsense", "")


def test_a_broken_home_offers_nothing_and_says_nothing(cli: Cli, home: Home) -> None:
    shutil.rmtree(home.root)
    home.root.write_text("a file")
    assert completed(cli, "use", "") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts(cli: Cli, shell: str) -> None:
    script = cli.done("completion", shell).stdout
    assert f"_LLAMA_MGR_COMPLETE={shell}_complete" in script
    if program := shutil.which(shell, path=cli.environ["PATH"]):
        subprocess.run([program, "-n"], input=script, check=True, text=True, timeout=20)


def test_another_shell(cli: Cli) -> None:
    assert cli("completion", "tcsh").status == 2
