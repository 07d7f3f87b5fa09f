"""Import, rm and the index, killed or failing at any call, or raced: a model is whole or absent, no byte is lost."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.faults import strace
from tests.faults.arena import Arena, ended
from tests.faults.conftest import SEED, amount
from tests.tools.gguf_file import model_bytes
from tests.tools.model_library import PROJECTOR, put, put_shards

pytestmark = [pytest.mark.faults, pytest.mark.timeout(3600)]
NAME = "me/big"
IMPORT = ("import", "sources/big-Q4_K_M-00001-of-00002.gguf", "--name", NAME)
RM = ("rm", NAME, "-y")


@pytest.fixture
def shelf(tmp_path: Path) -> Arena:
    """An arena with a split model and its projector outside the library."""
    arena = Arena(tmp_path / "arena", "")
    put_shards(arena.user_dir / "sources", "big-Q4_K_M", 2)
    put(arena.user_dir / "sources/mmproj-F16.gguf", PROJECTOR)
    put(arena.home / "models/o/other/other-Q4_K_M.gguf", model_bytes(seed=9))
    arena.home.chmod(0o700)
    return arena


def sources(arena: Arena) -> dict[str, str]:
    return _contents(arena.user_dir / "sources")


def _contents(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.glob("*.gguf"))}


def listed(arena: Arena) -> dict[str, Any]:
    done = arena.run("list", "--json")
    assert done.status == 0, done
    assert "damaged" not in done.stderr, done
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def assert_whole_or_absent(arena: Arena, wanted: dict[str, str]) -> bool:
    """What is listed has all its files with the right bytes; return whether it is listed."""
    document = listed(arena)
    names = [model["name"] for model in document["models"]]
    assert names in (["o/other"], [NAME, "o/other"]), names
    assert all("missing" in one["why"] for one in document["broken"]), document["broken"]
    if NAME in names:
        model = document["models"][0]
        assert len(model["files"]) == 2
        found = _contents(Path(model["files"][0]).parent)
        assert all(wanted[name] == sha256 for name, sha256 in found.items())
    return NAME in names


def restored(arena: Arena, template: Path, words: Sequence[str] = ()) -> None:
    arena.restore(template)
    for name, content in _originals(template).items():
        put(arena.user_dir / "sources" / name, content)
    if words:
        arena.must(*words)


def _originals(template: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (template.parent / "sources").glob("*.gguf")}


@pytest.fixture
def template(shelf: Arena) -> Path:
    """A copy of the arena's home, and the sources beside it, to start again from."""
    place = shelf.root / "template/home"
    place.parent.mkdir()
    shelf.home.rename(place)
    for path in (shelf.user_dir / "sources").glob("*.gguf"):
        put(place.parent / "sources" / path.name, path.read_bytes())
    restored(shelf, place)
    return place


@pytest.mark.parametrize("way", ["--link", "--copy", "--move"])
@pytest.mark.usefixtures("needs_strace")
def test_an_import_killed_at_any_call(shelf: Arena, template: Path, way: str) -> None:
    wanted = sources(shelf)
    points = strace.record(shelf, [*IMPORT, way])
    hits = 0
    for point in strace.sample(points, amount(6, None), SEED):
        restored(shelf, template)
        hits += strace.inject(shelf, [*IMPORT, way], point, "signal=KILL").hit is not None
        is_listed = assert_whole_or_absent(shelf, wanted)
        left = sources(shelf) | _contents(shelf.home / "models/me/big")
        assert left == wanted, f"{point}: bytes are lost"
        again = shelf.run(*IMPORT, way)
        moved = way == "--move" and is_listed and again.status == 3
        assert again.status == 0 or moved, f"{point}: {again}"
        assert assert_whole_or_absent(shelf, wanted), point
        assert shelf.run("index", "verify").status == 0
        shelf.must("index", "prune", "-y")
        assert not list((shelf.home / "models").glob(".*")), point
    assert hits


@pytest.mark.parametrize("error", ["ENOSPC", "EIO"])
@pytest.mark.usefixtures("needs_strace")
def test_an_import_on_a_failing_disk(shelf: Arena, template: Path, error: str) -> None:
    wanted = sources(shelf)
    points = [one for one in strace.record(shelf, [*IMPORT, "--copy"]) if "index" not in one.place]
    for point in strace.sample(points, amount(5, None), SEED):
        restored(shelf, template)
        faulted = strace.inject(shelf, [*IMPORT, "--copy"], point, f"error={error}")
        assert faulted.ended.status in {0, 10}, f"{point}: {faulted.ended}"
        is_listed = assert_whole_or_absent(shelf, wanted)
        assert is_listed or faulted.ended.status == 10, f"{point}: success was said"
        shelf.must(*IMPORT, "--copy")
        assert assert_whole_or_absent(shelf, wanted), point


@pytest.mark.usefixtures("needs_strace")
def test_an_rm_killed_at_any_call(shelf: Arena, template: Path) -> None:
    wanted = sources(shelf)
    restored(shelf, template, [*IMPORT, "--copy"])
    points = strace.record(shelf, RM)
    for point in strace.sample(points, amount(6, None), SEED):
        restored(shelf, template, [*IMPORT, "--copy"])
        strace.inject(shelf, RM, point, "signal=KILL")
        is_listed = assert_whole_or_absent(shelf, wanted)
        broken = [one["path"] for one in listed(shelf)["broken"]]
        for words in (RM,) if is_listed else [("rm", path, "-y") for path in broken]:
            shelf.must(*words)
        assert [model["name"] for model in listed(shelf)["models"]] == ["o/other"]
        assert (shelf.home / "models/o/other/other-Q4_K_M.gguf").exists()
        assert not list((shelf.home / "models/me").rglob("*.gguf*")), point
        shelf.must(*IMPORT, "--copy")


@pytest.mark.usefixtures("needs_strace")
def test_a_list_killed_while_it_writes_the_index(shelf: Arena, template: Path) -> None:
    first = listed(shelf)
    restored(shelf, template)
    for point in strace.sample(strace.record(shelf, ["list"]), amount(6, None), SEED):
        restored(shelf, template)
        strace.inject(shelf, ["list"], point, "signal=KILL")
        assert listed(shelf)["totals"] == first["totals"], point


@pytest.mark.parametrize("way", ["--copy", "--link"])
def test_imports_removals_and_rebuilds_at_once(shelf: Arena, template: Path, way: str) -> None:
    wanted = sources(shelf)
    for _ in range(amount(4, 200) or 0):
        restored(shelf, template, [*IMPORT, way])
        children = [
            shelf.start(*words) for words in ([*IMPORT, way], RM, ("index", "rebuild"), [*IMPORT, way], ("list",), RM)
        ]
        done = [ended(child) for child in children]
        assert all(one.status in {0, 3, 4, 5} for one in done), done
        assert not any("Traceback" in one.stderr or "bug" in one.stderr for one in done), done
        assert_whole_or_absent(shelf, wanted)
        assert sources(shelf) == wanted
        assert not listed(shelf)["broken"]
