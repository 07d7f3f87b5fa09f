"""Repair: what is found, what is built again, and that a failed repair takes nothing away."""

import shlex
import shutil
from pathlib import Path

import pytest

from llama_mgr.build import use
from llama_mgr.build.builder import Prepared
from llama_mgr.build.record import BuildRecord, Builds
from llama_mgr.errors import BuildFailedError, IntegrityError, InUseError, LlamaMgrError, NotFoundError
from llama_mgr.instances.health import held_locks
from llama_mgr.instances.installation import Installer
from llama_mgr.instances.instance import Instance, Instances, WantedBuild
from llama_mgr.instances.repair import damage, repair
from llama_mgr.paths import Home
from llama_mgr.report import SilentReporter
from llama_mgr.settings import BuildSettings, Settings
from tests.conftest import Cli
from tests.tools.listener import Listener
from tests.tools.shelf_build import MakeBuild, ShelfBuilder, program_of
from tests.tools.tiny_repository import TINY_DIR, TinyRepository


@pytest.fixture
def build_id(shelf_installer: Installer, tiny_repository: TinyRepository) -> str:
    """The build of the instance `main`: the newest, asked for as `latest`."""
    wanted = WantedBuild(version="latest", repo_url=tiny_repository.url)
    return shelf_installer.install("main", wanted).build.build_id


def spoil(home: Home, build_id: str, how: str) -> None:
    program = program_of(home, build_id)
    if how == "other bytes":
        program.write_bytes(program.read_bytes()[:-2] + b"x\n")
    elif how == "file gone":
        program.unlink()
    elif how == "not executable":
        program.chmod(0o644)
    elif how == "record gone":
        (Builds(home).directory(build_id) / "build.json").unlink()
    elif how == "record torn":
        (Builds(home).directory(build_id) / "build.json").write_bytes(b"{")
    else:
        Builds(home).directory(build_id).rename(home.root / "elsewhere")


def test_a_whole_instance_needs_nothing(shelf_installer: Installer, build_id: str) -> None:
    assert damage(shelf_installer, "main").first is None
    assert repair(shelf_installer, "main", dict, SilentReporter(), None) == []
    assert Builds(shelf_installer.instances._home).ids() == [build_id]


@pytest.mark.parametrize(
    "how", ["other bytes", "file gone", "not executable", "record gone", "record torn", "build gone"]
)
def test_a_damaged_build_is_made_again_from_the_same_commit(
    home: Home, shelf_installer: Installer, build_id: str, how: str, tiny_repository: TinyRepository
) -> None:
    spoil(home, build_id, how)
    assert isinstance(damage(shelf_installer, "main").first, LlamaMgrError)
    assert len(repair(shelf_installer, "main", dict, SilentReporter(), None)) == 1
    assert damage(shelf_installer, "main").first is None
    now = Instances(home).find("main").current
    assert (now.build_id, now.commit) == (build_id, tiny_repository.commits["b11434"])
    assert now.wanted.version == "latest"


def failing(installer: Installer) -> ShelfBuilder:
    builder = installer.builder
    assert isinstance(builder, ShelfBuilder)
    builder.fail = BuildFailedError("cannot build")
    return builder


def test_after_a_failed_repair_the_instance_runs_as_before(
    cli: Cli, home: Home, shelf_installer: Installer, build_id: str
) -> None:
    spoil(home, build_id, "other bytes")
    builder = failing(shelf_installer)
    with pytest.raises(BuildFailedError):
        repair(shelf_installer, "main", dict, SilentReporter(), None)
    assert "version: " in cli.done("exec", "-i", "main", "llama-server").stdout
    assert Instances(home).find("main").build_ids() == [build_id]
    builder.fail = None
    repair(shelf_installer, "main", dict, SilentReporter(), None)
    assert damage(shelf_installer, "main").first is None


def test_after_a_failed_repair_rollback_can_return(
    home: Home, shelf_installer: Installer, build_id: str, tiny_repository: TinyRepository
) -> None:
    spoil(home, build_id, "other bytes")
    builder = failing(shelf_installer)
    with pytest.raises(BuildFailedError):
        repair(shelf_installer, "main", dict, SilentReporter(), None)
    builder.fail = None
    shelf_installer.install("main", WantedBuild(version="b11401", repo_url=tiny_repository.url))
    assert Instances(home).roll_back("main").current.build_id == build_id


