"""The converter's environment on the command line: not to be had at install, and made later from what was recorded."""

import shutil
from pathlib import Path

import pytest

from llama_mgr.instances.instance import Instances, WantedBuild
from llama_mgr.paths import Home
from tests.conftest import Cli
from tests.tools.shelf_build import plan_of, publish_build
from tests.tools.tiny_repository import TINY_DIR
from tests.tools.wheel_index import index, wheel

OPTIONS = ("--arch", "cpu", "-D", "GGML_LTO=OFF", "--targets", "server")


@pytest.fixture
def online(cli: Cli, environ: dict[str, str], tmp_path: Path) -> Cli:
    """The command line with a package index of its own, which has no package yet."""
    (tmp_path / "simple").mkdir()
    for name in [name for name in environ if name.startswith(("UV_", "PIP_"))]:
        del environ[name]
    environ |= {"UV_DEFAULT_INDEX": index(tmp_path).as_uri(), "UV_CACHE_DIR": str(tmp_path / "cache")}
    return cli


def add_package(tmp_path: Path) -> None:
    wheel(tmp_path / "simple" / "rare", "rare", "1.0")
    index(tmp_path)


def advised(stderr: str) -> list[str]:
    """Return the words of the command that a note names, without the program's."""
    (line,) = [line for line in stderr.splitlines() if "tries again" in line]
    return line.split("`")[1].split()[1:]


def test_the_advice_after_a_failed_environment_makes_it_from_the_record(
    online: Cli, home: Home, tmp_path: Path
) -> None:
    tree = shutil.copytree(TINY_DIR, tmp_path / "loc")
    (tree / "requirements" / "requirements-convert_hf_to_gguf.txt").write_text("rare==1.0\n")
    answer = online("install", "loc", tree, *OPTIONS)
    assert answer.status == 0, answer.stderr
    before = Instances(home).find("loc")
    words = advised(answer.stderr)
    assert "does not work" in online.done(*words, "--check").stdout
    assert online(*words).status == 9  # the package still is not there
    add_package(tmp_path)
    assert "made the converter's environment" in online.done(*words).stdout
    assert Instances(home).find("loc") == before
    assert len(list(home.environments_dir.glob("*/bin/python"))) == 1
    assert "nothing was damaged" in online.done(*words).stdout


def test_sync_makes_what_a_manifest_still_lacks(online: Cli, home: Home, tmp_path: Path) -> None:
    tree = shutil.copytree(TINY_DIR, tmp_path / "loc")
    (tree / "requirements" / "requirements-convert_hf_to_gguf.txt").write_text("rare==1.0\n")
    team = tmp_path / "team"
    team.mkdir()
    (team / "loc.toml").write_text('name = "loc"\nversion = "../loc"\narch = "cpu"\ntargets = ["server"]\n')
    assert "tries again" in online.done("instance", "sync", team).stderr
    assert not list(home.environments_dir.glob("*/bin/python"))
    add_package(tmp_path)
    (done,) = online.json("instance", "sync", team)["instances"]
    assert done["action"] == "unchanged"
    assert len(list(home.environments_dir.glob("*/bin/python"))) == 1


@pytest.mark.parametrize("python", [True, False, None])
def test_repair_makes_a_missing_environment_only_where_one_is_wanted(
    online: Cli, home: Home, python: bool | None
) -> None:
    build = publish_build(home, plan_of(1), requirements="")
    Instances(home).point("main", build, WantedBuild(version="b1", python=python))
    if python:
        online.done("instance", "repair", "main")
        (interpreter,) = home.environments_dir.glob("*/bin/python")
        interpreter.unlink()
        checked = online.json("instance", "repair", "main", "--check")
        (problem,) = online.json("doctor")["problems"]
        assert (problem["what"], problem["is_damage"]) == (checked["remark"], False)
        assert problem["mend"] == "llama-mgr instance repair main"
        assert f"remark: {problem['what']}" in online.done("doctor").stdout
    online.done("instance", "repair", "main")
    assert online.json("instance", "repair", "main", "--check") == {
        "instance": "main",
        "damaged": False,
        "remark": None,
    }
    assert online.json("doctor")["problems"] == []
    assert len(list(home.environments_dir.glob("*/bin/python"))) == bool(python)
