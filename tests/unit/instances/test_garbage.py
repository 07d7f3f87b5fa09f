"""What gc removes, what it never touches, and the race with an install that is about to point."""

import contextlib
import fcntl
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_mgr import locks, staging
from llama_mgr.build.builder import Prepared
from llama_mgr.build.record import BuildRecord, Builds
from llama_mgr.cli.running import running_builds
from llama_mgr.errors import BuildFailedError, CorruptStateError, UnknownInstanceError
from llama_mgr.instances.garbage import Collector, Garbage
from llama_mgr.instances.health import problems
from llama_mgr.instances.installation import Installer
from llama_mgr.instances.instance import Instances, WantedBuild
from llama_mgr.paths import Home
from llama_mgr.report import SilentReporter
from llama_mgr.serving.server_record import RECORD_KIND, ServerRecord, claimed_lock, server_dir
from llama_mgr.store import write_document
from tests.conftest import Cli
from tests.tools.shelf_build import MakeBuild, ShelfBuilder, program_of
from tests.tools.tiny_repository import TinyRepository


def collect(
    home: Home,
    installer: Installer,
    running: dict[str, list[str]] | None = None,
    *,
    keep: int | None = None,
    only: str | None = None,
    dry: bool = False,
) -> Garbage:
    return Collector(home, installer, lambda: running or {}, SilentReporter(), dry_run=dry).collect(keep, only)


def everything(root: Path) -> dict[Path, bytes | str]:
    """Every path but the locks, with its content."""
    found = (path for path in root.rglob("*") if "locks" not in path.parts)
    return {
        path: str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else "directory"
        for path in found
    }


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


def test_one_instance_alone_may_forget(home: Home, shelf_installer: Installer, make_build: MakeBuild) -> None:
    first, second, third, unneeded = (make_build(number) for number in (1, 2, 3, 4))
    for name, builds in (("main", (first, second)), ("other", (first, third))):
        for build in builds:
            Instances(home).point(name, build, WantedBuild())
    with pytest.raises(UnknownInstanceError):
        collect(home, shelf_installer, keep=1, only="nobody")
    assert unneeded.build_id in Builds(home).ids()
    dry = collect(home, shelf_installer, keep=1, only="main", dry=True)
    real = collect(home, shelf_installer, keep=1, only="main")
    assert dry == real
    assert (real.generations, real.builds) == ({"main": [first.build_id]}, [unneeded.build_id])
    assert Instances(home).find("main").build_ids() == [second.build_id]
    assert Instances(home).find("other").build_ids() == [third.build_id, first.build_id]


def test_a_name_without_keep_is_refused(cli: Cli, home: Home, make_build: MakeBuild) -> None:
    build = make_build(1)
    answer = cli("instance", "gc", "main")
    assert (answer.status, "hint:  llama-mgr instance gc\n" in answer.stderr) == (2, True), answer.stderr
    assert Builds(home).ids() == [build.build_id]


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
    assert LateCollector(home, shelf_installer, dict, SilentReporter()).collect().instance_dirs == []
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

    def build(
        self, prepared: Prepared, parallel: int | None = None, *, by_hash: bool = False
    ) -> tuple[BuildRecord, bool]:
        made = super().build(prepared, parallel, by_hash=by_hash)
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
    assert not work.is_alive()
    assert Instances(home).find("main").current.version == "b11434"


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
            assert other.uninstall("old", dict) == []
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


def test_two_installs_may_claim_one_build_at_once(
    home: Home, shelf_installer: Installer, make_build: MakeBuild
) -> None:
    build_id = make_build(1).build_id
    claim = f"claim-{build_id.rpartition('-')[2]}"
    with (
        locks.held_lock(home, claim, "install a", SilentReporter(), timeout_s=0, shared=True),
        locks.held_lock(home, claim, "install b", SilentReporter(), timeout_s=0, shared=True),
    ):
        assert shelf_installer.discard_unneeded(build_id, dict) is False
        assert Builds(home).ids() == [build_id]
    assert shelf_installer.discard_unneeded(build_id, dict) is True
    assert Builds(home).ids() == []


