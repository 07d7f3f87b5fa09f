"""What the library makes of the files on a disk: names, keys, shards, projectors, and what is no model."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from llama_mgr.models.library import Catalog
from llama_mgr.models.removal import Remover
from llama_mgr.paths import Home
from tests.tools.gguf_file import Typed, gguf_bytes, model_bytes
from tests.tools.model_library import (
    Remarks,
    catalog_of,
    keys,
    put,
    put_recorded,
    put_shards,
)

REVISION, OTHER_REVISION = "a" * 40, "b" * 40


def whys(catalog: Catalog) -> list[str]:
    return [one.why for one in catalog.broken]


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("owner/Repo-GGUF/Repo-Q4_K_M.gguf", "owner/Repo-GGUF:Q4_K_M"),
        ("owner/Repo-GGUF/deep/er/Repo-Q4_K_M.gguf", "owner/Repo-GGUF:Q4_K_M"),
        ("dropped-Q4_K_M.gguf", "local/dropped:Q4_K_M"),
        ("folder/dropped.gguf", "folder/dropped:Q4_K_M"),
        ("my models (new)/Größe: 7 B/x.gguf", "my-models-new/Größe-7-B:Q4_K_M"),
    ],
)
def test_a_model_is_named_by_its_place(home: Home, path: str, key: str) -> None:
    put(home.models_dir / path)
    assert keys(catalog_of(home)) == [key]


def test_what_is_known_of_a_model(home: Home) -> None:
    path = put_recorded(home.models_dir / "o/r/r-Q8_0.gguf", model_bytes(quant="Q8_0"), repo="o/r", revision=REVISION)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    (model,) = catalog_of(home).models
    assert (model.name, model.quant, model.files, model.size_bytes) == ("o/r", "Q8_0", (path,), path.stat().st_size)
    assert model.modified_at == "2023-11-14T22:13:20Z"
    assert model.record is not None
    assert (model.record.repo, model.record.revision, model.sha256) == ("o/r", REVISION, model.record.sha256)
    assert (model.traits.architecture, model.traits.parameters) == ("llama", 393_984)
    assert (model.projector, model.copies, model.root.is_own) == (None, (), True)


def test_very_long_names_can_be_locked(home: Home) -> None:
    put(home.models_dir / ("模" * 80) / ("型" * 80) / "x.gguf")
    (model,) = catalog_of(home).models
    tool = Remover(home, dict, Remarks())
    tool.remove(tool.doomed_models([model]))
    assert catalog_of(home).models == ()


@pytest.mark.parametrize("mtime", [-5_000_000_000, 300_000_000_000])
def test_strange_times_do_no_harm(home: Home, mtime: int) -> None:
    os.utime(put(home.models_dir / "o/r/x.gguf"), (mtime, mtime))
    assert len(catalog_of(home).models) == 1


def test_a_home_without_models_is_empty(home: Home) -> None:
    remarks = Remarks()
    assert catalog_of(home, remarks) == Catalog((), ())
    assert not remarks.warnings


def test_equal_names_of_different_models_get_keys_of_their_own(home: Home) -> None:
    for number, name in enumerate(("a.gguf", "b.gguf", "deep/a.gguf")):
        put(home.models_dir / "o/r" / name, model_bytes(seed=number))
    assert sorted(keys(catalog_of(home))) == ["o/r/b.gguf", "o/r/deep/a.gguf", "o/r:Q4_K_M"]


def test_names_that_differ_only_in_case_get_keys_of_their_own(home: Home) -> None:
    put(home.models_dir / "o/r/a.gguf", model_bytes(seed=1))
    put(home.models_dir / "O/R/b.gguf", model_bytes(seed=2))
    found = keys(catalog_of(home))
    assert len({key.casefold() for key in found}) == 2


# -- what is left out --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        ".hidden.gguf",
        ".import-1/x.gguf",
        "x.gguf.part",
        ".x.gguf.0123456789abcdef.part",
        "x.gguf.json",
        "x.bin",
        "gguf",
    ],
)
def test_unfinished_and_other_files_are_no_models(home: Home, name: str) -> None:
    put(home.models_dir / "o/r/real.gguf")
    put(home.models_dir / "o/r" / name, b"{}" if name.endswith("json") else model_bytes(seed=1))
    catalog = catalog_of(home)
    assert keys(catalog) == ["o/r:Q4_K_M"]
    assert [one.path.name for one in catalog.broken] == (["x.gguf"] if name.endswith("json") else [])


@pytest.mark.parametrize(
    ("name", "metadata"),
    [
        ("lora.gguf", {"general.architecture": "llama", "general.type": "adapter", "adapter.type": "lora"}),
        ("matrix.gguf", {"general.architecture": "llama", "general.type": "imatrix"}),
        ("vocab.gguf", {"general.architecture": "llama", "tokenizer.ggml.model": "llama"}),
        ("mtp-draft.gguf", {"general.architecture": "llama", "general.type": "model"}),
    ],
)
def test_other_kinds_of_gguf_are_not_listed(home: Home, name: str, metadata: dict[str, object]) -> None:
    tensors = [] if name == "vocab.gguf" else [("t.weight", (32, 32), "F16")]
    put(home.models_dir / "o/r" / name, gguf_bytes(metadata, tensors))
    assert catalog_of(home) == Catalog((), ())


def test_links_to_files_are_followed_and_deep_links_to_directories_are_not(home: Home, tmp_path: Path) -> None:
    outside = put(tmp_path / "outside/o/r2/x.gguf", model_bytes(seed=7))
    repo = home.models_dir / "o/r"
    repo.mkdir(parents=True)
    (repo / "link.gguf").symlink_to(outside)
    (repo / "elsewhere").symlink_to(tmp_path / "outside")
    (repo / "loop").symlink_to(home.models_dir)
    (repo / "nowhere.gguf").symlink_to("missing")
    (repo / "directory.gguf").symlink_to(repo)
    catalog = catalog_of(home)
    assert keys(catalog) == ["o/r:Q4_K_M"]
    assert {one.path.name: one.why for one in catalog.broken} == {
        "nowhere.gguf": "it is a link that leads nowhere",
        "directory.gguf": "it is a link to a directory, not a file",
    }


def test_an_owner_and_a_repository_may_be_links(home: Home, tmp_path: Path) -> None:
    put(tmp_path / "big/model/x.gguf", model_bytes(seed=1))
    put(tmp_path / "disk/y.gguf", model_bytes(seed=2))
    (home.models_dir / "o").mkdir(parents=True)
    (home.models_dir / "local").symlink_to(tmp_path / "big")
    (home.models_dir / "o/r").symlink_to(tmp_path / "disk")
    # Ways back, ways round, and a second way to the same: none is gone twice.
    (home.models_dir / "self").symlink_to("self")
    (home.models_dir / "up").symlink_to(tmp_path)
    (home.models_dir / "o/top").symlink_to(home.models_dir)
    (home.models_dir / "same").symlink_to(tmp_path / "big")
    (tmp_path / "big/back").symlink_to(home.models_dir)
    catalog = catalog_of(home)
    assert [(model.key, model.files[0], model.copies) for model in catalog.models] == [
        ("local/model:Q4_K_M", home.models_dir / "local/model/x.gguf", ()),
        ("o/r:Q4_K_M", home.models_dir / "o/r/y.gguf", ()),
    ]


def test_a_search_without_end_is_ended_and_that_is_said(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    put(home.models_dir / "a/b/x.gguf")
    put(home.models_dir / "z/z/y.gguf", model_bytes(seed=1))
    monkeypatch.setattr("llama_mgr.models.walk._DIRECTORIES_LIMIT", 3)
    remarks = Remarks()
    assert keys(catalog_of(home, remarks)) == ["a/b:Q4_K_M"]
    assert remarks.warnings == [f"{home.models_dir} has more than 3 directories; the rest is not searched"]


def test_a_very_deep_tree_ends(home: Home) -> None:
    put(home.models_dir / "o/r" / "/".join("d" * 40) / "x.gguf")
    assert catalog_of(home).models == ()


def test_a_pipe_stops_nobody(home: Home) -> None:
    (home.models_dir / "o/r").mkdir(parents=True)
    os.mkfifo(home.models_dir / "o/r/pipe.gguf")
    os.mkfifo(home.models_dir / "o/r/x.gguf.json")
    put(home.models_dir / "o/r/x.gguf")
    catalog = catalog_of(home)
    assert keys(catalog) == ["o/r:Q4_K_M"]
    assert whys(catalog) == ["it is a pipe, not a file"]


def test_a_name_that_is_no_text(home: Home) -> None:
    directory = home.models_dir / "o/r"
    directory.mkdir(parents=True)
    put(Path(os.fsdecode(os.fsencode(directory) + b"/caf\xe9-Q4_K_M.gguf")))
    for _ in range(2):  # read, then remembered
        assert keys(catalog_of(home)) == ["o/r:Q4_K_M"]


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"", "it is empty"), (b"<html>", "web page"), (model_bytes()[:-1], "it is cut off"), (bytes(5000), "unfinished")],
)
def test_what_is_no_whole_gguf_is_broken(home: Home, content: bytes, why: str) -> None:
    path = put(home.models_dir / "o/r/x.gguf", content)
    for _ in range(2):  # read, then remembered
        catalog = catalog_of(home)
        assert not catalog.models
        (broken,) = catalog.broken
        assert (broken.path, broken.files) == (path, (path,))
        assert why in broken.why
        assert str(path) not in broken.why


def test_a_file_that_is_not_what_its_side_car_says_is_broken(home: Home) -> None:
    path = put_recorded(home.models_dir / "o/r/x.gguf")
    path.write_bytes(model_bytes(quant="Q8_0"))
    catalog = catalog_of(home)
    assert not catalog.models
    assert "and its side-car says" in whys(catalog)[0]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"schema": 1, "kind": "other"}', b'{"url": "https://x"}', b"\xff"]
)
def test_a_side_car_that_cannot_be_read_means_no_provenance(home: Home, content: bytes) -> None:
    path = put(home.models_dir / "o/r/x.gguf")
    put(path.with_name("x.gguf.json"), content)
    for _ in range(2):
        (model,) = catalog_of(home).models
        assert model.record is None


def test_the_side_car_of_a_newer_version_is_left_alone(home: Home) -> None:
    path = put(home.models_dir / "o/r/x.gguf")
    put(path.with_name("x.gguf.json"), b'{"schema": 99, "kind": "model"}')
    remarks = Remarks()
    (model,) = catalog_of(home, remarks).models
    assert model.record is None
    assert "schema 99" in remarks.warnings[0]


def test_a_side_car_without_its_file_is_told(home: Home) -> None:
    put_recorded(home.models_dir / "o/r/x.gguf").unlink()
    assert whys(catalog_of(home)) == ["it is gone; only its side-car is left"]


# -- shards ------------------------------------------------------------------------------------------------------------


def test_a_split_model_is_one_model(home: Home) -> None:
    whole = put(home.models_dir / "o/whole/x-Q4_K_M.gguf")
    shards = put_shards(home.models_dir / "o/split", "x-Q4_K_M", 3)
    split = next(model for model in catalog_of(home).models if model.name == "o/split")
    other = next(model for model in catalog_of(home).models if model.name == "o/whole")
    assert split.files == tuple(shards)
    assert split.size_bytes == sum(path.stat().st_size for path in shards)
    assert (split.traits.parameters, split.quant) == (other.traits.parameters, other.quant)
    assert split.traits.split is None
    assert other.files == (whole,)


def test_one_shard_of_one_is_a_whole_model(home: Home) -> None:
    put_shards(home.models_dir / "o/one", "x-Q4_K_M", 1)
    put(home.models_dir / "o/two/y-00001-of-00001.gguf")
    assert keys(catalog_of(home)) == ["o/one:Q4_K_M", "o/two:Q4_K_M"]


def rename(*pairs: tuple[str, str]) -> Callable[[Path], None]:
    def renamed(directory: Path) -> None:
        for old, new in pairs:
            (directory / old).rename(directory / new)

    return renamed


def remove(*names: str) -> Callable[[Path], None]:
    def removed(directory: Path) -> None:
        for name in names:
            (directory / name).unlink()

    return removed


def exchange(one: str, other: str) -> Callable[[Path], None]:
    def exchanged(directory: Path) -> None:
        first, second = (directory / one).read_bytes(), (directory / other).read_bytes()
        (directory / one).write_bytes(second)
        (directory / other).write_bytes(first)

    return exchanged


def replace(name: str, content: bytes) -> Callable[[Path], None]:
    def replaced(directory: Path) -> None:
        (directory / name).write_bytes(content)

    return replaced


def revisions(*shards: str) -> Callable[[Path], None]:
    def recorded(directory: Path) -> None:
        for path in sorted(directory.glob("*.gguf")):
            revision = OTHER_REVISION if path.name in shards else REVISION
            put_recorded(path, path.read_bytes(), repo="o/r", revision=revision)

    return recorded


ONE, TWO, THREE = (f"x-{number:05d}-of-00003.gguf" for number in (1, 2, 3))
BROKEN_SETS: dict[str, tuple[Callable[[Path], None], str]] = {
    "first-missing": (remove(ONE), f"shard 1 of 3 is missing: {ONE}"),
    "middle-missing": (remove(TWO), f"shard 2 of 3 is missing: {TWO}"),
    "last-missing": (remove(THREE), f"shard 3 of 3 is missing: {THREE}"),
    "two-missing": (remove(ONE, THREE), "2 of 3 shards are missing"),
    "middle-cut": (replace(TWO, model_bytes(split=(1, 3))[:-1]), "shard 2 of 3: it is cut off"),
    "two-things-wrong": (
        lambda place: [remove(ONE)(place), replace(THREE, b"")(place)].clear(),
        "shard 3 of 3: it is empty",
    ),
    "other-tensors": (
        lambda place: [
            replace(name, model_bytes(split=(number, 3), extra={"split.tensors.count": Typed("int32", 99)}))(place)
            for number, name in enumerate((ONE, TWO, THREE))
        ].clear(),
        "its shards have 12 tensors together, and 99 are promised",
    ),
    "first-empty": (replace(ONE, b""), "shard 1 of 3: it is empty"),
    "exchanged": (exchange(ONE, TWO), "shard 1 of 3 is number 2 of 3 by its header"),
    "doubled": (replace(THREE, model_bytes(split=(1, 3))), "shard 3 of 3 is number 2 of 3 by its header"),
    "wrong-count": (replace(TWO, model_bytes(split=(1, 4))), "shard 2 of 3 is number 2 of 4 by its header"),
    "whole-model": (replace(TWO, model_bytes()), "shard 2 of 3 is a whole model by its header"),
    "other-model": (
        replace(THREE, model_bytes(split=(2, 3), layers=3)),
        "shard 3 of 3 belongs to a model of 30 tensors",
    ),
    "renamed": (rename((TWO, "x.gguf")), f"shard 2 of 3 is missing: {TWO}"),
    "other-revision": (revisions(THREE), f"shard 3 of 3 is of revision o/r@{OTHER_REVISION[:12]}"),
    "renamed-set": (
        rename(*((f"x-{n:05d}-of-00003.gguf", f"x-{n:05d}-of-00004.gguf") for n in (1, 2, 3))),
        "shard 4 of 4 is missing: x-00004-of-00004.gguf",
    ),
    "number-above-count": (rename((THREE, "x-00004-of-00003.gguf")), f"shard 3 of 3 is missing: {THREE}"),
    "huge-count": (rename((ONE, "x-00001-of-99999.gguf")), "99998 of 99999 shards are missing: x-00002-of-99999.gguf"),
}


@pytest.mark.parametrize(("damage", "why"), BROKEN_SETS.values(), ids=BROKEN_SETS)
def test_a_set_of_shards_that_is_not_whole_is_no_model(home: Home, damage: Callable[[Path], None], why: str) -> None:
    directory = home.models_dir / "o/r"
    put_shards(directory, "x", 3)
    damage(directory)
    catalog = catalog_of(home)
    assert not catalog.models
    assert any(why in one for one in whys(catalog)), whys(catalog)


def test_shards_that_do_not_say_how_many_tensors_there_are(home: Home) -> None:
    for number, name in enumerate((ONE, TWO, THREE)):
        content = model_bytes(split=(number, 3), extra={"split.tensors.count": None})
        put(home.models_dir / "o/r" / name, content)
    assert len(catalog_of(home).models) == 1


def test_a_split_file_of_another_kind_is_not_listed(home: Home) -> None:
    for number, name in enumerate((ONE, TWO, THREE)):
        extra = {"general.type": "adapter"} if number == 0 else {}
        put(home.models_dir / "o/r" / name, model_bytes(split=(number, 3), extra=extra))
    assert catalog_of(home) == Catalog((), ())


def test_shards_of_one_revision_are_a_model(home: Home) -> None:
    put_shards(home.models_dir / "o/r", "x", 3)
    revisions()(home.models_dir / "o/r")
    assert len(catalog_of(home).models) == 1
