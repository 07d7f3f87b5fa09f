"""Models with the same content are shown once, whatever they are called and wherever they lie."""

import hashlib
import os
import shutil
from pathlib import Path

from llama_mgr.models.fingerprint import sample_of
from llama_mgr.models.roots import Roots
from llama_mgr.paths import Home
from tests.tools.gguf_file import model_bytes
from tests.tools.model_library import PROJECTOR, Remarks, catalog_of, keys, put, put_recorded, put_shards


def watch(home: Home, directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    Roots(home, Remarks()).add(directory, "folder")
    return directory


def test_a_copy_elsewhere_is_no_second_model(home: Home, tmp_path: Path) -> None:
    folder = watch(home, tmp_path / "folder")
    own = put(home.models_dir / "o/r/r.gguf")
    copy = put(folder / "other name.gguf")
    (model,) = catalog_of(home).models
    assert (model.files, model.copies) == ((own,), (copy,))


def test_our_own_is_the_first_of_equal_ones(home: Home, tmp_path: Path) -> None:
    folder = watch(home, tmp_path / "folder")
    copies = [put(folder / name) for name in ("a.gguf", "b.gguf")]
    own = put(home.models_dir / "zzz/zzz/z.gguf")
    (model,) = catalog_of(home).models
    assert (model.files, set(model.copies)) == ((own,), set(copies))


def test_the_projector_of_a_copy_is_not_lost(home: Home, tmp_path: Path) -> None:
    own = put(home.models_dir / "o/r/x.gguf")
    put(tmp_path / "lm/p/q/x.gguf")
    projector = put(tmp_path / "lm/p/q/mmproj-F16.gguf", PROJECTOR)
    Roots(home, Remarks()).add(tmp_path / "lm", "lm-studio")
    (model,) = catalog_of(home).models
    assert (model.files, model.projector, model.projector_bytes) == ((own,), projector, len(PROJECTOR))
    assert "vision" in model.capabilities


def test_hard_links_are_one_model(home: Home) -> None:
    first = put(home.models_dir / "a/a/x.gguf")
    second = home.models_dir / "b/b/y.gguf"
    second.parent.mkdir(parents=True)
    os.link(first, second)
    catalog = catalog_of(home)
    assert keys(catalog) == ["a/a:Q4_K_M"]
    assert [model.key for model in catalog.duplicates] == ["b/b:Q4_K_M"]


def test_equal_sizes_are_not_equal_models(home: Home) -> None:
    for number in range(3):
        put(home.models_dir / f"o/r{number}/x.gguf", model_bytes(seed=number))
    catalog = catalog_of(home)
    assert len(catalog.models) == 3
    assert not any(model.copies for model in catalog.models)


def test_equal_weights_under_another_header_are_another_model(home: Home) -> None:
    put(home.models_dir / "o/a/x.gguf", model_bytes(name="Name A"))
    put(home.models_dir / "o/b/x.gguf", model_bytes(name="Name B"))
    assert len(catalog_of(home).models) == 2


def test_a_known_sha256_decides_against_equal_samples(home: Home) -> None:
    one = put_recorded(home.models_dir / "o/a/x.gguf")
    two = put_recorded(home.models_dir / "o/b/x.gguf")
    third = put(home.models_dir / "o/c/x.gguf")
    record = one.with_name("x.gguf.json")
    record.write_text(record.read_text().replace(hashlib.sha256(one.read_bytes()).hexdigest(), "0" * 64))
    models = {model.name: model for model in catalog_of(home).models}
    assert models.keys() == {"o/a", "o/b"}
    # What has no sha256 of its own is taken for a copy of one of those with equal samples.
    assert [*models["o/a"].copies, *models["o/b"].copies] == [third]
    assert two.exists()


def test_equal_sha256_need_no_reading(home: Home) -> None:
    paths = [put_recorded(home.models_dir / f"o/r{number}/x.gguf") for number in range(2)]
    (model,) = catalog_of(home).models
    assert model.copies == (paths[1],)


def test_split_models_are_compared_shard_by_shard(home: Home) -> None:
    first = put_shards(home.models_dir / "o/a", "x", 3)
    put_shards(home.models_dir / "o/b", "y", 3)
    put_shards(home.models_dir / "o/c", "x", 3, seed=9)
    models = {model.name: model for model in catalog_of(home).models}
    assert models.keys() == {"o/a", "o/c"}
    assert models["o/a"].files == tuple(first)
    assert models["o/a"].copies == (home.models_dir / "o/b/y-00001-of-00003.gguf",)


def test_the_model_of_a_path_is_found_whatever_it_is_called(home: Home, tmp_path: Path) -> None:
    own = put(home.models_dir / "a/a/x.gguf")
    projector = put(home.models_dir / "a/a/mmproj-F16.gguf", PROJECTOR)
    copy = put(home.models_dir / "b/b/y.gguf", own.read_bytes())
    (tmp_path / "link").symlink_to(own)
    catalog = catalog_of(home)
    for path, name in ((own, "a/a"), (copy, "b/b"), (tmp_path / "link", "a/a"), (projector, "a/a")):
        found = catalog.holding(path)
        assert found is not None
        assert found.name == name
    assert catalog.holding(tmp_path / "nothing") is None


def test_a_sample_sees_a_change_in_each_part(tmp_path: Path) -> None:
    content = bytearray(os.urandom(1_000_000))
    path = tmp_path / "x"
    path.write_bytes(content)
    before = sample_of(str(path), 10_000)
    for place in (0, 9_999, 10_000, 500_000, 999_999):
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        if place != 500_000:  # between the samples nobody looks
            assert sample_of(str(path), 10_000) != before, place
    path.write_bytes(content)
    assert sample_of(str(path), 10_000) == before
    shutil.copy(path, tmp_path / "y")
    assert sample_of(str(tmp_path / "y"), 10_000) == before
    assert sample_of(str(path), 9_999) != before
    (tmp_path / "small").write_bytes(b"abc")
    assert sample_of(str(tmp_path / "small"), 3)
