"""Bad inputs 27-38: places, tools, terminals and the command line itself."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from llama_mgr import staging
from llama_mgr.instances.instance import Instances
from tests.tools.bad_input import ROOT_ONLY, Case, World, assert_refused, case, server_runs_main
from tests.tools.shelf_build import plan_of
from tests.tools.tiny_repository import TINY_DIR


def home_is_a_file(world: World) -> None:
    (world.root / "file").write_text("not a directory")


def home_of_a_stranger(world: World) -> None:
    (world.root / "stranger").mkdir()
    os.chown(world.root / "stranger", 65534, 65534)


def home_open_to_all(world: World) -> None:
    (world.root / "open").mkdir()
    (world.root / "open").chmod(0o777)


def without_marker(world: World) -> None:
    (world.home.builds_dir / plan_of(2).build_id / staging.MARKER_NAME).unlink()


def build_is_a_link(world: World) -> None:
    build = world.home.builds_dir / plan_of(2).build_id
    build.rename(world.root / "elsewhere")
    build.symlink_to(world.root / "elsewhere")


def instance_dir_is_a_link(world: World) -> None:
    directory = world.home.instances_dir / "main"
    directory.rename(world.root / "elsewhere")
    directory.symlink_to(world.root / "elsewhere")


def instance_dir_has_a_stranger(world: World) -> None:
    (world.home.instances_dir / "main" / "thesis.txt").write_text("mine")


def one_generation(world: World) -> None:
    Instances(world.home).trim("main", 1)


PLACES = [
    case(27, "home-below-a-file", "instance", "list", status=10, says="file/home", before=home_is_a_file,
         extra=(("LLAMA_MGR_HOME", "ROOT/file/home"),)),
    case(27, "home-is-a-file", "instance", "list", status=10, says="/file", before=home_is_a_file,
         extra=(("LLAMA_MGR_HOME", "ROOT/file"),)),
    case(27, "home-not-writable", "instance", "list", status=10, says="/proc/llama-mgr",
         extra=(("LLAMA_MGR_HOME", "/proc/llama-mgr"),)),
    case(28, "server-runs", "uninstall", "main", status=4, says=("'chat'", "--force"), before=server_runs_main),
    case(29, "no-marker", "uninstall", "main", status=11, says="marker", before=without_marker),
    case(29, "build-is-a-link", "uninstall", "main", status=11, says="cannot delete", before=build_is_a_link),
    case(29, "directory-is-a-link", "uninstall", "main",
         status=11, says="cannot remove", before=instance_dir_is_a_link),
    case(29, "stranger-inside", "uninstall", "main", status=11, says="thesis.txt", before=instance_dir_has_a_stranger),
    case(31, "nothing-earlier", "instance", "rollback", "main",
         status=3, says="no earlier build", before=one_generation),
    case(32, "no-compiler", "install", "x", str(TINY_DIR), "--arch", "cpu", status=8, says=("c++:", "hint:"),
         extra=(("PATH", "ROOT/nothing"),)),
    case(32, "no-git", "install", "x", "b11434", "--arch", "cpu", "--repo-url", "TINY", status=8, says="git",
         extra=(("PATH", "ROOT/nothing"),)),
    case(35, "no-home", "instance", "list",
         status=2, says="LLAMA_MGR_HOME", extra=(("LLAMA_MGR_HOME", ""), ("HOME", ""))),
    case(35, "home-is-root", "instance", "list", status=2, says="LLAMA_MGR_HOME",
         extra=(("LLAMA_MGR_HOME", ""), ("HOME", "/"))),
    case(35, "home-does-not-exist", "instance", "list", status=10, says="LLAMA_MGR_HOME",
         extra=(("LLAMA_MGR_HOME", ""), ("HOME", "ROOT/nonexistent"))),
    case(35, "home-with-newline", "instance", "list", status=2, says="LLAMA_MGR_HOME",
         extra=(("LLAMA_MGR_HOME", ""), ("HOME", "ROOT/a\nb"))),
    case(35, "relative", "instance", "list", status=2, says="absolute", extra=(("LLAMA_MGR_HOME", "here"),)),
    case(35, "root-as-ours", "instance", "list", status=2, says="root", extra=(("LLAMA_MGR_HOME", "/"),)),
    case(36, "somebody-elses", "instance", "list", status=11, says=("65534", "sudo -H"), before=home_of_a_stranger,
         extra=(("LLAMA_MGR_HOME", "ROOT/stranger"),), marks=(ROOT_ONLY,)),
    case(36, "open-to-all", "instance", "list", status=11, says="chmod go-w", before=home_open_to_all,
         extra=(("LLAMA_MGR_HOME", "ROOT/open"),)),
    case(37, "4096-arguments", "exec", "llama-server", "--", *["x"] * 4096, status=2, says="too long"),
    case(37, "long-argument", "install", "x" * 110_000, status=2, says="too long"),
    case(38, "command", "instal", status=2, says="did you mean 'install'?"),
    case(38, "subcommand", "instance", "lst", status=2, says=("'list'",)),
    case(38, "flag", "install", "--paralel", "2", status=2, says="--parallel"),
]  # fmt: skip


@pytest.mark.parametrize("one", [one.parameter for one in PLACES])
def test_refused(world: World, one: Case) -> None:
    assert_refused(world, one)


def test_row_33_planted_programs_in_the_working_directory_do_not_run(world: World) -> None:
    for name in ("git", "cmake", "ninja", "cc", "c++", "ccache"):
        program = world.cli.cwd / name
        program.write_text(f"#!/bin/sh\ntouch {world.canary}\n")
        program.chmod(0o755)
    path = os.pathsep.join(["", ".", world.environ["PATH"]])
    words = ("install", "x", "b11434", "--arch", "cpu", "--repo-url", world.repository.url, "--dry-run")
    answer = world.cli.json(*words, PATH=path)
    assert answer["version"] == "b11434"
    assert not world.canary.exists()


@pytest.mark.parametrize(
    "extra",
    [{"TERM": "dumb"}, {"TERM": ""}, {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0"}, {"COLUMNS": "20"}],
    ids=["row-34-dumb", "row-34-no-term", "row-34-lang-c", "row-34-20-columns"],
)
def test_row_34_poor_terminals(world: World, extra: dict[str, str]) -> None:
    answer = world.cli("instance", "list", **extra)
    assert (answer.status, answer.stderr) == (0, "")
    assert "main" in answer.stdout
    assert "\x1b" not in answer.stdout
    assert world.cli("instance", "show", "nöbody", **extra).status == 2


@pytest.mark.parametrize(
    "redirect", [">&-", "2>&-", ">&- 2>&-", "| head -1", "</dev/null >/dev/full"], ids=lambda text: f"row-34-{text}"
)
@pytest.mark.parametrize("words", ["instance list", "instance show main --json", "recipe show cuda", "install --help"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_row_34_output_that_goes_nowhere(world: World, redirect: str, words: str, unbuffered: str) -> None:
    world.environ["PYTHONUNBUFFERED"] = unbuffered
    command = " ".join(map(str, world.cli.argv())) + f" {words} {redirect}"
    ended = subprocess.run(
        ["/bin/sh", "-c", command], env=world.environ, cwd=world.cli.cwd, capture_output=True, timeout=60, check=False
    )
    assert ended.returncode in ({10} if "/dev/full" in redirect else {0})
    assert b"Traceback" not in ended.stderr
    assert b"Exception ignored" not in ended.stderr
    assert b"bug" not in ended.stderr


def test_json_is_json_whatever_stdout_can_encode(world: World) -> None:
    refused = world.cli("use", "é\x1b", "--json", PYTHONIOENCODING="ascii")
    assert "é" in json.loads(refused.stdout)["error"]["message"]


def test_names_of_directories_cannot_command_the_terminal(world: World, tmp_path: Path) -> None:
    (tmp_path / "ev\x1b[31mil" / "bin").mkdir(parents=True)
    program = tmp_path / "ev\x1b[31mil" / "bin" / "llama-server"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    world.cli.done("instance", "link", "mine", program.parent.parent)
    for words in (["list"], ["show", "mine"], ["which", "-i", "mine"]):
        said = world.cli.done("instance", *words)
        assert "ev\\x1b[31mil" in said.stdout
        assert "\x1b" not in said.stdout + said.stderr
    refused = world.cli("update", "mine")
    assert "ev\\x1b[31mil" in refused.stderr
    assert "\x1b" not in refused.stderr
    path = world.cli.done("instance", "which", "-i", "mine", "--path").stdout
    assert Path(path.rstrip("\n")) == program.parent.parent
