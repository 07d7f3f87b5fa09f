"""Verification finds every kind of damage, names the file, both hashes and the way to mend it."""

import hashlib
import json
import os
from pathlib import Path

import pytest

from llama_mgr.locks import held_lock
from llama_mgr.models.importing import Importer, Way
from llama_mgr.models.model_lock import lock_name
from llama_mgr.models.roots import Roots
from llama_mgr.models.side_car import read_record
from llama_mgr.models.verification import Verified, Verifier, selected
from llama_mgr.paths import Home
from tests.tools.gguf_file import model_bytes
from tests.tools.model_library import PROJECTOR, Remarks, catalog_of, put, put_recorded, put_shards


def verified(home: Home, *, with_hashes: bool = True) -> Verified:
    return Verifier(home, Remarks()).verify(*selected(catalog_of(home)), with_hashes=with_hashes)


def test_what_is_right_is_noted(home: Home) -> None:
    path = put_recorded(home.models_dir / "o/r/x.gguf", repo="o/r", revision="a" * 40)
    projector = put_recorded(home.models_dir / "o/r/mmproj-F16.gguf", PROJECTOR)
    dropped = put(home.models_dir / "o/dropped/y.gguf", model_bytes(seed=1))
    before = read_record(path)
    found = verified(home)
    assert (found.files, found.hashed_files, found.without_sha256, found.findings) == (3, 2, 1, [])
    assert found.hashed_bytes == path.stat().st_size + projector.stat().st_size
    after = read_record(path)
    assert before is not None
    assert after is not None
    assert (before.verified_at, after.sha256, after.repo) == (None, before.sha256, "o/r")
    assert after.verified_at is not None
    assert not dropped.with_name("y.gguf.json").exists()


def test_one_changed_byte_is_found(home: Home) -> None:
    path = put_recorded(home.models_dir / "o/r/x.gguf", repo="o/r", revision="a" * 40)
    good = hashlib.sha256(path.read_bytes()).hexdigest()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    (finding,) = verified(home).findings
    assert finding.path == path
    assert (finding.expected, finding.found) == (good, hashlib.sha256(content).hexdigest())
    assert finding.mend == f"llama-mgr rm {path} -y && llama-mgr pull o/r/x.gguf@{'a' * 40}"
    record = read_record(path)
    assert record is not None
    assert record.verified_at is None
    assert verified(home, with_hashes=False).findings == []


def test_an_imported_file_is_imported_again(home: Home, tmp_path: Path) -> None:
    source = put(tmp_path / "my file.gguf")
    (one,) = Importer(home, Remarks()).take(source, "copy")
    with one.files[0].open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"!")
    (finding,) = verified(home).findings
    again = f"llama-mgr import '{source}' --name local/my-file"
    assert finding.mend == f"llama-mgr rm '{one.files[0]}' -y && {again}"


@pytest.mark.parametrize("way", ["share", "move", "adopted", "both damaged"])
def test_nothing_tells_to_remove_the_only_copy(home: Home, tmp_path: Path, way: str) -> None:
    source = put(home.models_dir / "o/r/x.gguf" if way == "adopted" else tmp_path / "x.gguf")
    known: dict[str, Way] = {"share": "share", "move": "move"}
    (one,) = Importer(home, Remarks()).take(source, known.get(way, "share" if way == "adopted" else "copy"))
    good = hashlib.sha256(one.files[0].read_bytes()).hexdigest()
    for file in {one.files[0], *([source] if way == "both damaged" else [])}:
        with file.open("r+b") as opened:
            opened.seek(-1, os.SEEK_END)
            opened.write(b"!")
    (finding,) = verified(home).findings
    if way == "share" and one.how == "reflink":
        return  # the source is another file, and sound
    assert finding.mend == f"put another copy of it, with the sha256 {good}, in its place"


def test_nothing_tells_to_remove_the_shards_that_are_left(home: Home) -> None:
    shards = put_shards(home.models_dir / "o/r", "x", 3)
    Importer(home, Remarks()).take(shards[0])  # they lie in the library already: nobody has another copy
    shards[1].unlink()
    mends = {one.path: one.mend for one in verified(home, with_hashes=False).findings}
    assert mends
    assert not any(" rm " in mend for mend in mends.values())


def test_a_set_that_was_imported_is_imported_again_as_a_whole(home: Home, tmp_path: Path) -> None:
    source = put_shards(tmp_path / "in", "x", 2)[0]
    (one,) = Importer(home, Remarks()).take(source, "copy")
    one.files[1].write_bytes(one.files[1].read_bytes()[:-1] + b"!")
    (finding,) = verified(home).findings
    assert finding.mend.endswith(f"&& llama-mgr import {source} --name local/x")
    assert finding.mend.startswith(f"rm {one.files[1]} ")
    source.unlink()
    (finding,) = verified(home).findings
    assert " rm " not in finding.mend


