"""Locking and synchronizing, with real git and real recipes; only the compiler is left out."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from llama_mgr.build.record import Builds
from llama_mgr.errors import CorruptStateError, IntegrityError, OutOfDateError, UnknownVersionError
from llama_mgr.instances.installation import Installer
from llama_mgr.instances.instance import Instance, Instances
from llama_mgr.instances.lock import LOCK_NAME, LockFile, read_lock, write_lock
from llama_mgr.instances.manifest import read_manifests
from llama_mgr.instances.sync import Done, Sync
from llama_mgr.paths import Home
from llama_mgr.settings import Settings
from tests.conftest import Cli
from tests.tools.shelf_build import ShelfBuilder, program_of
from tests.tools.tiny_repository import TinyRepository, make_tiny_repository, run_git


@dataclass
class Team:
    """A directory of manifests about the tiny repository, and the machine that follows it."""

    directory: Path
    repository: TinyRepository
    installer: Installer
    home: Home

    def manifest(self, name: str, text: str) -> None:
        head = f'name = "{name}"\narch = "cpu"\nrepo-url = "{self.repository.url}"\n'
        (self.directory / f"{name}.toml").write_text(head + text)

    def lock(self) -> LockFile:
        return write_lock(self.directory, read_manifests(self.directory), self.installer, Settings())

    def states(self, *, locked: bool = False, prune: bool = False) -> dict[str, str]:
        steps = self._sync(locked=locked).steps(read_manifests(self.directory), prune=prune)
        return {step.name: step.state for step in steps}

    def synced(self, *, locked: bool = False, prune: bool = False) -> dict[str, Done]:
        sync = self._sync(locked=locked)
        done = [
            sync.remove(step, dict) if step.state == "surplus" else sync.install(step)
            for step in sync.steps(read_manifests(self.directory), prune=prune)
        ]
        return {one.name: one for one in done}

    def actions(self, *, locked: bool = False, prune: bool = False) -> dict[str, str]:
        return {name: one.action for name, one in self.synced(locked=locked, prune=prune).items()}

    def current(self, name: str) -> tuple[str, str]:
        now = Instances(self.home).find(name).current
        return now.version, now.commit

    def _sync(self, *, locked: bool) -> Sync:
        return Sync(self.installer, Settings(), read_lock(self.directory) if locked else None)


@pytest.fixture
def team(shelf_installer: Installer, home: Home, tmp_path: Path, tiny_repository: TinyRepository) -> Team:
    directory = tmp_path / "team"
    directory.mkdir()
    return Team(directory, tiny_repository, shelf_installer, home)


def built(team: Team) -> list[str]:
    assert isinstance(team.installer.builder, ShelfBuilder)
    return team.installer.builder.built


def test_sync_installs_what_is_missing_and_then_does_nothing(team: Team) -> None:
    team.manifest("fixed", 'version = "b11401"\n')
    team.manifest("newest", 'version = "latest"\n')
    assert team.states() == {"fixed": "missing", "newest": "missing"}
    assert team.actions() == {"fixed": "built", "newest": "built"}
    assert team.states() == {"fixed": "equal", "newest": "equal"}
    assert team.actions() == {"fixed": "unchanged", "newest": "unchanged"}
    assert sorted(built(team)) == ["b11401", "b11434"]


def test_what_belongs_to_an_instance_is_made_even_when_that_is_equal(team: Team) -> None:
    team.manifest("one", 'version = "b11401"\npython = false\n')
    seen: list[tuple[str, bool | None]] = []

    def after(instance: Instance) -> None:
        seen.append((instance.name, instance.current.wanted.python))

    for line in ("python = false", "python = false", "python = true"):
        team.manifest("one", f'version = "b11401"\n{line}\n')
        sync = Sync(team.installer, Settings())
        for step in sync.steps(read_manifests(team.directory)):
            assert sync.install(step, None, after).error is None
    assert seen == [("one", False), ("one", False), ("one", True)]
    assert built(team) == ["b11401"]


@pytest.mark.parametrize("python", ["true", "false"])
def test_a_record_that_does_not_say_whether_python_is_wanted_equals_its_manifest(team: Team, python: str) -> None:
    team.manifest("one", f'version = "b11401"\npython = {python}\n')
    team.synced()
    record = team.home.instances_dir / "one.json"
    document = json.loads(record.read_text())
    for generation in document["generations"]:
        del generation["wanted"]["python"]
    record.write_text(json.dumps(document))
    assert Instances(team.home).find("one").current.wanted.python is None
    assert team.states() == {"one": "equal"}
    assert team.actions() == {"one": "unchanged"}
    assert Instances(team.home).find("one").current.wanted.python is (python == "true")


def test_a_changed_manifest_changes_its_instance_only(team: Team) -> None:
    team.manifest("one", 'version = "b11401"\n')
    team.manifest("two", 'version = "b11401"\n')
    team.synced()
    team.manifest("two", 'version = "b11434"\n')
    assert team.states() == {"one": "equal", "two": "changed"}
    team.synced()
    assert team.current("one")[0] == "b11401"
    assert team.current("two")[0] == "b11434"


def test_a_damaged_build_is_made_again(team: Team) -> None:
    team.manifest("one", 'version = "b11401"\n')
    team.synced()
    build_id = Instances(team.home).find("one").current.build_id
    program_of(team.home, build_id).unlink()
    assert team.states() == {"one": "damaged"}
    assert team.actions() == {"one": "built"}
    Builds(team.home).check_hashes(Builds(team.home).find(build_id))


def test_one_failure_does_not_stop_the_others(team: Team) -> None:
    team.manifest("a-broken", 'version = "b99999"\n')
    team.manifest("b-good", 'version = "b11401"\n')
    done = team.synced()
    assert isinstance(done["a-broken"].error, UnknownVersionError)
    assert done["b-good"].action == "built"
    assert Instances(team.home).names() == ["b-good"]


def test_prune_removes_what_no_manifest_lists(team: Team) -> None:
    team.manifest("keep", 'version = "b11401"\n')
    team.manifest("drop", 'version = "b11434"\n')
    team.synced()
    (team.directory / "drop.toml").unlink()
    assert team.states() == {"keep": "equal"}
    assert team.states(prune=True) == {"keep": "equal", "drop": "surplus"}
    assert team.actions(prune=True) == {"keep": "unchanged", "drop": "removed"}
    assert Instances(team.home).names() == ["keep"]
    assert [Builds(team.home).find(one).plan.version for one in Builds(team.home).ids()] == ["b11401"]


def test_lock_writes_the_exact_commits(team: Team) -> None:
    team.manifest("fixed", 'version = "v0.6.0"\n')
    team.manifest("newest", 'version = "latest"\n')
    team.manifest("branch", 'branch = "feature-x"\n')
    locked = {one.name: one for one in team.lock().instances}
    commits = team.repository.commits
    assert (locked["fixed"].version, locked["fixed"].commit) == ("v0.6.0", commits["v0.6.0"])
    assert (locked["newest"].version, locked["newest"].commit) == ("b11434", commits["b11434"])
    assert (locked["branch"].version, locked["branch"].commit) == ("feature-x", commits["feature-x"])
    assert locked["newest"].build_number == 11434
    assert read_lock(team.directory).instances == [locked[name] for name in sorted(locked)]
    document = json.loads((team.directory / LOCK_NAME).read_text())
    assert (document["schema"], document["kind"]) == (1, "instance-lock")


def test_a_lock_of_nothing_new_is_the_same_bytes(team: Team) -> None:
    team.manifest("newest", "")
    team.lock()
    before = (team.directory / LOCK_NAME).read_bytes()
    team.lock()
    assert (team.directory / LOCK_NAME).read_bytes() == before


def test_a_failed_lock_leaves_the_old_one(team: Team) -> None:
    team.manifest("good", "")
    team.lock()
    before = (team.directory / LOCK_NAME).read_bytes()
    team.manifest("bad", 'version = "b99999"\n')
    with pytest.raises(UnknownVersionError):
        team.lock()
    assert (team.directory / LOCK_NAME).read_bytes() == before


def moving_team(team: Team, tmp_path: Path) -> Team:
    """The same team with a repository of its own, which may move."""
    return Team(team.directory, make_tiny_repository(tmp_path / "moving.git"), team.installer, team.home)


def test_locked_keeps_the_commit_of_a_branch_that_moved_and_shows_its_name(team: Team, tmp_path: Path) -> None:
    team = moving_team(team, tmp_path)
    team.manifest("branch", 'branch = "feature-x"\n')
    team.lock()
    old, new = team.repository.commits["feature-x"], team.repository.commits["b11401"]
    run_git("update-ref", "refs/heads/feature-x", new, cwd=team.repository.path)
    assert team.actions(locked=True) == {"branch": "built"}
    assert team.current("branch") == ("feature-x", old)
    assert team.states(locked=True) == {"branch": "equal"}
    assert team.states() == {"branch": "changed"}
    team.synced()
    assert team.current("branch") == ("feature-x", new)
    assert team.states(locked=True) == {"branch": "changed"}


def test_locked_and_unlocked_builds_of_one_commit_are_one_build(team: Team) -> None:
    team.manifest("newest", "")
    team.synced()
    team.lock()
    team.manifest("again", "")
    team.lock()
    assert team.actions(locked=True) == {"newest": "unchanged", "again": "reused"}
    assert built(team) == ["b11434"]


def test_a_tag_that_was_moved_is_an_integrity_error(team: Team, tmp_path: Path) -> None:
    team = moving_team(team, tmp_path)
    team.manifest("fixed", 'version = "b11401"\n')
    team.lock()
    run_git("update-ref", "refs/tags/b11401", team.repository.commits["b11434"], cwd=team.repository.path)
    fresh = team.home.source_dir
    for mirror in fresh.glob("*"):
        mirror.rename(tmp_path / mirror.name)
    error = team.synced(locked=True)["fixed"].error
    assert isinstance(error, IntegrityError)
    assert f"`llama-mgr instance lock {team.directory}`" in str(error.hint)
    assert Instances(team.home).names() == []


@pytest.mark.parametrize("change", ["edited", "added"])
def test_locked_refuses_manifests_that_the_lock_does_not_know(team: Team, change: str) -> None:
    team.manifest("one", 'version = "b11401"\n')
    team.lock()
    team.manifest("one" if change == "edited" else "two", 'version = "b11434"\n')
    with pytest.raises(OutOfDateError, match=r"one\.toml" if change == "edited" else r"two\.toml") as caught:
        team.states(locked=True)
    assert f"`llama-mgr instance lock {team.directory}`" in str(caught.value.hint)
    assert Instances(team.home).names() == []


def test_locked_without_a_lock_file(team: Team) -> None:
    team.manifest("one", "")
    with pytest.raises(OutOfDateError) as caught:
        team.states(locked=True)
    assert f"`llama-mgr instance lock {team.directory}`" in str(caught.value.hint)


@pytest.mark.parametrize(
    "change", [{"commit": "b11401"}, {"commit": "--upload-pack=x"}, {"version": ""}, {"build_number": "x"}], ids=str
)
def test_a_damaged_lock_file_is_refused(team: Team, change: dict[str, object]) -> None:
    team.manifest("one", "")
    team.lock()
    file = team.directory / LOCK_NAME
    document = json.loads(file.read_text())
    document["instances"][0] |= change
    file.write_text(json.dumps(document))
    with pytest.raises(CorruptStateError) as caught:
        team.states(locked=True)
    assert f"`llama-mgr instance lock {team.directory}`" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("words", "command"),
    [
        ([], "llama-mgr instance sync"),
        (["our team", "--prune"], "llama-mgr instance sync 'our team' --prune"),
        (["our team", "--prune", "--locked"], "llama-mgr instance sync 'our team' --prune --locked"),
    ],
    ids=str,
)
def test_a_check_names_the_command_that_makes_what_it_compared(
    cli: Cli, tmp_path: Path, tiny_repository: TinyRepository, words: list[str], command: str
) -> None:
    directory = tmp_path / (words[0] if words else "instances")
    directory.mkdir()
    text = f'name = "one"\narch = "cpu"\nversion = "b11401"\nrepo-url = "{tiny_repository.url}"\n'
    (directory / "one.toml").write_text(text)
    if "--locked" in words:
        cli.done("instance", "lock", directory)
    document = cli.json("instance", "sync", *words, "--check", status=4)
    assert document["error"]["hint"] == command
