"""Taking files of this machine into the library: all of a model or nothing, without a second copy where possible."""

import errno
import hashlib
import os
from pathlib import Path

import pytest

from llama_mgr.errors import (
    BadGgufError,
    BadInputError,
    BusyError,
    ConflictError,
    IncompleteModelError,
    LlamaMgrError,
    NameTakenError,
    NoSpaceError,
    NotFoundError,
    RefusedError,
    StorageError,
)
from llama_mgr.locks import held_lock
from llama_mgr.models import file_ways
from llama_mgr.models.import_staging import import_staging, remove_stale_import, stale_imports
from llama_mgr.models.importing import Imported, Importer, Way
from llama_mgr.models.leftovers import leftovers, remove_leftover
from llama_mgr.models.model_lock import lock_name
from llama_mgr.models.roots import Roots
from llama_mgr.models.side_car import read_record
from llama_mgr.paths import Home
from tests.tools.gguf_file import gguf_bytes, model_bytes
from tests.tools.model_library import PROJECTOR, Remarks, catalog_of, keys, put, put_recorded, put_shards


def take(home: Home, path: Path, way: Way = "share", name: str | None = None) -> Imported:
    (one,) = Importer(home, Remarks()).take(path, way, name)
    return one


def below(home: Home) -> list[str]:
    """All files in the models directory."""
    return sorted(str(path.relative_to(home.models_dir)) for path in home.models_dir.rglob("*") if path.is_file())


@pytest.fixture
def no_sharing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system across which nothing can be shared."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(file_ways.fcntl, "ioctl", refuse)


def test_a_file_is_shared_and_recorded(home: Home, tmp_path: Path) -> None:
    source = put(tmp_path / "Some Model-Q4_K_M.gguf")
    os.utime(source, (1_700_000_000, 1_700_000_000))
    one = take(home, source)
    target = home.models_dir / "local/Some-Model/Some Model-Q4_K_M.gguf"
    assert (one.key, one.files, one.was_there) == ("local/Some-Model:Q4_K_M", (target,), False)
    assert one.how in {"reflink", "hard link"}
    assert source.exists()
    record = read_record(target)
    assert record is not None
    assert (record.origin, record.source, record.size_bytes) == ("import", f"import:{source}", source.stat().st_size)
    assert record.sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    (model,) = catalog_of(home).models
    assert (model.key, model.record, model.modified_at) == (one.key, record, "2023-11-14T22:13:20Z")


def test_a_second_import_finds_it_there(home: Home, tmp_path: Path) -> None:
    source = put(tmp_path / "x-Q4_K_M.gguf")
    first = take(home, source)
    again = take(home, source)
    copy = take(home, put(tmp_path / "copy/x-Q4_K_M.gguf"), "copy")
    assert again.was_there
    assert copy.was_there
    assert again.files == copy.files == first.files
    assert len(below(home)) == 2


@pytest.mark.usefixtures("no_sharing")
def test_what_cannot_be_shared_is_copied_and_that_is_said(home: Home, tmp_path: Path) -> None:
    source = put(tmp_path / "x.gguf")
    remarks = Remarks()
    (one,) = Importer(home, remarks).take(source)
    assert one.how == "copy"
    assert "is copied" in remarks.notes[0]
    assert one.files[0].read_bytes() == source.read_bytes()
    assert one.files[0].stat().st_ino != source.stat().st_ino


@pytest.mark.usefixtures("no_sharing")
def test_a_link_across_file_systems_is_refused(home: Home, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="share no files") as caught:
        take(home, put(tmp_path / "x.gguf"), "link")
    assert caught.value.hint == "copy it with --copy"
    assert below(home) == []


@pytest.mark.usefixtures("no_sharing")
def test_a_move_across_file_systems_copies_first(home: Home, tmp_path: Path) -> None:
    source = put(tmp_path / "x.gguf")
    one = take(home, source, "move")
    assert one.how == "move"
    assert not source.exists()
    assert one.files[0].read_bytes() == model_bytes()


def test_a_copy_is_another_file(home: Home, tmp_path: Path) -> None:
    source = put(tmp_path / "x.gguf")
    one = take(home, source, "copy")
    assert one.how == "copy"
    assert one.files[0].stat().st_nlink == 1
    source.write_bytes(b"changed")
    assert one.files[0].read_bytes() == model_bytes()


def test_a_moved_file_keeps_its_inode(home: Home, tmp_path: Path) -> None:
    source = put(tmp_path / "x.gguf")
    inode = source.stat().st_ino
    one = take(home, source, "move")
    assert (one.how, source.exists(), one.files[0].stat().st_ino) == ("move", False, inode)