@pytest.fixture
def earlier_id(shelf_installer: Installer, build_id: str, tiny_repository: TinyRepository) -> str:
    """What `main` was before it became another build."""
    shelf_installer.install("main", WantedBuild(version="b11401", repo_url=tiny_repository.url))
    return build_id


@pytest.mark.parametrize("how", ["other bytes", "file gone", "build gone"])
def test_rollback_names_the_command_that_mends_the_earlier_build(
    cli: Cli, home: Home, shelf_installer: Installer, earlier_id: str, how: str
) -> None:
    before = Instances(home).find("main").build_ids()
    spoil(home, earlier_id, how)
    if how != "other bytes":  # of the same size, which rollback takes as whole
        answer = cli("instance", "rollback", "main")
        assert (answer.status, "hint:  llama-mgr instance repair main\n" in answer.stderr) == (5, True), answer.stderr
    assert cli("instance", "repair", "main", "--check").status == 5
    assert repair(shelf_installer, "main", dict, SilentReporter(), None) == [f"built {earlier_id} again"]
    assert Instances(home).find("main").build_ids() == before
    cli.done("instance", "repair", "main", "--check")
    cli.done("instance", "rollback", "main")
    assert Instances(home).find("main").current.build_id == earlier_id


def test_another_compiler_gives_the_earlier_build_another_id_in_the_same_place(
    home: Home, shelf_installer: Installer, earlier_id: str, tiny_repository: TinyRepository
) -> None:
    shelf_installer.install("main", WantedBuild(version="v0.6.0", repo_url=tiny_repository.url))
    newest, middle, _ = Instances(home).find("main").build_ids()
    spoil(home, middle, "file gone")
    shelf_installer.builder._settings = Settings(build=BuildSettings(cmake_args=["-DGGML_LTO=ON"]))
    repair(shelf_installer, "main", dict, SilentReporter(), None)
    now = Instances(home).find("main")
    assert now.build_ids()[::2] == [newest, earlier_id]
    assert now.generations[1].version == "b11401"
    assert middle not in Builds(home).ids()
    assert damage(shelf_installer, "main").first is None


def test_an_earlier_build_that_turns_into_the_current_one_is_there_once(home: Home, earlier_id: str) -> None:
    instances = Instances(home)
    current = instances.find("main").current.build_id
    instances.replace_build("main", earlier_id, Builds(home).find(current))
    assert instances.find("main").build_ids() == [current]


class Tree:
    """The instance `main` of a local tree, whose earlier states are gone, so that they cannot be built again."""

    def __init__(self, directory: Path, installer: Installer) -> None:
        self.directory = shutil.copytree(TINY_DIR, directory)
        self._installer = installer

    def write(self, text: str) -> None:
        (self.directory / "README.md").write_text(text)

    def install(self, text: str) -> str:
        self.write(text)
        return self._installer.install("main", WantedBuild(version=str(self.directory))).build.build_id


@pytest.fixture
def tree(tmp_path: Path, shelf_installer: Installer) -> Tree:
    return Tree(tmp_path / "tree", shelf_installer)


def advised(installer: Installer) -> list[str]:
    """Return the words of the command that a repair of `main`, which fails, tells; it can be pasted as it is."""
    with pytest.raises((IntegrityError, NotFoundError)) as caught:
        repair(installer, "main", dict, SilentReporter(), None)
    assert caught.value.hint is not None
    return shlex.split(caught.value.hint)


@pytest.mark.parametrize("how", ["changed", "gone"])
def test_an_earlier_build_whose_source_is_no_more_can_be_forgotten_by_its_instance_alone(
    cli: Cli, home: Home, shelf_installer: Installer, tree: Tree, make_build: MakeBuild, how: str
) -> None:
    gone, current = tree.install("one"), tree.install("two")
    for number in (1, 2):
        Instances(home).point("other", make_build(number), WantedBuild())
    others = Instances(home).find("other")
    spoil(home, gone, "file gone")
    if how == "gone":
        shutil.rmtree(tree.directory)
    words = advised(shelf_installer)
    assert words == ["llama-mgr", "instance", "gc", "main", "--keep", "1"]
    cli.done(*words[1:])
    cli.done("instance", "repair", "main", "--check")
    assert Instances(home).find("main").build_ids() == [current]
    assert Instances(home).find("other") == others


def test_a_current_build_whose_source_was_changed_can_be_updated(
    home: Home, shelf_installer: Installer, tree: Tree
) -> None:
    spoil(home, tree.install("one"), "file gone")
    tree.write("two")
    assert advised(shelf_installer) == ["llama-mgr", "update", "main", str(tree.directory)]
    shelf_installer.update("main", str(tree.directory))
    Instances(home).trim("main", 1)
    assert damage(shelf_installer, "main").first is None


