"""install, update, rollback, uninstall and exec, on the tiny project with real git, cmake, ninja and ccache."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from llama_mgr.paths import Home
from tests.conftest import Cli
from tests.tools.tiny_repository import (
    TINY_DIR,
    TinyRepository,
    make_fork_repository,
    make_tiny_repository,
)

BUILT = ("--arch", "cpu", "--ignore-python", "--quiet")


@pytest.fixture
def built(cli: Cli, tiny_repository: TinyRepository) -> Cli:
    """A home with the instance `old` of b11401."""
    cli.done("install", "old", "b11401", "--repo-url", tiny_repository.url, *BUILT)
    return cli


@pytest.fixture(scope="module")
def broken_repository(tmp_path_factory: pytest.TempPathFactory) -> TinyRepository:
    return make_tiny_repository(tmp_path_factory.mktemp("broken") / "llama.cpp.git", broken=True)


def test_two_versions_side_by_side_share_the_cache_and_an_equal_plan_is_not_built(
    built: Cli, tiny_repository: TinyRepository, home: Home
) -> None:
    new = built.json("install", "new", "b11434", "--repo-url", tiny_repository.url, *BUILT)
    assert (new["action"], new["build_number"]) == ("built", 11434)
    assert new["cache_hits"] > new["compiler_runs"] > 0
    again = built.json("install", "again", "b11434", "--repo-url", tiny_repository.url, *BUILT)
    assert (again["action"], again["compiler_runs"], again["build_id"]) == ("reused", 0, new["build_id"])
    same = built.json("install", "again", "b11434", "--repo-url", tiny_repository.url, *BUILT)
    assert same["action"] == "unchanged"
    for name, number in (("old", 11401), ("new", 11434), ("again", 11434)):
        said = built.done("exec", "-i", name, "llama-server", "--", "--version").stderr
        assert f"(build {number}, commit {tiny_repository.commits[f'b{number}'][:9]}" in said
        assert (home.instances_dir / name / "current" / "bin" / "llama-server").is_file()
    assert not list(home.staging_dir.iterdir())
    assert len(list(home.builds_dir.iterdir())) == 2


def test_the_record_tells_how_it_was_made(built: Cli, home: Home) -> None:
    (build_dir,) = home.builds_dir.iterdir()
    record = json.loads((build_dir / "build.json").read_text())
    assert record["build_id"] == build_dir.name
    assert record["plan"]["recipe"] == "cpu"
    assert record["plan"]["defines"]["GGML_NATIVE"] == "ON"
    assert record["plan"]["compilers"]["c++"]
    assert any(argument.startswith("-DCMAKE_BUILD_TYPE=Release") for argument in record["configure_argv"])
    assert "--ctx-size" in json.dumps(record["capabilities"]["server_flags"])
    assert "Q4_K_M" in json.dumps(record["capabilities"]["quant_types"])
    assert record["converter"] == "convert_hf_to_gguf.py"
    assert "bin/llama-server" in record["files"]
    log = (build_dir / "build.log").read_text()
    assert "Including CPU backend" in log
    assert "Building C object" in log
    assert built.json("instance", "show", "old")


def test_latest_is_the_newest_tag_and_names_the_instance(cli: Cli, tiny_repository: TinyRepository) -> None:
    report = cli.json("install", "latest", "--repo-url", tiny_repository.url, *BUILT)
    assert report["instance"] == "b11434-cpu"
    assert report["default"]


@pytest.mark.parametrize(
    ("version", "number"),
    [("v0.6.0", 11420), ("feature-x", None), ("pr/123", None), ("COMMIT", 11401), ("SHORT", 11401)],
)
def test_every_way_to_name_a_version(
    cli: Cli, tiny_repository: TinyRepository, version: str, number: int | None
) -> None:
    commit = tiny_repository.commits["b11401"]
    text = {"COMMIT": commit, "SHORT": commit[:10]}.get(version, version)
    report = cli.json("install", "one", text, "--repo-url", tiny_repository.url, *BUILT)
    assert number is None or report["build_number"] == number
    name = {"pr/123": "pull/123", "COMMIT": "b11401", "SHORT": "b11401"}.get(version, version)
    assert report["commit"] == tiny_repository.commits[name]


def test_a_local_tree_is_built_and_left_alone(cli: Cli, tmp_path: Path) -> None:
    tree = tmp_path / "llama.cpp"
    shutil.copytree(TINY_DIR, tree)
    before = sorted(path.relative_to(tree) for path in tree.rglob("*"))
    first = cli.json("install", "mine", str(tree), *BUILT)
    assert sorted(path.relative_to(tree) for path in tree.rglob("*")) == before
    assert cli.json("install", "mine", str(tree), *BUILT)["action"] == "unchanged"
    source = next(tree.rglob("server.c"))
    source.write_text(source.read_text() + "\n/* changed */\n")
    second = cli.json("update", "mine", "--ignore-python", "--quiet")
    assert second["build_id"] != first["build_id"]


def test_a_fork_of_2024_is_built_with_its_own_spelling(cli: Cli, tmp_path: Path, home: Home) -> None:
    fork = make_fork_repository(tmp_path / "fork.git")
    report = cli.json("install", "fork", "b3600", "--repo-url", fork.url, *BUILT)
    said = cli.done("exec", "-i", "fork", "llama-server", "--", "--version").stderr
    assert "version: 3600 (" in said
    record = json.loads((home.builds_dir / report["build_id"] / "build.json").read_text())
    assert "LLAMA_BUILD_TOOLS" not in record["plan"]["defines"]


@pytest.mark.parametrize(
    ("version", "code", "status", "words"),
    [
        ("b11440", "build_failed", 9, "cannot build"),
        ("b11441", "configure_failed", 9, "cannot configure"),
        ("b11442", "verification_failed", 5, "version"),
    ],
)
def test_an_update_that_fails_leaves_the_old_build_and_says_why(
    cli: Cli, broken_repository: TinyRepository, home: Home, version: str, code: str, status: int, words: str
) -> None:
    first = cli.json("install", "main", "b11434", "--repo-url", broken_repository.url, *BUILT)
    report = cli.json("update", "main", version, "--ignore-python", "--quiet", status=status)
    assert report["error"]["code"] == code
    assert words in report["error"]["message"]
    assert Path(report["error"]["log_file"]).read_text()
    shown = cli.json("instance", "show", "main")
    assert first["build_id"] in json.dumps(shown)
    assert "build 11434" in cli.done("exec", "-i", "main", "llama-server", "--", "--version").stderr
    assert [path.name for path in home.builds_dir.iterdir()] == [first["build_id"]]
    assert not list(home.staging_dir.iterdir())


def test_update_then_rollback_without_the_repository(cli: Cli, tmp_path: Path) -> None:
    repository = make_tiny_repository(tmp_path / "llama.cpp.git")
    cli.done("install", "main", "b11401", "--repo-url", repository.url, *BUILT)
    assert cli.json("update", "main", "--ignore-python", "--quiet")["build_number"] == 11434
    repository.path.rename(tmp_path / "gone.git")
    cli.done("instance", "rollback", "main")
    assert "build 11401" in cli.done("exec", "llama-server", "--", "--version").stderr
    cli.done("instance", "rollback", "main")
    assert "build 11434" in cli.done("exec", "llama-server", "--", "--version").stderr


def test_an_instance_of_a_branch_can_be_brought_to_a_version(cli: Cli, tiny_repository: TinyRepository) -> None:
    cli.done("install", "it", "--branch", "feature-x", "--repo-url", tiny_repository.url, *BUILT)
    assert cli.json("update", "it", "--ignore-python")["action"] == "unchanged"
    assert cli.json("update", "it", "b11401", "--ignore-python")["build_number"] == 11401
    assert cli.json("update", "it", "--ignore-python")["build_number"] == 11434


def test_an_instance_of_a_repository_can_be_brought_to_a_local_tree(
    cli: Cli, tiny_repository: TinyRepository, tmp_path: Path
) -> None:
    cli.done("install", "it", "b11401", "--repo-url", tiny_repository.url, *BUILT)
    tree = shutil.copytree(TINY_DIR, tmp_path / "tree")
    assert cli.json("update", "it", tree, "--ignore-python")["version"] == "local-tree"


def test_a_define_that_the_tree_does_not_know_is_an_error_before_compiling(
    cli: Cli, tiny_repository: TinyRepository, home: Home
) -> None:
    options = ["install", "x", "b11434", "--repo-url", tiny_repository.url, "-D", "GGML_CUDDA=ON", *BUILT]
    report = cli.json(*options, status=5)
    assert report["error"]["code"] == "undeclared_define"
    assert "GGML_CUDA" in report["error"]["hint"]
    assert "Building C object" not in Path(report["error"]["log_file"]).read_text()
    assert not home.builds_dir.exists() or not list(home.builds_dir.iterdir())


def test_uninstall_frees_builds_that_nothing_else_needs(
    built: Cli, tiny_repository: TinyRepository, home: Home
) -> None:
    built.done("install", "twin", "b11401", "--repo-url", tiny_repository.url, *BUILT)
    assert built.json("uninstall", "twin")["builds"] == []
    assert "build 11401" in built.done("exec", "-i", "old", "llama-server", "--", "--version").stderr
    assert len(built.json("uninstall", "old")["builds"]) == 1
    assert not list(home.builds_dir.iterdir())
    assert built("uninstall", "old").status == 3


def test_dry_run_shows_everything_and_builds_nothing(cli: Cli, tiny_repository: TinyRepository, home: Home) -> None:
    options = ["install", "x", "b11434", "--repo-url", tiny_repository.url, "--arch", "cpu", "-D", "GGML_LTO=ON"]
    plan = cli.json(*options, "--dry-run")
    assert plan["defines"]["GGML_LTO"] == {"value": "ON", "origin": "--define"}
    assert "cpu" in plan["defines"]["GGML_NATIVE"]["origin"]
    assert " -G Ninja " in plan["commands"][0]
    assert "-DGGML_LTO=ON" in plan["commands"][0]
    assert " --target " in plan["commands"][1]
    assert not home.builds_dir.exists()
    assert "GGML_NATIVE" in cli.done(*options, "--dry-run").stdout


def test_pull_only_and_update_only(cli: Cli, tiny_repository: TinyRepository, home: Home) -> None:
    url = ("--repo-url", tiny_repository.url)
    assert cli.json("install", "b11401", *url, "--pull-only")["build_number"] == 11401
    assert not home.builds_dir.exists()
    assert cli("install", "x", "b11401", *url, "--update-only", *BUILT).status == 3
    cli.done("install", "x", "b11401", *url, *BUILT)
    cli.done("install", "x", "b11434", *url, "--update-only", *BUILT)


def test_targets_can_be_chosen(cli: Cli, tiny_repository: TinyRepository, home: Home) -> None:
    options = ["install", "x", "b11434", "--repo-url", tiny_repository.url]
    report = cli.json(*options, "--targets", "server,llama-bench", *BUILT)
    programs = {
        path.name for path in (home.builds_dir / report["build_id"] / "bin").iterdir() if ".so" not in path.name
    }
    assert programs == {"llama-server", "llama-bench"}
    assert cli(*options, "--targets", "no-such-thing", *BUILT).status == 2


def test_launchers_follow_the_current_instance(built: Cli, tiny_repository: TinyRepository, home: Home) -> None:
    built.done("install", "new", "b11434", "--repo-url", tiny_repository.url, *BUILT)
    built.done("shims")
    launcher = home.launchers_dir / "llama-server"
    for name, number in (("old", 11401), ("new", 11434)):
        built.done("use", name)
        alone = {"PATH": os.defpath, "PYTHONPATH": built.environ["PYTHONPATH"]}
        said = subprocess.run([launcher, "--version"], env=alone, capture_output=True, text=True, check=True).stderr
        assert f"build {number}" in said


def test_the_compiler_cache_can_be_switched_off(cli: Cli, tiny_repository: TinyRepository, home: Home) -> None:
    home.config_file.write_text("[build.cache]\nenabled = false\n")
    report = cli.json("install", "x", "b11434", "--repo-url", tiny_repository.url, *BUILT)
    assert report["cache_hits"] == 0
    assert not home.ccache_dir.exists()