def test_a_damaged_side_car_is_told_and_can_be_mended(home: Home) -> None:
    path = put_recorded(home.models_dir / "o/r/x.gguf")
    side_car = path.with_name("x.gguf.json")
    side_car.write_bytes(b"{")
    (finding,) = verified(home, with_hashes=False).findings
    assert (finding.path, finding.mend.split("   ")[0]) == (side_car, f"llama-mgr import {path}")
    projector = put_recorded(home.models_dir / "o/r/mmproj-F16.gguf", PROJECTOR).with_name("mmproj-F16.gguf.json")
    projector.write_bytes(b"{")
    mends = {one.path: one.mend.split("   ")[0] for one in verified(home, with_hashes=False).findings}
    assert mends == {side_car: f"llama-mgr import {path}", projector: f"llama-mgr import {path}"}
    Importer(home, Remarks()).take(path)
    assert verified(home).findings == []


def test_a_watched_folder_with_side_cars_is_hashed_and_left_alone(home: Home, tmp_path: Path) -> None:
    path = put_recorded(tmp_path / "in/x.gguf")
    before = path.with_name("x.gguf.json").read_bytes()
    Roots(home, Remarks()).add(tmp_path / "in", "folder")
    found = Verifier(home, Remarks()).verify(catalog_of(home).models, [])
    assert (found.hashed_files, found.findings) == (1, [])
    assert path.with_name("x.gguf.json").read_bytes() == before
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    (finding,) = Verifier(home, Remarks()).verify(catalog_of(home).models, []).findings
    assert finding.mend == f"repair it with the tool whose directory {tmp_path / 'in'} is"


def test_the_projector_of_a_copy_elsewhere_is_left_alone(home: Home, tmp_path: Path) -> None:
    put_recorded(home.models_dir / "o/r/x.gguf")
    put(tmp_path / "lm/p/q/x.gguf")
    projector = put_recorded(tmp_path / "lm/p/q/mmproj-F16.gguf", PROJECTOR)
    before = projector.with_name("mmproj-F16.gguf.json").read_bytes()
    Roots(home, Remarks()).add(tmp_path / "lm", "lm-studio")
    assert verified(home).hashed_files == 2
    assert projector.with_name("mmproj-F16.gguf.json").read_bytes() == before


def test_all_shards_and_the_projector_of_a_cache_are_hashed(home: Home, tmp_path: Path) -> None:
    repository = tmp_path / "hub/models--o--r"
    (repository / "snapshots/abc").mkdir(parents=True)
    contents = [*(model_bytes(split=(number, 2), seed=number) for number in range(2)), PROJECTOR]
    for name, content in zip(("x-00001-of-00002", "x-00002-of-00002", "mmproj-F16"), contents, strict=True):
        sha256 = hashlib.sha256(content).hexdigest()
        put(repository / "blobs" / sha256, content)
        (repository / f"snapshots/abc/{name}.gguf").symlink_to(f"../../blobs/{sha256}")
    Roots(home, Remarks()).add(tmp_path / "hub", "hf-cache")
    found = Verifier(home, Remarks()).verify(catalog_of(home).models, [])
    assert (found.hashed_files, found.without_sha256, found.findings) == (3, 0, [])


def test_everything_that_the_library_leaves_out_is_told(home: Home, tmp_path: Path) -> None:
    put(home.models_dir / "o/a/cut.gguf", model_bytes()[:-1])
    put_recorded(home.models_dir / "o/b/gone.gguf").unlink()
    put_shards(home.models_dir / "o/c", "x", 2)[1].unlink()
    other = put_recorded(home.models_dir / "o/d/other-size.gguf")
    other.write_bytes(model_bytes(quant="Q8_0"))
    put(tmp_path / "lm/o/e/theirs.gguf", b"GGUF")
    Roots(home, Remarks()).add(tmp_path / "lm", "lm-studio")
    findings = {one.path.name: one for one in verified(home, with_hashes=False).findings}
    assert {name: one.why.split(" ")[0] for name, one in findings.items()} == {
        "cut.gguf": "it", "gone.gguf": "it", "x-00001-of-00002.gguf": "shard", "other-size.gguf": "it",
        "theirs.gguf": "it",
    }  # fmt: skip
    assert findings["cut.gguf"].mend.startswith("llama-mgr rm ")
    assert "repair it with the tool" in findings["theirs.gguf"].mend


