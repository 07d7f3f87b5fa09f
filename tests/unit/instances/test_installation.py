"""What an install remembers, what it refuses before anything is compiled, and what `update` asks for again."""

import os
import shutil
from pathlib import Path

import pytest

from llama_mgr.errors import NameTakenError
from llama_mgr.instances.installation import Installer
from llama_mgr.instances.instance import Instances, WantedBuild
from llama_mgr.instances.manifest import read_manifests
from llama_mgr.instances.repair import repair
from llama_mgr.instances.sync import Sync
from llama_mgr.paths import Home
from llama_mgr.report import SilentReporter
from llama_mgr.settings import Settings
from tests.conftest import Cli
from tests.tools.fake_program import make_program
from tests.tools.shelf_build import ShelfBuilder, program_of
from tests.tools.tiny_repository import TINY_DIR, TinyRepository, make_tiny_repository, run_git


def tree(place: Path, remark: str) -> Path:
    """A local tree of the tiny project, different from every other."""
    shutil.copytree(TINY_DIR, place)
    (place / "REMARK").write_text(remark)
    return place


@pytest.mark.parametrize("typed", ["./llama.cpp", "../one/llama.cpp", "~/llama.cpp"])
def test_a_local_tree_is_remembered_wherever_the_next_command_runs(
    home: Home,
    shelf_installer: Installer,
    tmp_path: Path,
    environ: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    typed: str,
) -> None:
    base = Path(environ["HOME"]) if typed.startswith("~") else tmp_path / "one"
    ours = tree(base / "llama.cpp", "ours")
    tree(tmp_path / "two" / "llama.cpp", "another")
    tree(tmp_path / "three" / "one" / "llama.cpp", "a third")
    (tmp_path / "one").mkdir(exist_ok=True)
    (tmp_path / "three" / "two").mkdir()
    monkeypatch.chdir(tmp_path / "one")
    build = shelf_installer.install("mine", WantedBuild(version=typed)).build
    assert Instances(home).find("mine").current.wanted.version == str(ours)
    for elsewhere in ("two", "three/two"):
        monkeypatch.chdir(tmp_path / elsewhere)
        assert shelf_installer.update("mine").build.plan.commit == build.plan.commit
    program_of(home, build.build_id).unlink()
    repair(shelf_installer, "mine", dict, SilentReporter(), None)
    assert Instances(home).find("mine").current.commit == build.plan.commit


def test_a_typed_path_of_an_update_is_remembered_absolute(
    shelf_installer: Installer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours = tree(tmp_path / "llama.cpp", "ours")
    shelf_installer.install("mine", WantedBuild(version=str(tree(tmp_path / "older", "older"))))
    monkeypatch.chdir(tmp_path)
    outcome = shelf_installer.update("mine", "./llama.cpp")
    assert outcome.instance.current.wanted.version == str(ours)


@pytest.mark.parametrize(
    ("version", "moves"),
    [
        ("latest", True), ("master", True), ("feature-x", True), ("pr/123", True), (".", True), ("~/x", True),
        ("/srv/llama.cpp", True), ("gg/fix", True),
        ("b11434", False), ("v0.6.0", False), ("973f328b1", False), ("9" * 40, False),
    ],
)  # fmt: skip
def test_what_moves(version: str, moves: bool) -> None:
    assert WantedBuild(version=version).moves is moves
    assert WantedBuild(version=version, branch="x").moves is True


@pytest.mark.parametrize(
    ("version", "updated"),
    [
        ("feature-x", "feature-x"), ("master", "master"),
        ("b11401", "b11434"), ("v0.6.0", "b11434"), ("commit", "b11434"),
    ],
)  # fmt: skip
def test_update_asks_again_for_what_moves(
    shelf_installer: Installer, tiny_repository: TinyRepository, version: str, updated: str
) -> None:
    typed = tiny_repository.commits["b11401"] if version == "commit" else version
    shelf_installer.install("main", WantedBuild(version=typed, repo_url=tiny_repository.url))
    outcome = shelf_installer.update("main")
    assert outcome.build.plan.version == updated


def team_of(tmp_path: Path, name: str, version: str, url: str) -> Path:
    """A directory with one manifest."""
    directory = tmp_path / "team"
    directory.mkdir()
    text = f'name = "{name}"\narch = "cpu"\nversion = "{version}"\nrepo-url = "{url}"\n'
    (directory / f"{name}.toml").write_text(text)
    return directory


def test_update_and_sync_agree_about_a_branch_that_moved(shelf_installer: Installer, tmp_path: Path) -> None:
    repository = make_tiny_repository(tmp_path / "moving.git")
    directory = team_of(tmp_path, "main", "feature-x", repository.url)
    sync = Sync(shelf_installer, Settings())
    (step,) = sync.steps(read_manifests(directory))
    sync.install(step)
    moved = repository.commits["b11401"]
    run_git("update-ref", "refs/heads/feature-x", moved, cwd=repository.path)
    assert sync.steps(read_manifests(directory))[0].state == "changed"
    assert shelf_installer.update("main").build.plan.commit == moved
    assert sync.steps(read_manifests(directory))[0].state == "equal"


def test_a_manifest_with_the_users_home_is_equal_after_its_install(
    shelf_installer: Installer, tmp_path: Path, environ: dict[str, str]
) -> None:
    tree(Path(environ["HOME"]) / "llama.cpp", "ours")
    directory = tmp_path / "team"
    directory.mkdir()
    (directory / "main.toml").write_text('name = "main"\narch = "cpu"\nversion = "~/llama.cpp"\n')
    sync = Sync(shelf_installer, Settings())
    (step,) = sync.steps(read_manifests(directory))
    assert sync.install(step).action == "built"
    assert sync.steps(read_manifests(directory))[0].state == "equal"


def linked(home: Home, place: Path) -> None:
    make_program(place, "llama-server")
    Instances(home).link("mine", place)


def test_a_linked_instance_is_refused_before_anything_is_compiled(
    home: Home, shelf_installer: Installer, tiny_repository: TinyRepository, tmp_path: Path
) -> None:
    linked(home, tmp_path / "own")
    with pytest.raises(NameTakenError, match="linked") as caught:
        shelf_installer.install("mine", WantedBuild(version="b11434", repo_url=tiny_repository.url))
    assert str(caught.value.hint).startswith("llama-mgr uninstall mine")
    assert isinstance(shelf_installer.builder, ShelfBuilder)
    assert shelf_installer.builder.built == []
    assert not home.builds_dir.exists()


def test_sync_refuses_a_linked_instance_with_the_same_words(
    home: Home, shelf_installer: Installer, tiny_repository: TinyRepository, tmp_path: Path
) -> None:
    linked(home, tmp_path / "own")
    directory = team_of(tmp_path, "mine", "b11434", tiny_repository.url)
    sync = Sync(shelf_installer, Settings())
    (step,) = sync.steps(read_manifests(directory))
    with pytest.raises(NameTakenError, match="linked") as caught:
        shelf_installer.install("mine", WantedBuild(version="b11434", repo_url=tiny_repository.url))
    error = sync.install(step).error
    assert isinstance(error, NameTakenError)
    assert (error.message, error.hint) == (caught.value.message, caught.value.hint)
    assert isinstance(shelf_installer.builder, ShelfBuilder)
    assert shelf_installer.builder.built == []


def test_a_damaged_default_stops_neither_install_nor_uninstall(
    home: Home, shelf_installer: Installer, tiny_repository: TinyRepository
) -> None:
    (home.root / "default-instance.json").write_text("junk")
    outcome = shelf_installer.install("d1", WantedBuild(version="b11434", repo_url=tiny_repository.url))
    assert (outcome.action, outcome.became_default) == ("built", True)
    (home.root / "default-instance.json").write_text("junk")
    assert shelf_installer.uninstall("d1", dict) == [outcome.build.build_id]


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (("other", "b11434"), "VERSION"),
        (("b11434",), "VERSION"),
        (("--arch", "cpu"), "--arch"),
        (("--with", "rpc"), "--with"),
        (("--cmake-args", "-DA=1"), "--cmake-args"),
        (("-D", "A=1"), "--define"),
        (("--targets", "llama-server"), "--targets"),
        (("--repo-url", "https://example.invalid/x"), "--repo-url"),
        (("--branch", "x"), "--branch"),
        (("--source", "git"), "--source"),
        (("--allow-http",), "--allow-http"),
    ],
)
def test_what_the_manifest_says_itself_is_refused_beside_it(
    cli: Cli, tmp_path: Path, words: tuple[str, ...], flag: str
) -> None:
    (tmp_path / "team.toml").write_text('name = "team"\nversion = "b11434"\n')
    answer = cli("install", "--from", "team.toml", *words)
    assert (answer.status, flag in answer.stderr) == (2, True), answer.stderr


