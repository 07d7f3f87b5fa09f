"""Where made files go, which names are taken, what a kill left half done, and what need not be made again."""

import os
from pathlib import Path

import pytest

from llama_mgr.errors import ConflictError, NewerStateError, OutputExistsError, StorageError
from llama_mgr.make.output import (
    KEEP,
    PIPELINE,
    Made,
    Place,
    Replacing,
    found_made,
    place_for,
    require_free_name,
    settle,
)
from llama_mgr.make.provenance import SourceRecord, provenance_of
from llama_mgr.models.side_car import side_car_of
from llama_mgr.paths import Home
from llama_mgr.report import SilentReporter
from tests.tools.made_models import (
    NEW,
    NEW_BYTES,
    OLD,
    OLD_BYTES,
    SOURCE,
    at,
    made_by,
    model_of,
    pending_of,
    put_made,
    put_pending,
    sha256_of,
)
from tests.tools.model_library import put, put_recorded

SILENT = SilentReporter()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*")) if directory.is_dir() else []


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


# -- settling ----------------------------------------------------------------------------------------------------------


def test_a_record_whose_file_is_there_gets_its_name(tmp_path: Path) -> None:
    target = put(tmp_path / "x.gguf", NEW_BYTES)
    put_pending(target, NEW, NEW_BYTES)
    settle(target, SILENT)
    assert names(tmp_path) == ["x.gguf", "x.gguf.json"]
    assert provenance_of(target) == NEW


@pytest.mark.parametrize("content", [OLD_BYTES, NEW_BYTES[:-1], NEW_BYTES + b"x"])
def test_a_record_of_another_content_waits_hidden(tmp_path: Path, content: bytes) -> None:
    target = put(tmp_path / "x.gguf", content)
    put_pending(target, NEW, NEW_BYTES)
    settle(target, SILENT)
    assert names(tmp_path) == [".x.gguf.json.new", "x.gguf"]
    assert found_made(at(tmp_path), NEW.digest) is None


def test_a_record_whose_file_may_still_come_is_left_alone(tmp_path: Path) -> None:
    pending = pending_of(tmp_path / "x.gguf")
    put_pending(tmp_path / "x.gguf", NEW, NEW_BYTES)
    settle(tmp_path / "x.gguf", SILENT)
    assert names(tmp_path) == [pending.name]
    assert found_made(at(tmp_path), NEW.digest) is None


def test_nothing_to_settle_is_nothing_done(tmp_path: Path) -> None:
    settle(tmp_path / "x.gguf", SILENT)
    settle(tmp_path / "missing/x.gguf", SILENT)
    target = put_made(tmp_path / "x.gguf", OLD)
    settle(target, SILENT)
    put(pending_of(target), b"{")
    settle(target, SILENT)
    assert provenance_of(target) == OLD


# -- names that are taken ----------------------------------------------------------------------------------------------


def test_a_free_name_is_free(tmp_path: Path) -> None:
    require_free_name(tmp_path / "x.gguf", SILENT, KEEP)
    put_pending(tmp_path / "x.gguf", NEW, NEW_BYTES)
    require_free_name(tmp_path / "x.gguf", SILENT, KEEP)
    assert not (tmp_path / "x.gguf").exists()


def test_a_file_is_not_written_over(tmp_path: Path) -> None:
    target = put_made(tmp_path / "x.gguf", OLD, OLD_BYTES)
    for replacing in (KEEP, Replacing(source=SOURCE)):
        with pytest.raises(OutputExistsError, match="it exists") as caught:
            require_free_name(target, SILENT, replacing, NEW.digest)
        assert "--force" in (caught.value.hint or "")
    require_free_name(target, SILENT, Replacing(force=True))
    require_free_name(target, SILENT, KEEP, OLD.digest)
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
        (None, SourceRecord(directory="/x"), True),
        (SourceRecord(directory="/x"), None, False),
        (None, None, False),
    ],
)
def test_a_pipeline_replaces_what_one_made_from_the_same_checkpoint(
    tmp_path: Path, source: SourceRecord | None, replacing: SourceRecord | None, expected: bool
) -> None:
    parent = made_by("convert", source=source)
    target = put_made(tmp_path / "x.gguf", made_by(parent=parent, made_for=PIPELINE))
    assert Replacing(source=replacing).allows(target, NEW.digest) is expected
    assert Replacing(force=True, source=replacing).allows(target, NEW.digest)


def test_a_pipeline_leaves_alone_what_the_user_made_by_hand(tmp_path: Path) -> None:
    target = put_made(tmp_path / "x.gguf", made_by(source=SOURCE))
    assert not Replacing(source=SOURCE).allows(target, NEW.digest)
    assert Replacing(source=SOURCE, again=True).allows(target, NEW.digest)
    assert not Replacing(source=SourceRecord(repo="owner/other"), again=True).allows(target, NEW.digest)


def test_a_file_whose_record_a_kill_took_may_be_replaced_by_what_was_to_replace_it(tmp_path: Path) -> None:
    target = put(tmp_path / "x.gguf", OLD_BYTES)
    put_pending(target, NEW, NEW_BYTES)
    assert KEEP.allows(target, NEW.digest)
    assert not KEEP.allows(target, OLD.digest)
    assert not Replacing(source=SOURCE).allows(target)


def test_what_nobody_knows_the_making_of_stays(tmp_path: Path) -> None:
    again = Replacing(source=SOURCE)
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


def test_shards_of_two_sets_are_not_mixed(tmp_path: Path) -> None:
    for name in ("m-00001-of-00002.gguf", "m-00002-of-00003.gguf", "n-00002-of-00002.gguf"):
        put_made(tmp_path / name, NEW, model_of(seed=len(name)))
    assert found_made(at(tmp_path), NEW.digest) is None


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
