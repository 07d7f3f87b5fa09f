"""Repair: what is found, what is built again, and that a failed repair takes nothing away."""

import pytest

from llama_mgr.build.record import Builds
from llama_mgr.errors import BuildFailedError, InUseError, LlamaMgrError
from llama_mgr.instances.installation import Installer
from llama_mgr.instances.instance import Instances, WantedBuild
from llama_mgr.instances.repair import damage, repair
from llama_mgr.paths import Home
from llama_mgr.report import SilentReporter
from tests.tools.shelf_build import ShelfBuilder, program_of
from tests.tools.tiny_repository import TinyRepository


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
    elif how == "record gone":
        (Builds(home).directory(build_id) / "build.json").unlink()
    elif how == "record torn":
        (Builds(home).directory(build_id) / "build.json").write_bytes(b"{")
    else:
        Builds(home).directory(build_id).rename(home.root / "elsewhere")


def test_a_whole_instance_needs_nothing(shelf_installer: Installer, build_id: str) -> None:
    assert damage(shelf_installer, "main").first is None
    assert repair(shelf_installer, "main", {}, SilentReporter(), None) == []
    assert Builds(shelf_installer.instances._home).ids() == [build_id]


@pytest.mark.parametrize("how", ["other bytes", "file gone", "record gone", "record torn", "build gone"])
def test_a_damaged_build_is_made_again_from_the_same_commit(
    home: Home, shelf_installer: Installer, build_id: str, how: str, tiny_repository: TinyRepository
) -> None:
    spoil(home, build_id, how)
    assert isinstance(damage(shelf_installer, "main").first, LlamaMgrError)
    assert len(repair(shelf_installer, "main", {}, SilentReporter(), None)) == 1
    assert damage(shelf_installer, "main").first is None
    now = Instances(home).find("main").current
    assert (now.build_id, now.commit) == (build_id, tiny_repository.commits["b11434"])
    assert now.wanted.version == "latest"


def test_a_failed_repair_leaves_the_files(home: Home, shelf_installer: Installer, build_id: str) -> None:
    spoil(home, build_id, "other bytes")
    builder = shelf_installer.builder
    assert isinstance(builder, ShelfBuilder)
    builder.fail = BuildFailedError("cannot build")
    with pytest.raises(BuildFailedError):
        repair(shelf_installer, "main", {}, SilentReporter(), None)
    assert program_of(home, build_id).exists()
    assert Instances(home).find("main").build_ids() == [build_id]
    builder.fail = None
    repair(shelf_installer, "main", {}, SilentReporter(), None)
    assert damage(shelf_installer, "main").first is None


def test_a_damaged_build_is_not_reused_by_another_install(
    home: Home, shelf_installer: Installer, build_id: str, tiny_repository: TinyRepository
) -> None:
    """A size that did not change hides the damage from an install, until a repair has begun."""
    spoil(home, build_id, "other bytes")
    Builds(home).condemn(build_id)
    wanted = WantedBuild(version="b11434", repo_url=tiny_repository.url)
    assert shelf_installer.install("other", wanted).action == "built"
    assert damage(shelf_installer, "main").first is None


def test_a_build_that_a_server_runs_is_not_replaced(home: Home, shelf_installer: Installer, build_id: str) -> None:
    spoil(home, build_id, "other bytes")
    with pytest.raises(InUseError, match="chat"):
        repair(shelf_installer, "main", {build_id: ["chat"]}, SilentReporter(), None)


@pytest.mark.parametrize("target", ["/etc", "../../builds/nothing", None], ids=["outside", "dangling", "missing"])
def test_the_link_is_put_right(home: Home, shelf_installer: Installer, build_id: str, target: str | None) -> None:
    link = home.instances_dir / "main" / "current"
    link.unlink()
    if target:
        link.symlink_to(target)
    assert isinstance(damage(shelf_installer, "main").link, LlamaMgrError)
    repair(shelf_installer, "main", {}, SilentReporter(), None)
    assert link.resolve() == Builds(home).directory(build_id)
    assert damage(shelf_installer, "main").first is None