@pytest.mark.parametrize("words", [(), ("--ignore-python",), ("other", "--parallel", "1")], ids=str)
def test_a_manifest_and_what_it_does_not_say(
    cli: Cli, tmp_path: Path, tiny_repository: TinyRepository, words: tuple[str, ...]
) -> None:
    text = f'name = "team"\narch = "cpu"\nversion = "b11434"\nrepo-url = "{tiny_repository.url}"\n'
    (tmp_path / "team.toml").write_text(text)
    assert cli.json("install", "--from", "team.toml", "--dry-run", *words)["version"] == "b11434"


def test_a_manifest_without_python_makes_no_environment(tmp_path: Path) -> None:
    from llama_mgr.cli.context import Context
    from llama_mgr.cli.install import _request

    environ = {"LLAMA_MGR_HOME": str(tmp_path / "home"), "HOME": str(tmp_path), "PATH": os.defpath}
    options = dict.fromkeys(
        ("name", "version", "instance", "arch", "targets", "repo_url", "branch", "source"), None
    ) | {"parts": (), "cmake_args": (), "defines": (), "allow_http": False, "ignore_python": False}
    file = tmp_path / "team.toml"
    for line, ignored, expected in (("python = false", False, False), ("", False, True), ("", True, False)):
        file.write_text(f'name = "team"\n{line}\n')
        _, wanted = _request(Context(environ=environ), {**options, "manifest": file, "ignore_python": ignored})
        assert wanted.python is expected


@pytest.mark.parametrize("before", [True, False, None])
@pytest.mark.parametrize("said", [True, False, None])
def test_an_install_that_says_nothing_about_python_changes_nothing_about_it(
    shelf_installer: Installer, tiny_repository: TinyRepository, before: bool | None, said: bool | None
) -> None:
    for python in (before, said):
        wanted = WantedBuild(version="b11434", repo_url=tiny_repository.url, python=python)
        outcome = shelf_installer.install(None, wanted)
    assert outcome.instance.current.wanted.python is (before if said is None else said)


def test_an_update_remembers_whether_the_converter_gets_an_environment(
    shelf_installer: Installer, tiny_repository: TinyRepository
) -> None:
    for python in (False, True):
        shelf_installer.install("main", WantedBuild(version="b11401", repo_url=tiny_repository.url, python=python))
        assert shelf_installer.update("main").instance.current.wanted.python is python
    ignoring = shelf_installer.update("main", "b11401", ignore_python=True)
    assert ignoring.instance.current.wanted.python is False
