"""What gc removes, what it never touches, and the race with an install that is about to point."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_mgr import locks, staging
from llama_mgr.build.builder import Prepared
from llama_mgr.build.record import BuildRecord, Builds
from llama_mgr.errors import CorruptStateError
from llama_mgr.instances.garbage import Collector, Garbage
from llama_mgr.instances.installation import Installer
from llama_mgr.instances.instance import Instances, WantedBuild
from llama_mgr.paths import Home
from llama_mgr.report import SilentReporter
from tests.tools.shelf_build import MakeBuild, ShelfBuilder
from tests.tools.tiny_repository import TinyRepository


def collect(
    home: Home,
    installer: Installer,
    running: dict[str, list[str]] | None = None,
    *,
    keep: int | None = None,
    dry: bool = False,
) -> Garbage:
    return Collector(home, installer, running or {}, SilentReporter(), dry_run=dry).collect(keep)


def everything(root: Path) -> set[Path]:
    return {path for path in root.rglob("*") if "locks" not in path.parts}


def test_unneeded_builds_go_and_needed_ones_stay(home: Home, shelf_installer: Installer, make_build: MakeBuild) -> None:
    old, new, unneeded, served = (make_build(number) for number in (1, 2, 3, 4))
    for build in (old, new):
        Instances(home).point("main", build, WantedBuild())
    garbage = collect(home, shelf_installer, {served.build_id: ["chat"]})
    assert garbage.builds == [unneeded.build_id]
    assert garbage.freed_bytes > 0
    assert sorted(Builds(home).ids()) == sorted([old.build_id, new.build_id, served.build_id])
    assert collect(home, shelf_installer, {served.build_id: ["chat"]}) == Garbage()


def test_keep_forgets_older_generations_first(home: Home, shelf_installer: Installer, make_build: MakeBuild) -> None:
    builds = [make_build(number) for number in (1, 2, 3)]
    for build in builds:
        Instances(home).point("main", build, WantedBuild())
    Instances(home).point("other", builds[0], WantedBuild())
    dry = collect(home, shelf_installer, keep=1, dry=True)
    real = collect(home, shelf_installer, keep=1)
    assert dry == real
    assert real.builds == [builds[1].build_id]
    assert real.generations == {"main": [builds[1].build_id, builds[0].build_id]}
    assert Instances(home).find("main").build_ids() == [builds[2].build_id]


def test_a_dry_run_changes_nothing(home: Home, shelf_installer: Installer, make_build: MakeBuild) -> None:
    for number in (1, 2):
        Instances(home).point("main", make_build(number), WantedBuild())
    make_build(3)
    (home.staging_dir / "dead").mkdir(parents=True)
    (home.trash_dir / "rubbish").mkdir(parents=True)
    (home.instances_dir / "gone").mkdir()
    before = everything(home.root)
    garbage = collect(home, shelf_installer, keep=1, dry=True)
    assert everything(home.root) == before
    assert (len(garbage.builds), garbage.staging, garbage.trash, garbage.instance_dirs) == (2, ["dead"], 1, ["gone"])


def test_leftovers_of_killed_commands_go(home: Home, shelf_installer: Installer) -> None:
    (home.staging_dir / "dead").mkdir(parents=True)
    (home.staging_dir / "dead" / ".alive").touch()
    (home.trash_dir / "rubbish").mkdir(parents=True)
    (home.instances_dir / "gone").mkdir(parents=True)
    (home.instances_dir / "gone" / "current").symlink_to("../../builds/x")
    collect(home, shelf_installer)
    assert not list(home.staging_dir.iterdir())
    assert not list(home.trash_dir.iterdir())
    assert not list(home.instances_dir.iterdir())


def test_work_in_progress_stays(home: Home, shelf_installer: Installer) -> None:
    with staging.staging(home, "install") as staged:
        (staged / "half-done").touch()
        assert collect(home, shelf_installer).staging == []
        assert (staged / "half-done").exists()


def test_a_strangers_file_in_an_instance_directory_stays(home: Home, shelf_installer: Installer) -> None:
    (home.instances_dir / "gone").mkdir(parents=True)
    (home.instances_dir / "gone" / "thesis.txt").touch()
    assert collect(home, shelf_installer).instance_dirs == []
    assert (home.instances_dir / "gone" / "thesis.txt").exists()


def test_an_instance_that_is_being_installed_stays(home: Home, shelf_installer: Installer) -> None:
    (home.instances_dir / "main").mkdir(parents=True)
    with Instances(home).locked("main", "install main", SilentReporter()):
        assert collect(home, shelf_installer).instance_dirs == []
    assert (home.instances_dir / "main").is_dir()


class LateCollector(Collector):
    """Looked for directories without a record before the install of `main` wrote it."""

    def _names_without_record(self) -> Iterator[str]:
        yield "main"


def test_an_instance_that_was_installed_meanwhile_stays(
    home: Home, shelf_installer: Installer, make_build: MakeBuild
) -> None:
    Instances(home).point("main", make_build(1), WantedBuild())
    assert LateCollector(home, shelf_installer, {}, SilentReporter()).collect().instance_dirs == []
    assert Instances(home).find("main").name == "main"


def test_a_build_that_we_did_not_make_stays(home: Home, shelf_installer: Installer, make_build: MakeBuild) -> None:
    build = make_build(1)
    (Builds(home).directory(build.build_id) / staging.MARKER_NAME).unlink()
    other = make_build(2)
    assert collect(home, shelf_installer).builds == [other.build_id]
    assert Builds(home).ids() == [build.build_id]


def test_a_damaged_record_stops_everything(home: Home, shelf_installer: Installer, make_build: MakeBuild) -> None:
    """Nobody knows which builds it needs."""
    build = make_build(1)
    home.instances_dir.mkdir()
    (home.instances_dir / "main.json").write_bytes(b"{")
    with pytest.raises(CorruptStateError):
        collect(home, shelf_installer)
    assert Builds(home).ids() == [build.build_id]


class PausedBuilder(ShelfBuilder):
    """Finishes its build, then waits before the installer may go on to point at it."""

    published: threading.Event
    go_on: threading.Event

    def build(self, prepared: Prepared, parallel: int | None = None) -> tuple[BuildRecord, bool]:
        made = super().build(prepared, parallel)
        self.published.set()
        assert self.go_on.wait(30)
        return made


@contextlib.contextmanager
def paused_install(home: Home, installer: Installer, url: str) -> Iterator[PausedBuilder]:
    """Run an install that has published its build, and has not pointed at it yet."""
    installer.builder.__class__ = PausedBuilder
    builder = installer.builder
    assert isinstance(builder, PausedBuilder)
    builder.published, builder.go_on = threading.Event(), threading.Event()
    wanted = WantedBuild(version="b11434", repo_url=url)
    work = threading.Thread(target=installer.install, args=("main", wanted))
    work.start()
    try:
        assert builder.published.wait(30)
        yield builder
    finally:
        builder.go_on.set()
        work.join(30)
    assert not Instances(home).find("main").linked


@pytest.mark.parametrize("remove", ["gc", "uninstall"])
def test_a_build_that_an_install_is_about_to_point_at_stays(
    home: Home, shelf_installer: Installer, tiny_repository: TinyRepository, environ: dict[str, str], remove: str
) -> None:
    from llama_mgr.settings import Settings

    other = Installer(home, Settings(), environ, SilentReporter())
    with paused_install(home, shelf_installer, tiny_repository.url):
        (build_id,) = Builds(home).ids()
        if remove == "gc":
            assert collect(home, other).builds == []
        else:
            Instances(home).point("old", Builds(home).find(build_id), WantedBuild())
            assert other.uninstall("old", {}) == []
        assert Builds(home).ids() == [build_id]
    current = Instances(home).find("main").current
    Builds(home).check_hashes(Builds(home).find(current.build_id))


def test_an_install_waits_for_a_deletion_and_builds_again(
    home: Home, shelf_installer: Installer, tiny_repository: TinyRepository
) -> None:
    wanted = WantedBuild(version="b11434", repo_url=tiny_repository.url)
    build_id = shelf_installer.install("main", wanted).build.build_id
    Instances(home).remove("main")
    claim = f"claim-{build_id.rpartition('-')[2]}"
    work = threading.Thread(target=shelf_installer.install, args=("again", wanted))
    with locks.held_lock(home, claim, "delete it", SilentReporter()):
        work.start()
        work.join(1)
        assert work.is_alive(), "the install did not wait for the deletion"
        Builds(home).discard(build_id)
    work.join(30)
    assert Instances(home).find("again").current.build_id == build_id
    Builds(home).check_hashes(Builds(home).find(build_id))


def test_two_installs_may_claim_one_build_at_once(home: Home, shelf_installer: Installer) -> None:
    with (
        locks.held_lock(home, "claim-x", "install a", SilentReporter(), timeout_s=0, shared=True),
        locks.held_lock(home, "claim-x", "install b", SilentReporter(), timeout_s=0, shared=True),
    ):
        assert locks.is_locked(locks.lock_file(home, "claim-x"))
        assert shelf_installer.discard_unneeded("b1-cpu-x", {}) is False