def test_what_cannot_be_mended_keeps_nothing_else_from_being_mended(
    home: Home, shelf_installer: Installer, tree: Tree, tiny_repository: TinyRepository
) -> None:
    oldest = tree.install("one")
    old = shelf_installer.install("main", WantedBuild(version="b11401", repo_url=tiny_repository.url)).build.build_id
    older, current = tree.install("two"), tree.install("three")
    for build_id in (oldest, old, older, current):
        spoil(home, build_id, "file gone")
    link = home.instances_dir / "main" / "current"
    link.unlink()
    whole: list[bool] = []

    def after(instance: Instance) -> str:
        Instances(home).require_whole(instance, instance.current.build_id)
        whole.append(link.resolve() == Instances(home).prefix(instance))
        return "mended the rest"

    said = Listener()
    with pytest.raises(IntegrityError) as caught:
        repair(shelf_installer, "main", dict, said, None, after)
    assert caught.value.hint == "llama-mgr instance gc main --keep 1"
    assert set(damage(shelf_installer, "main").builds) == {oldest, older}
    assert whole == [True]
    assert [one for one in said.notes if not one.startswith("--arch")] == [
        f"put the link {link} right", f"built {current} again", "mended the rest", f"built {old} again",
        "llama-mgr instance gc main --keep 3",
    ]  # fmt: skip
    assert any("cannot find the recorded commit" in warning for warning in said.warnings)


def test_earlier_builds_are_mended_even_where_the_current_one_cannot_be(
    home: Home, shelf_installer: Installer, tree: Tree, tiny_repository: TinyRepository
) -> None:
    earlier = shelf_installer.install("main", WantedBuild(version="b11401", repo_url=tiny_repository.url))
    current = tree.install("one")
    tree.write("two")
    for build_id in (earlier.build.build_id, current):
        spoil(home, build_id, "file gone")
    called: list[str] = []
    with pytest.raises(IntegrityError):
        repair(
            shelf_installer, "main", dict, SilentReporter(), None, lambda instance: called.append(instance.name) or ""
        )
    assert (list(damage(shelf_installer, "main").builds), called) == ([current], [])


class WatchedBuilder(ShelfBuilder):
    """Notes which locks are held while it builds."""

    held: set[str]

    def build(
        self, prepared: Prepared, parallel: int | None = None, *, by_hash: bool = False
    ) -> tuple[BuildRecord, bool]:
        self.held = {lock.name.rpartition("-")[0] for lock in held_locks(self.home)}
        return super().build(prepared, parallel, by_hash=by_hash)


def test_a_repair_holds_instance_and_claim(home: Home, shelf_installer: Installer, build_id: str) -> None:
    spoil(home, build_id, "file gone")
    shelf_installer.builder.__class__ = WatchedBuilder
    repair(shelf_installer, "main", dict, SilentReporter(), None)
    assert isinstance(shelf_installer.builder, WatchedBuilder)
    assert shelf_installer.builder.held == {"instance", "claim"}


def test_a_build_that_a_program_runs_from_is_not_replaced(
    home: Home, shelf_installer: Installer, build_id: str
) -> None:
    spoil(home, build_id, "other bytes")
    with use.used(home, build_id, "run llama-cli", SilentReporter()), pytest.raises(InUseError, match="run llama-cli"):
        repair(shelf_installer, "main", dict, SilentReporter(), None)


def test_a_build_that_a_server_runs_is_not_replaced(home: Home, shelf_installer: Installer, build_id: str) -> None:
    spoil(home, build_id, "other bytes")
    with pytest.raises(InUseError, match="chat"):
        repair(shelf_installer, "main", lambda: {build_id: ["chat"]}, SilentReporter(), None)


@pytest.mark.parametrize("target", ["/etc", "../../builds/nothing", None], ids=["outside", "dangling", "missing"])
def test_the_link_is_put_right(home: Home, shelf_installer: Installer, build_id: str, target: str | None) -> None:
    link = home.instances_dir / "main" / "current"
    link.unlink()
    if target:
        link.symlink_to(target)
    assert isinstance(damage(shelf_installer, "main").link, LlamaMgrError)
    repair(shelf_installer, "main", dict, SilentReporter(), None)
    assert link.resolve() == Builds(home).directory(build_id)
    assert damage(shelf_installer, "main").first is None