def test_a_file_that_breaks_after_it_was_listed(home: Home) -> None:
    path = put_recorded(home.models_dir / "o/r/x.gguf")
    models, broken = selected(catalog_of(home))
    path.write_bytes(b"GGUF")
    (finding,) = Verifier(home, Remarks()).verify(models, broken).findings
    assert "cut off" in finding.why


def test_blobs_of_other_tools_are_compared_with_their_names(home: Home, tmp_path: Path) -> None:
    content = model_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    repository = tmp_path / "hub/models--o--r"
    blob = put(repository / "blobs" / sha256, content)
    (repository / "snapshots/abc").mkdir(parents=True)
    (repository / "snapshots/abc/x.gguf").symlink_to(f"../../blobs/{sha256}")
    Roots(home, Remarks()).add(tmp_path / "hub", "hf-cache")
    catalog = catalog_of(home)
    assert selected(catalog)[0] == []
    assert Verifier(home, Remarks()).verify(catalog.models, []).findings == []
    blob.write_bytes(model_bytes(seed=1))
    (finding,) = Verifier(home, Remarks()).verify(catalog.models, []).findings
    assert finding.expected == sha256
    assert not list((tmp_path / "hub").rglob("*.json"))


def test_nothing_is_noted_while_somebody_works_on_the_model(home: Home) -> None:
    path = put_recorded(home.models_dir / "o/r/x.gguf")
    with held_lock(home, lock_name("o/r"), "pull", Remarks()):
        assert verified(home).findings == []
    record = read_record(path)
    assert record is not None
    assert record.verified_at is None


@pytest.mark.parametrize("field", ["sha256", "source"])
def test_a_side_car_cannot_smuggle_anything_into_a_command(home: Home, field: str) -> None:
    path = put_recorded(home.models_dir / "o/r/x.gguf", repo="o/r", revision="a" * 40)
    side_car = path.with_name("x.gguf.json")
    document = json.loads(side_car.read_text())
    document |= {field: "$(touch canary); \x1b[31m", "file": "x; rm -rf ~\n", "sha256": "0" * 64}
    side_car.write_text(json.dumps(document))
    (finding,) = verified(home).findings
    assert finding.mend.isprintable()
    assert "pull 'o/r/x; rm -rf ~" in finding.mend


def damage(path: Path) -> None:
    """Change the last byte."""
    path.write_bytes(path.read_bytes()[:-1] + b"!")


def test_a_damaged_projector_comes_again_with_its_model(home: Home, tmp_path: Path) -> None:
    revision = "b" * 40
    put_recorded(home.models_dir / "o/r/x.gguf", repo="o/r", revision=revision)
    projector = put_recorded(home.models_dir / "o/r/mmproj-F16.gguf", PROJECTOR, repo="o/r", revision="a" * 40)
    damage(projector)
    (finding,) = verified(home).findings
    assert finding.mend == f"llama-mgr rm {projector} -y && llama-mgr pull o/r/x.gguf@{revision}"
    projector.write_bytes(PROJECTOR[:-1])
    assert {one.mend for one in verified(home).findings} == {f"llama-mgr pull o/r/x.gguf@{revision}"}
    (home.models_dir / "o/r/x.gguf").unlink()
    (home.models_dir / "o/r/x.gguf.json").unlink()
    assert [one.mend for one in verified(home).findings if " rm " in f" {one.mend}"] == []
    projector.unlink()
    projector.with_name("mmproj-F16.gguf.json").unlink()
    source = put(tmp_path / "in/y.gguf", model_bytes(seed=1))
    put(tmp_path / "in/mmproj-F16.gguf", PROJECTOR)
    (one,) = Importer(home, Remarks()).take(source, "copy")
    assert one.projector is not None
    damage(one.projector)
    (finding,) = verified(home).findings
    assert finding.mend == f"llama-mgr rm {one.projector} -y && llama-mgr import {source} --name local/y"


def test_sound_shards_stay(home: Home) -> None:
    names = [home.models_dir / f"o/r/x-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    for number, path in enumerate(names):
        put_recorded(path, model_bytes(split=(number, 3), seed=number), repo="o/r", revision="a" * 40)
    damage(names[1])
    (finding,) = verified(home).findings
    pull = f"llama-mgr pull o/r/{names[0].name}@{'a' * 40}"
    assert finding.mend == f"rm {names[1]} && {pull}"
    names[1].unlink()
    mends = {one.mend for one in verified(home).findings}
    assert pull in mends
    assert not any("rm " in mend for mend in mends)