def test_a_move_of_what_is_there_already_takes_the_source_away(home: Home, tmp_path: Path) -> None:
    take(home, put(tmp_path / "x.gguf"), "copy")
    one = take(home, tmp_path / "x.gguf", "move")
    assert one.was_there
    assert not (tmp_path / "x.gguf").exists()
    assert len(catalog_of(home).models) == 1


def test_all_shards_and_the_projector_come_along(home: Home, tmp_path: Path) -> None:
    shards = put_shards(tmp_path / "here", "big-Q4_K_M", 3)
    put(tmp_path / "here/mmproj-F16.gguf", PROJECTOR)
    put(tmp_path / "here/unrelated.txt", b"x")
    one = take(home, shards[1], name="me/big")
    assert [path.name for path in one.files] == [path.name for path in shards]
    assert one.projector == home.models_dir / "me/big/mmproj-F16.gguf"
    (model,) = catalog_of(home).models
    assert (model.files, model.projector) == (one.files, one.projector)
    assert all(read_record(path) for path in (*model.files, *model.projectors))


def test_what_belongs_to_other_models_stays(home: Home, tmp_path: Path) -> None:
    put(tmp_path / "here/a-Q4_K_M.gguf", model_bytes(seed=1))
    put(tmp_path / "here/b-Q4_K_M.gguf", model_bytes(seed=2))
    put(tmp_path / "here/mmproj-b-F16.gguf", PROJECTOR)
    put(tmp_path / "here/mmproj-F16.gguf", PROJECTOR)
    put_shards(tmp_path / "here", "c", 2)
    one = take(home, tmp_path / "here/a-Q4_K_M.gguf")
    assert (one.projector, len(below(home))) == (None, 2)


def test_all_models_of_a_directory(home: Home, tmp_path: Path) -> None:
    put(tmp_path / "here/a-Q4_K_M.gguf", model_bytes(seed=1))
    put(tmp_path / "here/sub/b-Q8_0.gguf", model_bytes(quant="Q8_0"))
    put(tmp_path / "here/broken.gguf", b"GGUF")
    remarks = Remarks()
    imported = Importer(home, remarks).take(tmp_path / "here")
    assert sorted(one.key for one in imported) == ["local/a:Q4_K_M", "local/b:Q8_0"]
    assert sorted(keys(catalog_of(home))) == ["local/a:Q4_K_M", "local/b:Q8_0"]
    assert "broken.gguf is left out" in remarks.warnings[0]


def test_a_link_is_followed_and_stays(home: Home, tmp_path: Path) -> None:
    blob = put(tmp_path / "blobs/abcdef")
    link = tmp_path / "snapshot/r-Q4_K_M.gguf"
    link.parent.mkdir()
    link.symlink_to(blob)
    one = take(home, link)
    assert one.key == "local/r:Q4_K_M"
    assert not one.files[0].is_symlink()
    assert one.files[0].read_bytes() == blob.read_bytes()
    assert link.is_symlink()


def test_a_blob_without_a_name_gets_one(home: Home, tmp_path: Path) -> None:
    one = take(home, put(tmp_path / f"sha256-{'0' * 64}", model_bytes(name="My Model 7B")))
    assert one.key == "local/My-Model-7B:Q4_K_M"
    assert one.files[0].name == "My-Model-7B-Q4_K_M.gguf"


@pytest.mark.parametrize("name", ["con.gguf", "a:b.gguf", "x .gguf ", "new\nline.gguf", ".hidden.gguf", "x.GGUF"])
def test_file_names_that_cannot_be_used_everywhere_are_not_taken_over(home: Home, tmp_path: Path, name: str) -> None:
    one = take(home, put(tmp_path / name), name="me/model")
    assert len(catalog_of(home).models) == 1
    assert one.files[0].name.isprintable()
    assert one.files[0].name != name
    assert one.files[0].name.endswith("-Q4_K_M.gguf")


# -- what is refused ---------------------------------------------------------------------------------------------------


def refused(home: Home, path: Path, kind: type[LlamaMgrError], words: str, name: str | None = None) -> None:
    with pytest.raises(kind, match=words):
        Importer(home, Remarks()).take(path, name=name)
    assert below(home) == []
    assert list(home.models_dir.glob(".*")) == []