@contextlib.contextmanager
def program_of_an_instance(cli: Cli, home: Home, build: BuildRecord, seconds: int = 60) -> Iterator[int]:
    """`llama-mgr exec` of the instance `main`, whose program sleeps; yields the pid."""
    program = program_of(home, build.build_id)
    program.write_text(f"#!/bin/sh\necho up\nexec sleep {seconds}\n")
    child = subprocess.Popen(
        cli.argv("exec", "-i", "main", "llama-server"), env=cli.environ, cwd=cli.cwd, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"up\n"
    try:
        yield child.pid
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_the_build_of_a_program_that_exec_started_stays(cli: Cli, home: Home, make_build: MakeBuild) -> None:
    build = make_build(1)
    Instances(home).point("main", build, WantedBuild())
    Instances(home).point("other", build, WantedBuild())
    with program_of_an_instance(cli, home, build) as pid:
        refused = cli("uninstall", "main")
        assert (refused.status, f"pid {pid}" in refused.stderr) == (4, True), refused.stderr
        assert Instances(home).names() == ["main", "other"]
        assert cli.json("uninstall", "main", "--force")["builds"] == []
        cli.done("uninstall", "other", "--force")
        for words in (("instance", "gc", "--dry-run"), ("instance", "gc")):
            document = cli.json(*words)
            assert document["builds"] == []
            assert "in use" in document["kept"][build.build_id]
        assert f"stays: {build.build_id}" in cli.done("instance", "gc").stdout
        assert program_of(home, build.build_id).exists()
    assert cli.json("instance", "gc")["builds"] == [build.build_id]


def test_an_install_of_a_build_that_a_program_runs_from_does_not_wait(
    cli: Cli, home: Home, shelf_installer: Installer, tiny_repository: TinyRepository
) -> None:
    wanted = WantedBuild(version="b11434", repo_url=tiny_repository.url)
    build = shelf_installer.install("main", wanted).build
    program = program_of(home, build.build_id)
    padding = program.stat().st_size
    with program_of_an_instance(cli, home, build):
        program.write_text(f"#!/bin/sh\n{'#' * padding}"[:padding])  # whole by size
        assert shelf_installer.install("again", wanted).action == "reused"


def test_a_server_that_started_while_uninstall_waited_keeps_its_build(
    home: Home, shelf_installer: Installer, make_build: MakeBuild
) -> None:
    """Who runs it is asked when the build is about to go, not when the command began."""
    build = make_build(1)
    Instances(home).point("main", build, WantedBuild())
    running: dict[str, list[str]] = {}
    work = threading.Thread(target=shelf_installer.uninstall, args=("main", lambda: running), kwargs={"force": True})
    with Instances(home).locked("main", "hold it", SilentReporter()):
        work.start()
        work.join(0.5)
        running[build.build_id] = ["the server 'chat'"]
    work.join(30)
    assert Instances(home).names() == []
    assert Builds(home).ids() == [build.build_id]


@pytest.mark.parametrize("look", ["gc", "doctor"])
def test_a_directory_that_is_being_made_is_no_leftover(home: Home, shelf_installer: Installer, look: str) -> None:
    """Between the making of a staging directory and its lock, its owner is at the gate."""
    young = home.staging_dir / "install-young"
    found: list[object] = []

    def looking() -> None:
        found.append(collect(home, shelf_installer) if look == "gc" else problems(home))

    work = threading.Thread(target=looking)
    with locks.held_lock(home, "staging", "begin staging", SilentReporter(), shared=True):
        (young / "source").mkdir(parents=True)
        work.start()
        work.join(0.5)
        alive = (young / ".alive").open("w")
        fcntl.flock(alive, fcntl.LOCK_EX)
    work.join(30)
    with alive:
        assert (young / "source").is_dir()
        assert found == [Garbage() if look == "gc" else []]


@pytest.mark.parametrize("how", ["torn", "whole but wrong"])
def test_builds_that_a_damaged_record_may_need_stay(
    cli: Cli, home: Home, shelf_installer: Installer, make_build: MakeBuild, tiny_repository: TinyRepository, how: str
) -> None:
    earlier = make_build(1)
    Instances(home).point("main", earlier, WantedBuild())
    stranger = make_build(2)
    record = home.instances_dir / "main.json"
    record.write_bytes(record.read_bytes()[:40] if how == "torn" else record.read_bytes().replace(b'"name"', b'"neme"'))
    shelf_installer.install("main", WantedBuild(version="b11434", repo_url=tiny_repository.url))
    document = cli.json("instance", "gc")
    stays = {earlier.build_id, stranger.build_id} if how == "torn" else {earlier.build_id}
    assert set(document["kept"]) == stays
    assert all("main.json.corrupt-" in why for why in document["kept"].values())
    assert stays < set(Builds(home).ids())
    for aside in home.instances_dir.glob("*.corrupt-*"):
        aside.unlink()
    assert set(cli.json("instance", "gc")["builds"]) == stays


def test_a_failed_install_leaves_a_damaged_record_where_it_is(
    home: Home, shelf_installer: Installer, tiny_repository: TinyRepository
) -> None:
    home.instances_dir.mkdir()
    (home.instances_dir / "main.json").write_bytes(b"{")
    assert isinstance(shelf_installer.builder, ShelfBuilder)
    shelf_installer.builder.fail = BuildFailedError("cannot build")
    with pytest.raises(BuildFailedError):
        shelf_installer.install("main", WantedBuild(version="b11434", repo_url=tiny_repository.url))
    assert [entry.name for entry in home.instances_dir.iterdir()] == ["main.json"]
    assert (home.instances_dir / "main.json").read_bytes() == b"{"


def test_the_pid_of_a_server_is_named(home: Home) -> None:
    directory = server_dir(home, "quickstart")
    lock = claimed_lock(directory)
    try:
        record = ServerRecord(build_id="b1", model="/m", port=8080, pid=4711, started_at="2026-01-01T00:00:00Z")
        write_document(directory.record_file, RECORD_KIND, record)
        assert running_builds(home) == {"b1": ["the server 'quickstart' (pid 4711)"]}
    finally:
        os.close(lock)
