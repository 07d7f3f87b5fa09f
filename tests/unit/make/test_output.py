"""Made files get their names and records whole, or not at all: wherever a kill comes, and whatever was there before."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest

from llama_mgr.errors import ConflictError, NewerStateError, OutputExistsError, StorageError
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
from llama_mgr.make.provenance import Provenance, SourceRecord, provenance_of, record_of_made
from llama_mgr.models.side_car import RECORD_KIND, read_record, side_car_of
from llama_mgr.paths import Home
from llama_mgr.report import SilentReporter
from llama_mgr.store import write_document
from tests.tools.broken_off import kill_points
from tests.tools.made_models import SOURCE, made_by, model_of, put_made, sha256_of
from tests.tools.model_library import catalog_of, keys, put, put_recorded, put_shards

SILENT = SilentReporter()
OLD, NEW = made_by(digest="0" * 64, source=SOURCE), made_by(digest="1" * 64, source=SOURCE)
OLD_BYTES, NEW_BYTES = model_of(seed=1), model_of(seed=2)
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
        return publish_made(home, place, staged, made, SILENT)


def at(directory: Path, file_name: str = "") -> Place:
    return Place(directory, is_library=False, model="owner/tiny", file_name=file_name)


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


# -- places ------------------------------------------------------------------------------------------------------------


def test_without_output_files_go_to_the_library(home: Home) -> None:
    assert place_for(home, "owner/tiny", None) == Place(home.models_dir / "owner/tiny", True, "owner/tiny")
    assert not home.models_dir.exists()


def test_a_directory_or_the_name_of_a_file_may_be_chosen(home: Home, tmp_path: Path) -> None:
    (tmp_path / "dir.gguf").mkdir()
    assert place_for(home, "a/b", tmp_path) == Place(tmp_path, False, "a/b", "")
    assert place_for(home, "a/b", tmp_path / "x.gguf") == Place(tmp_path, False, "a/b", "x.gguf")
    assert place_for(home, "a/b", tmp_path / "dir.gguf") == Place(tmp_path / "dir.gguf", False, "a/b", "")
    (tmp_path / "link").symlink_to(tmp_path / "dir.gguf")
    assert place_for(home, "a/b", tmp_path / "link").directory == tmp_path / "link"
    assert place_for(home, "a/b.c", tmp_path).stem == "b.c"


@pytest.mark.parametrize("path", ["missing", "missing/x.gguf", "missing/deeper", "file/deeper/x.gguf", "x.bin"])
def test_a_missing_directory_is_not_made(home: Home, tmp_path: Path, path: str) -> None:
    put(tmp_path / "file", b"")
    before = names(tmp_path)
    with pytest.raises(StorageError, match="there is no such directory") as caught:
        place_for(home, "a/b", tmp_path / path)
    assert "mkdir -p" in (caught.value.hint or "")
    assert names(tmp_path) == before


@pytest.mark.parametrize("path", ["file", "file/x.gguf", "dangling", "dangling/x.gguf"])
def test_a_file_is_no_directory(home: Home, tmp_path: Path, path: str) -> None:
    put(tmp_path / "file", b"content")
    (tmp_path / "dangling").symlink_to("nowhere")
    with pytest.raises(StorageError, match="a directory is needed"):
        place_for(home, "a/b", tmp_path / path)
    assert (tmp_path / "file").read_bytes() == b"content"


def test_a_directory_that_cannot_be_written_to_is_refused(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ro").mkdir(mode=0o555)
    if os.geteuid() == 0:  # root may write everywhere: answer as for an ordinary user
        monkeypatch.setattr(os, "access", lambda path, _: bool(Path(path).stat().st_mode & 0o200))
    for path in (tmp_path / "ro", tmp_path / "ro/x.gguf"):
        with pytest.raises(StorageError, match=r"ro': it is not writable") as caught:
            place_for(home, "a/b", path)
        assert caught.value.hint == "choose another --output"
    assert place_for(home, "a/b", tmp_path).directory == tmp_path


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
        assert {path for path in names(library.directory) if path.startswith(".") and path.endswith(".new")} == set()
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
            require_free_name(target, SILENT, KEEP)
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
    assert kills == 7


def test_a_kill_while_a_kill_is_mended_loses_nothing(home: Home, library: Place) -> None:
    target = library.directory / NAME

    def begin() -> None:
        _emptied(home)
        put(target, NEW_BYTES)
        _put_pending(target, NEW)

    for _ in kill_points(lambda: settle(target, SILENT), begin):
        assert target.read_bytes() == NEW_BYTES
        settle(target, SILENT)
        assert found_made(library, NEW.digest)


# -- settling ----------------------------------------------------------------------------------------------------------


def _pending_of(target: Path) -> Path:
    return target.with_name(f".{target.name}.json.new")


def _put_pending(target: Path, made: Provenance, content: bytes = NEW_BYTES) -> Path:
    source = put(target.with_name("content"), content)
    record = record_of_made(made, sha256_of(source), len(content))
    source.unlink()
    write_document(_pending_of(target), RECORD_KIND, record)
    return _pending_of(target)


def test_a_record_whose_file_is_there_gets_its_name(tmp_path: Path) -> None:
    target = put(tmp_path / "x.gguf", NEW_BYTES)
    _put_pending(target, NEW)
    settle(target, SILENT)
    assert names(tmp_path) == ["x.gguf", "x.gguf.json"]
    assert provenance_of(target) == NEW


@pytest.mark.parametrize("content", [OLD_BYTES, NEW_BYTES[:-1], NEW_BYTES + b"x"])
def test_a_record_of_another_content_waits_hidden(tmp_path: Path, content: bytes) -> None:
    target = put(tmp_path / "x.gguf", content)
    _put_pending(target, NEW)
    settle(target, SILENT)
    assert names(tmp_path) == [".x.gguf.json.new", "x.gguf"]
    assert found_made(at(tmp_path), NEW.digest) is None


def test_a_record_without_file_goes(tmp_path: Path) -> None:
    _put_pending(tmp_path / "x.gguf", NEW)
    settle(tmp_path / "x.gguf", SILENT)
    assert names(tmp_path) == []


def test_nothing_to_settle_is_nothing_done(tmp_path: Path) -> None:
    settle(tmp_path / "x.gguf", SILENT)
    settle(tmp_path / "missing/x.gguf", SILENT)
    target = put_made(tmp_path / "x.gguf", OLD)
    settle(target, SILENT)
    put(_pending_of(target), b"{")
    settle(target, SILENT)
    assert provenance_of(target) == OLD


# -- names that are taken ----------------------------------------------------------------------------------------------


def test_a_free_name_is_free(tmp_path: Path) -> None:
    require_free_name(tmp_path / "x.gguf", SILENT, KEEP)
    _put_pending(tmp_path / "x.gguf", NEW)
    require_free_name(tmp_path / "x.gguf", SILENT, KEEP)
    assert names(tmp_path) == []


def test_a_file_is_not_written_over(tmp_path: Path) -> None:
    target = put_made(tmp_path / "x.gguf", OLD, OLD_BYTES)
    for replacing in (KEEP, Replacing(step="quantize"), Replacing(step="imatrix", source=SOURCE)):
        with pytest.raises(OutputExistsError, match="it exists") as caught:
            require_free_name(target, SILENT, replacing)
        assert "--force" in (caught.value.hint or "")
    require_free_name(target, SILENT, Replacing(force=True))
    require_free_name(target, SILENT, Replacing(step="quantize", source=SOURCE))
    assert target.read_bytes() == OLD_BYTES
    assert provenance_of(target) == OLD


@pytest.mark.parametrize("replacing", [KEEP, Replacing(force=True)])
def test_only_regular_files_are_written_over(tmp_path: Path, replacing: Replacing) -> None:
    (tmp_path / "dir.gguf").mkdir()
    (tmp_path / "link.gguf").symlink_to(put(tmp_path / "real.gguf", OLD_BYTES))
    (tmp_path / "dangling.gguf").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.gguf")
    for name in ("dir.gguf", "link.gguf", "dangling.gguf", "pipe.gguf"):
        with pytest.raises(StorageError, match="not a regular file"):
            require_free_name(tmp_path / name, SILENT, replacing)
    assert (tmp_path / "real.gguf").read_bytes() == OLD_BYTES
    assert (tmp_path / "link.gguf").is_symlink()


@pytest.mark.parametrize("exists", [True, False])
def test_the_document_of_somebody_else_is_not_written_over(tmp_path: Path, exists: bool) -> None:
    put(tmp_path / "x.gguf.json", b'{"etag": "abc"}')
    if exists:
        put(tmp_path / "x.gguf")
    with pytest.raises(ConflictError, match="where its side-car must be"):
        require_free_name(tmp_path / "x.gguf", SILENT, Replacing(force=True))
    assert (tmp_path / "x.gguf.json").read_bytes() == b'{"etag": "abc"}'


# -- what may be replaced ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "replacing", "expected"),
    [
        (SourceRecord(repo="a/b", revision="1"), SourceRecord(repo="a/b", revision="2"), True),
        (SourceRecord(repo="a/b"), SourceRecord(repo="a/c"), False),
        (SourceRecord(repo="a/b", directory="/x"), SourceRecord(directory="/x"), False),
        (SourceRecord(directory="/x"), SourceRecord(repo="a/b", directory="/x"), False),
        (SourceRecord(directory="/x"), SourceRecord(directory="/x"), True),
        (SourceRecord(directory="/x"), SourceRecord(directory="/y"), False),
        (None, SourceRecord(directory="/x"), False),
        (SourceRecord(directory="/x"), None, False),
        (None, None, False),
    ],
)
def test_what_was_made_from_the_same_checkpoint_may_be_replaced(
    tmp_path: Path, source: SourceRecord | None, replacing: SourceRecord | None, expected: bool
) -> None:
    parent = made_by("convert", source=source)
    target = put_made(tmp_path / "x.gguf", made_by("quantize", parent=parent))
    assert Replacing(step="quantize", source=replacing).allows(target) is expected
    assert not Replacing(step="convert", source=replacing).allows(target)
    assert Replacing(force=True, step="convert", source=replacing).allows(target)


def test_what_nobody_knows_the_making_of_stays(tmp_path: Path) -> None:
    again = Replacing(step="quantize", source=SOURCE)
    assert not again.allows(put(tmp_path / "bare.gguf"))
    assert not again.allows(put_recorded(tmp_path / "pulled.gguf", repo="owner/tiny"))
    newer = put(tmp_path / "newer.gguf")
    side_car_of(newer).write_text('{"schema": 99, "kind": "model"}')
    with pytest.raises(NewerStateError):
        again.allows(newer)


# -- what was made before ----------------------------------------------------------------------------------------------


def test_what_was_made_is_found_by_its_digest(tmp_path: Path) -> None:
    put_made(tmp_path / "a.gguf", OLD, OLD_BYTES)
    new = put_made(tmp_path / "b.gguf", NEW, NEW_BYTES)
    put_recorded(tmp_path / "pulled.gguf")
    put(tmp_path / "bare.gguf")
    found = found_made(at(tmp_path), NEW.digest)
    assert found == Made((new,), (sha256_of(new),), len(NEW_BYTES), NEW, was_there=True)
    assert found_made(at(tmp_path), "2" * 64) is None
    assert found_made(at(tmp_path / "missing"), NEW.digest) is None


def test_a_file_that_is_gone_or_has_another_size_is_not_found(tmp_path: Path) -> None:
    file = put_made(tmp_path / "a.gguf", NEW, NEW_BYTES)
    with file.open("ab") as grown:
        grown.write(b"x")
    assert found_made(at(tmp_path), NEW.digest) is None
    file.unlink()
    assert found_made(at(tmp_path), NEW.digest) is None
    file.mkdir()
    assert found_made(at(tmp_path), NEW.digest) is None


def test_shards_are_found_together_or_not_at_all(tmp_path: Path) -> None:
    shards = [put_made(tmp_path / f"m-0000{number}-of-00002.gguf", NEW, model_of(seed=number)) for number in (1, 2)]
    found = found_made(at(tmp_path), NEW.digest)
    assert found is not None
    assert found.files == tuple(shards)
    assert found.sha256s == tuple(map(sha256_of, shards))
    shards[1].unlink()
    assert found_made(at(tmp_path), NEW.digest) is None
    put_made(shards[1], OLD, model_of(seed=2))
    assert found_made(at(tmp_path), NEW.digest) is None


def test_where_the_user_names_the_file_only_that_one_counts(tmp_path: Path) -> None:
    file = put_made(tmp_path / "a.gguf", NEW)
    found = found_made(at(tmp_path, "a.gguf"), NEW.digest)
    assert found is not None
    assert found.files == (file,)
    assert found_made(at(tmp_path, "b.gguf"), NEW.digest) is None


def test_shards_are_found_by_the_name_that_the_user_gave_them_all(tmp_path: Path) -> None:
    shards = [put_made(tmp_path / f"m-0000{number}-of-00002.gguf", NEW, model_of(seed=number)) for number in (1, 2)]
    found = found_made(at(tmp_path, "m.gguf"), NEW.digest)
    assert found is not None
    assert found.files == tuple(shards)
    assert found_made(at(tmp_path, "n.gguf"), NEW.digest) is None


def test_a_damaged_record_is_no_record_and_a_newer_one_is_said(tmp_path: Path) -> None:
    file = put_made(tmp_path / "a.gguf", NEW)
    side_car_of(file).write_text("{")
    assert found_made(at(tmp_path), NEW.digest) is None
    side_car_of(file).write_text('{"schema": 99, "kind": "model"}')
    with pytest.raises(NewerStateError):
        found_made(at(tmp_path), NEW.digest)