def test_bad_sources(home: Home, tmp_path: Path) -> None:
    refused(home, tmp_path / "missing.gguf", NotFoundError, "no such file")
    refused(home, put(tmp_path / "file") / "x.gguf", NotFoundError, "no such file")
    (tmp_path / "nowhere.gguf").symlink_to("missing")
    refused(home, tmp_path / "nowhere.gguf", NotFoundError, "leads nowhere")
    (tmp_path / "empty").mkdir()
    refused(home, tmp_path / "empty", NotFoundError, "no GGUF model is in it")
    os.mkfifo(tmp_path / "pipe.gguf")
    refused(home, tmp_path / "pipe.gguf", BadGgufError, "pipe")
    refused(home, put(tmp_path / "cut.gguf", model_bytes()[:-1]), BadGgufError, "cut off")
    refused(home, put(tmp_path / "only/cut.gguf", b"GGUF").parent, BadGgufError, "cut off")
    refused(home, put(tmp_path / "mmproj-F16.gguf", PROJECTOR), BadInputError, "projector")
    adapter = gguf_bytes({"general.architecture": "llama", "general.type": "adapter"}, [("t", (32,), "F32")])
    refused(home, put(tmp_path / "lora.gguf", adapter), BadInputError, "of the kind 'adapter'")
    first, second, _ = put_shards(tmp_path / "set", "x", 3)
    second.unlink()
    refused(home, first, IncompleteModelError, "shard 2 of 3 is missing")
    refused(home, first.parent, IncompleteModelError, "shard 2 of 3 is missing")


@pytest.mark.parametrize(
    "name", ["", "one", "a/b/c", "../x", "a/..", "a b/c", "a/b:Q4", "a/b@main", "/a/b", "a/b/x.gguf", "hf:a/b"]
)
def test_bad_names(home: Home, tmp_path: Path, name: str) -> None:
    refused(home, put(tmp_path / "x.gguf"), BadInputError, "cannot use --name", name)


def test_another_file_in_its_place_stays(home: Home, tmp_path: Path) -> None:
    one = take(home, put(tmp_path / "a/x.gguf", model_bytes(seed=1)), "copy")
    before = one.files[0].read_bytes()
    with pytest.raises(ConflictError, match="another file is at"):
        take(home, put(tmp_path / "b/x.gguf", model_bytes(seed=2)))
    assert one.files[0].read_bytes() == before
    assert len(below(home)) == 2


def test_names_that_differ_only_in_case_are_one_name(home: Home, tmp_path: Path) -> None:
    take(home, put(tmp_path / "x.gguf"), name="Me/Model")
    for name in ("me/model", "me/other", "ME/Model"):
        with pytest.raises(NameTakenError, match="differs only in spelling"):
            take(home, put(tmp_path / "x.gguf"), name=name)


def test_files_of_other_tools_are_not_moved(home: Home, tmp_path: Path) -> None:
    source = put(tmp_path / "lm/x.gguf")
    Roots(home, Remarks()).add(tmp_path / "lm", "folder")
    with pytest.raises(RefusedError, match="only watched"):
        take(home, source, "move")
    (tmp_path / "link.gguf").symlink_to(source)
    with pytest.raises(RefusedError, match="a link"):
        take(home, tmp_path / "link.gguf", "move")
    assert source.exists()
    assert take(home, source).files[0].exists()


def test_a_file_of_the_library_gets_the_side_car_that_it_lacks(home: Home) -> None:
    path = put(home.models_dir / "o/r/x-Q4_K_M.gguf")
    one = take(home, path)
    assert (one.key, one.was_there, one.files) == ("o/r:Q4_K_M", True, (path,))
    assert read_record(path) is not None
    assert below(home) == ["o/r/x-Q4_K_M.gguf", "o/r/x-Q4_K_M.gguf.json"]


def test_a_file_of_the_library_is_neither_moved_nor_renamed(home: Home, tmp_path: Path) -> None:
    path = put(home.models_dir / "o/r/x-Q4_K_M.gguf")
    put(tmp_path / "big/model/y.gguf", model_bytes(seed=1))
    (home.models_dir / "local").symlink_to(tmp_path / "big")
    for file in (path, home.models_dir / "local/model/y.gguf"):
        with pytest.raises(RefusedError, match="it is in the library already"):
            take(home, file, "move")
        with pytest.raises(RefusedError, match="it is in the library already"):
            take(home, file, name="me/mine")
    assert below(home) == ["o/r/x-Q4_K_M.gguf"]


