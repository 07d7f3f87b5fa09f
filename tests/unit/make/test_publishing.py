"""Made files get their names and records whole, or not at all: wherever a kill comes, and whatever was there before."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from llama_mgr.errors import OutputExistsError, StorageError
from llama_mgr.make.output import (
    KEEP,
    Made,
    Place,
    Replacing,
    draft,
    found_made,
    held_output,
    place_for,
    publish_made,
    require_free_name,
    settle,
)
from llama_mgr.make.provenance import Provenance, provenance_of
from llama_mgr.models.side_car import read_record, side_car_of
from llama_mgr.paths import Home
from llama_mgr.report import SilentReporter
from tests.tools.broken_off import kill_points
from tests.tools.made_models import (
    NEW,
    NEW_BYTES,
    OLD,
    OLD_BYTES,
    at,
    model_of,
    put_made,
    put_pending,
    sha256_of,
)
from tests.tools.model_library import catalog_of, keys, put, put_shards

SILENT = SilentReporter()
NAME = "tiny-Q4_K_M.gguf"


@pytest.fixture
def library(home: Home) -> Place:
    return place_for(home, "owner/tiny", None)


@pytest.fixture
def outside(tmp_path: Path) -> Place:
    (tmp_path / "out").mkdir()
    return at(tmp_path / "out")


def published(home: Home, place: Place, files: dict[str, bytes], made: Provenance = NEW) -> Made:
    """Publish `files` as a step does it: from a draft on the same disk."""
    with draft(home, place) as directory:
        staged = [(put(directory / f"made-{number}.gguf", content), name)
                  for number, (name, content) in enumerate(files.items())]  # fmt: skip
        return publish_made(home, place, staged, made, SILENT, Replacing(force=True))


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*")) if directory.is_dir() else []


def require_true_records(directory: Path) -> None:
    """No record ever stands beside another content than its own."""
    for file in directory.glob("*.gguf"):
        record = read_record(file)
        assert record is None or record.sha256 == sha256_of(file), file


def settled(place: Place, files: Sequence[str]) -> None:
    for name in files:
        settle(place.directory / name, SILENT)


# -- drafts and locks --------------------------------------------------------------------------------------------------


def test_a_draft_is_on_the_disk_of_its_place_and_vanishes(home: Home, library: Place, outside: Place) -> None:
    for place, parent in ((library, home.models_dir), (outside, outside.directory)):
        with draft(home, place) as directory:
            assert directory.parent.parent == parent
            assert list(directory.iterdir()) == []
            put(directory / "made.gguf")
            assert keys(catalog_of(home)) == []
        assert names(parent) == []


def test_others_wait_for_the_same_work_at_the_same_place(home: Home, outside: Place, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(outside.directory)
    linked = Place(tmp_path / "link", is_library=False, model="owner/tiny")
    before = set(names(home.locks_dir))
    for place, digest in ((outside, "a"), (linked, "a")):
        with held_output(home, place, digest, SILENT):
            pass
    same = set(names(home.locks_dir)) - before
    assert len(same) == 1
    with held_output(home, outside, "a", SILENT), held_output(home, outside, "b", SILENT):
        assert len(set(names(home.locks_dir)) - before) == 2


# -- publishing --------------------------------------------------------------------------------------------------------


def test_a_file_is_published_with_its_record(home: Home, library: Place) -> None:
    made = published(home, library, {NAME: NEW_BYTES})
    target = library.directory / NAME
    assert made == Made((target,), (sha256_of(target),), len(NEW_BYTES), NEW, was_there=False)
    assert made.file == target
    assert names(home.models_dir) == ["owner", "tiny", NAME, f"{NAME}.json"]
    assert provenance_of(target) == NEW
    assert keys(catalog_of(home)) == ["owner/tiny:Q4_K_M"]
    assert found_made(library, NEW.digest) == _as_found(made)


def _as_found(made: Made) -> Made:
    """What `found_made` says of files that were made before."""
    return Made(made.files, made.sha256s, made.size_bytes, made.provenance, was_there=True)


def test_shards_are_published_in_order_and_the_first_comes_last(
    home: Home, library: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    shards = {f"tiny-0000{number}-of-00003.gguf": model_of(seed=number) for number in (1, 2, 3)}
    order: list[str] = []
    rename = Path.rename

    def noted(path: Path, target: Path) -> Path:
        order.append(Path(target).name)
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", noted)
    made = published(home, library, shards)
    assert [name for name in order if name in shards] == list(reversed(shards))
    assert [file.name for file in made.files] == list(shards)
    assert made.sha256s == tuple(sha256_of(file) for file in made.files)
    assert made.size_bytes == sum(map(len, shards.values()))
    assert found_made(library, NEW.digest) == _as_found(made)


def test_a_file_outside_the_library_is_published_beside_what_is_there(home: Home, outside: Place) -> None:
    put(outside.directory / "notes.txt", b"mine")
    published(home, outside, {"x.gguf": NEW_BYTES})
    assert names(outside.directory) == ["notes.txt", "x.gguf", "x.gguf.json"]
    assert not home.models_dir.exists()


def test_a_disk_that_fails_is_said(home: Home, outside: Place) -> None:
    (outside.directory / "x.gguf").mkdir()
    with pytest.raises(StorageError, match="cannot"):
        published(home, outside, {"x.gguf": NEW_BYTES})
    assert (outside.directory / "x.gguf").is_dir()


# -- kills -------------------------------------------------------------------------------------------------------------


def test_wherever_a_kill_comes_a_new_file_is_whole_or_not_there(home: Home, library: Place) -> None:
    target, ends = library.directory / NAME, 0
    for _ in kill_points(lambda: published(home, library, {NAME: NEW_BYTES}), lambda: _emptied(home)):
        assert not target.exists() or target.read_bytes() == NEW_BYTES
        require_true_records(library.directory)
        assert len(keys(catalog_of(home))) == target.exists()
        was_there = target.exists()
        settled(library, [NAME])
        found = found_made(library, NEW.digest)
        assert (found is not None) == was_there
        ends += 1
        published(home, library, {NAME: NEW_BYTES})
        assert _shown_names(library.directory) == [NAME, f"{NAME}.json"]
        assert found_made(library, NEW.digest)
    assert ends == 4  # before the hidden record, before the file, before the record, and the end


def _emptied(home: Home) -> None:
    shutil.rmtree(home.models_dir, ignore_errors=True)


def _shown_names(directory: Path) -> list[str]:
    """Return what lies there besides the temporary files of killed writers, which others remove."""
    return [name for name in names(directory) if not name.endswith(".tmp")]


@pytest.mark.parametrize("was_recorded", [True, False])
def test_wherever_a_kill_comes_an_old_file_stays_or_the_new_one_is_there(
    home: Home, library: Place, was_recorded: bool
) -> None:
    target, seen = library.directory / NAME, set[bytes]()

    def begin() -> None:
        _emptied(home)
        (put_made(target, OLD, OLD_BYTES) if was_recorded else put(target, OLD_BYTES))

    for changes in kill_points(lambda: published(home, library, {NAME: NEW_BYTES}), begin):
        content = target.read_bytes()
        seen.add(content)
        assert content in {OLD_BYTES, NEW_BYTES}
        require_true_records(library.directory)
        assert keys(catalog_of(home)) == ["owner/tiny:Q4_K_M"]
        settled(library, [NAME])
        assert (found_made(library, NEW.digest) is not None) == (content == NEW_BYTES)
        require_true_records(library.directory)
        if content == OLD_BYTES and changes <= 1:  # not yet begun: all is as before
            assert (provenance_of(target) == OLD) == was_recorded
        published(home, library, {NAME: NEW_BYTES})
        assert _shown_names(library.directory) == [NAME, f"{NAME}.json"]
        assert provenance_of(target) == NEW
    assert seen == {OLD_BYTES, NEW_BYTES}


def test_after_a_kill_an_old_file_without_its_record_may_be_replaced(home: Home, library: Place) -> None:
    target = library.directory / NAME
    reached = False

    def begin() -> None:
        _emptied(home)
        put_made(target, OLD, OLD_BYTES)

    for _ in kill_points(lambda: published(home, library, {NAME: NEW_BYTES}), begin):
        if target.read_bytes() == OLD_BYTES and not side_car_of(target).exists():
            reached = True
            require_free_name(target, SILENT, KEEP, NEW.digest)
    assert reached


def test_wherever_a_kill_comes_no_shards_are_taken_for_the_whole_model(home: Home, library: Place) -> None:
    paths = put_shards(home.root / "in", "tiny", 2)
    shards = {path.name: path.read_bytes() for path in paths}
    kills = 0
    for _ in kill_points(lambda: published(home, library, shards), lambda: _emptied(home)):
        there = [name for name in shards if (library.directory / name).exists()]
        assert there == list(shards)[len(shards) - len(there) :]
        assert len(keys(catalog_of(home))) == (len(there) == 2)
        require_true_records(library.directory)
        settled(library, list(shards))
        found = found_made(library, NEW.digest)
        assert (found is not None) == (len(there) == 2)
        published(home, library, shards)
        found = found_made(library, NEW.digest)
        assert found is not None
        assert [file.read_bytes() for file in found.files] == list(shards.values())
        assert _shown_names(library.directory) == sorted([*shards, *(f"{name}.json" for name in shards)])
        kills += 1
    assert kills == 9


def test_wherever_a_kill_comes_old_and_new_shards_are_not_taken_together(home: Home, library: Place) -> None:
    old = {f"tiny-0000{number}-of-00002.gguf": model_of(seed=number) for number in (1, 2)}
    new = {name: model_of(seed=number) for number, name in enumerate(old, start=3)}

    def begin() -> None:
        _emptied(home)
        published(home, library, old, OLD)

    seen = set[bool]()
    for _ in kill_points(lambda: published(home, library, new), begin):
        there = [library.directory / name for name in old]
        if all(path.exists() for path in there):
            content = [path.read_bytes() for path in there]
            assert content in (list(old.values()), list(new.values()))
            seen.add(content == list(new.values()))
        require_true_records(library.directory)
    assert seen == {True, False}


def test_a_file_that_came_meanwhile_is_not_written_over(home: Home, outside: Place) -> None:
    with draft(home, outside) as directory:
        staged = [(put(directory / "made.gguf", NEW_BYTES), "x.gguf")]
        target = put(outside.directory / "x.gguf", OLD_BYTES)
        with pytest.raises(OutputExistsError):
            publish_made(home, outside, staged, NEW, SILENT, KEEP)
    assert names(outside.directory) == ["x.gguf"]
    assert target.read_bytes() == OLD_BYTES


def test_a_kill_while_a_kill_is_mended_loses_nothing(home: Home, library: Place) -> None:
    target = library.directory / NAME

    def begin() -> None:
        _emptied(home)
        put(target, NEW_BYTES)
        put_pending(target, NEW, NEW_BYTES)

    for _ in kill_points(lambda: settle(target, SILENT), begin):
        assert target.read_bytes() == NEW_BYTES
        settle(target, SILENT)
        assert found_made(library, NEW.digest)
