"""`instance …` on the real command line, with real builds of the tiny project."""

import json
import shutil
from pathlib import Path

import pytest

from llama_mgr.paths import Home
from tests.conftest import Cli
from tests.tools.tiny_repository import TinyRepository


@pytest.fixture
def team(cli: Cli, tiny_repository: TinyRepository, tmp_path: Path) -> Path:
    """A working directory with manifests of two versions."""
    directory = tmp_path / "project" / "instances"
    directory.mkdir(parents=True)
    for name, version in (("old", "b11401"), ("new", "latest")):
        text = f'name = "{name}"\nversion = "{version}"\narch = "cpu"\nrepo-url = "{tiny_repository.url}"\n'
        (directory / f"{name}.toml").write_text(f"{text}python = false\n")
    cli.cwd = directory.parent
    return directory


def version_of(cli: Cli, name: str) -> str:
    return cli.done("exec", "-i", name, "llama-server", "--", "--version").stderr


def actions(document: dict[str, list[dict[str, str]]], key: str = "action") -> dict[str, str]:
    return {row["name"]: row[key] for row in document["instances"]}


def test_a_machine_follows_its_manifests(cli: Cli, team: Path, home: Home) -> None:
    drift = cli.json("instance", "sync", "--check", status=4)
    assert actions(drift, "state") == {"new": "missing", "old": "missing"}
    assert drift["error"]["code"] == "out_of_date"  # type: ignore[call-overload]
    assert not home.builds_dir.exists()

    assert actions(cli.json("instance", "sync")) == {"new": "built", "old": "built"}
    assert "11401" in version_of(cli, "old")
    assert "11434" in version_of(cli, "new")
    assert actions(cli.json("instance", "sync")) == {"new": "unchanged", "old": "unchanged"}
    cli.done("instance", "sync", "--check")

    cli.done("instance", "lock")
    locked = json.loads((team / "llama-mgr.lock").read_text())["instances"]
    assert {one["name"]: one["version"] for one in locked} == {"new": "b11434", "old": "b11401"}
    cli.done("instance", "sync", "--locked", "--check")

    (team / "old.toml").unlink()
    refused = cli("instance", "sync", "--prune")
    assert (refused.status, refused.stdout) == (2, "")
    assert "--yes" in refused.stderr
    assert actions(cli.json("instance", "sync", "--prune", "-y")) == {"new": "unchanged", "old": "removed"}
    assert [row["name"] for row in cli.json("instance", "list")["instances"]] == ["new"]
    assert len(list(home.builds_dir.iterdir())) == 1


def test_a_manifest_that_fails_does_not_stop_the_others_and_nothing_is_pruned(cli: Cli, team: Path) -> None:
    cli.done("instance", "sync")
    (team / "new.toml").unlink()
    broken = (team / "old.toml").read_text().replace('"old"', '"broken"').replace("b11401", "b99999")
    (team / "broken.toml").write_text(broken)
    document = cli.json("instance", "sync", "--prune", "-y", status=3)
    assert actions(document) == {"broken": "failed", "old": "unchanged"}
    assert document["error"]["code"] == "unknown_version"
    assert [row["name"] for row in cli.json("instance", "list")["instances"]] == ["new", "old"]
    answer = cli("instance", "sync")
    assert answer.status == 3
    assert "unchanged" in answer.stdout
    assert answer.stderr.splitlines()[-2].startswith("error: ")


def test_repair_and_rollback_and_gc(cli: Cli, team: Path, home: Home) -> None:
    url = (team / "old.toml").read_text().split('repo-url = "')[1].split('"')[0]
    install = ("install", "main", "--arch", "cpu", "--ignore-python", "--repo-url", url)
    for version in ("b11401", "b11434"):
        cli.done(*install, version)
    shown = cli.json("instance", "show", "main")
    assert [one["version"] for one in shown["history"]] == ["b11434", "b11401"]
    program = Path(cli.json("instance", "which", "llama-server")["path"])
    assert cli.done("instance", "which", "llama-server", "--path").stdout == f"{program}\n"

    whole = program.read_bytes()
    program.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert cli("instance", "repair", "main", "--check").status == 5
    cli.done("instance", "repair", "main")
    cli.done("instance", "repair", "main", "--check")
    assert "11434" in version_of(cli, "main")

    answer = cli.json("instance", "rollback", "main", PATH="/nothing")
    assert (answer["from"]["version"], answer["to"]["version"]) == ("b11434", "b11401")
    assert "11401" in version_of(cli, "main")

    assert cli.json("instance", "gc")["builds"] == []
    garbage = cli.json("instance", "gc", "--keep", "1")
    assert garbage["builds"] == [shown["build_id"]]
    assert garbage["freed_bytes"] > 10_000
    assert cli("instance", "rollback", "main").status == 3
    assert not any(home.staging_dir.iterdir())
    assert not any(home.trash_dir.iterdir())
    assert "main is linked" not in cli.done("instance", "list").stdout
    own = shutil.copytree(home.builds_dir / answer["to"]["build_id"], home.root.parent / "own")
    cli.done("instance", "link", "mine", own)
    assert "11401" in version_of(cli, "mine")
    cli.done("uninstall", "mine")
    assert "11401" in version_of(cli, "main")