def test_a_side_car_waits_for_who_works_on_the_model(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_mgr.models.importing._BUSY_TIMEOUT_S", 0.1)
    path = put(home.models_dir / "o/r/x-Q4_K_M.gguf")
    with held_lock(home, lock_name("o/r"), "pull o/r", Remarks()), pytest.raises(BusyError, match="pull o/r"):
        take(home, path)
    assert read_record(path) is None


def test_one_name_is_not_for_several_models(home: Home, tmp_path: Path) -> None:
    put(tmp_path / "in/a-Q4_K_M.gguf")
    put(tmp_path / "in/a-Q8_0.gguf", model_bytes(quant="Q8_0"))
    assert len(Importer(home, Remarks()).take(tmp_path / "in", name="me/a")) == 2
    put(tmp_path / "in/b-Q4_K_M.gguf", model_bytes(seed=1))
    with pytest.raises(BadInputError, match="3 models are in it"):
        Importer(home, Remarks()).take(tmp_path / "in", name="me/b")
    assert not (home.models_dir / "me/b").exists()


def test_the_first_shard_comes_last_and_side_cars_after_all_files(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(home.models_dir / "me/split/other-Q8_0.gguf", model_bytes(quant="Q8_0"))  # so that the directory is there
    shards = put_shards(tmp_path / "in", "x", 2)
    put(tmp_path / "in/mmproj-F16.gguf", PROJECTOR)
    order: list[str] = []
    rename = Path.rename

    def noted(source: Path, target: Path) -> Path:
        if Path(target).parent == home.models_dir / "me/split":
            order.append(Path(target).name)
        return rename(source, target)

    monkeypatch.setattr(Path, "rename", noted)
    take(home, shards[0], name="me/split")
    files = ["mmproj-F16.gguf", shards[1].name, shards[0].name]
    assert order == [*files, *(f"{name}.json" for name in files)]


def test_a_file_that_belongs_to_a_pull_stays_as_it_is(home: Home, tmp_path: Path) -> None:
    path = put_recorded(home.models_dir / "o/r/x.gguf", repo="o/r", revision="a" * 40)
    record = read_record(path)
    assert take(home, put(tmp_path / "x.gguf"), name="o/r").was_there
    assert read_record(path) == record


def test_a_disk_without_room_is_told_before_the_copy(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_mgr.store.free_bytes", lambda _: 1000)
    refused_path = put(tmp_path / "x.gguf")
    with pytest.raises(NoSpaceError, match="are free"):
        take(home, refused_path, "copy")
    assert below(home) == []


def test_a_file_that_changes_meanwhile_is_refused(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = put(tmp_path / "x.gguf")
    real = file_ways.copied

    def written_to(source: Path, target: Path, progress: object) -> str:
        sha256 = real(source, target, progress)  # type: ignore[arg-type]
        with source.open("ab") as file:
            file.write(b"more")
        return sha256

    monkeypatch.setattr("llama_mgr.models.importing.copied", written_to)
    with pytest.raises(BadGgufError, match="it changed meanwhile"):
        take(home, source, "copy")
    assert below(home) == []


# -- what a kill leaves ------------------------------------------------------------------------------------------------


def test_an_import_that_was_cut_off_between_renames_is_completed(home: Home, tmp_path: Path) -> None:
    shards = put_shards(tmp_path / "here", "x", 3)
    for shard in shards[1:]:  # as a kill before the last rename leaves it
        put(home.models_dir / "me/x" / shard.name, shard.read_bytes())
    assert [one.why for one in catalog_of(home).broken] == [f"shard 1 of 3 is missing: {shards[0].name}"]
    one = take(home, shards[0], name="me/x")
    assert not one.was_there
    (model,) = catalog_of(home).models
    assert all(read_record(path) for path in model.files)


def test_staging_is_not_listed_and_can_be_pruned_when_its_owner_is_dead(home: Home) -> None:
    with import_staging(home) as staged:
        put(staged / "x.gguf")
        assert catalog_of(home).models == ()
        assert stale_imports(home) == []
        assert not remove_stale_import(home, staged.parent)
    assert list(home.models_dir.iterdir()) == []
    left = put(home.models_dir / ".import-0123456789ab/model/x.gguf")
    put(home.models_dir / "o/r/.x.gguf.0123456789abcdef.part", b"12345")
    assert [(one.path.name, one.size_bytes) for one in leftovers(home)][1:] == [
        (".import-0123456789ab", left.stat().st_size)
    ]
    assert all(remove_leftover(home, one) for one in leftovers(home))
    assert leftovers(home) == []


# -- what several models share -----------------------------------------------------------------------------------------
