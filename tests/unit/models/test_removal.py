"""Removing models: exactly what was named, nothing of others, nothing through links, nothing in use."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from llama_mgr.errors import BusyError, InUseError, LlamaMgrError, NotFoundError, RefusedError
from llama_mgr.locks import held_lock
from llama_mgr.models.model_lock import lock_name
from llama_mgr.models.removal import Doomed, Remover
from llama_mgr.models.roots import Roots
from llama_mgr.paths import Home
from llama_mgr.report import SilentReporter
from tests.tools.gguf_file import model_bytes
from tests.tools.model_library import PROJECTOR, Remarks, catalog_of, keys, put, put_recorded, put_shards


def remover(home: Home, used: Mapping[Path, Sequence[str]] | None = None) -> Remover:
    return Remover(home, lambda: used or {}, Remarks())


def remove(home: Home, *wanted: str) -> int:
    models = [model for model in catalog_of(home).models if model.key in wanted]
    assert len(models) == len(wanted)
    tool = remover(home)
    return tool.remove(tool.doomed_models(models))


def remove_at(home: Home, path: Path) -> int:
    tool = remover(home)
    return tool.remove([tool.doomed_at(path, catalog_of(home))])


def below(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if not path.is_dir())


def test_a_model_goes_with_its_side_car_and_empty_directories(home: Home) -> None:
    path = put_recorded(home.models_dir / "o/r/deep/x-Q4_K_M.gguf")
    put(home.models_dir / "o/other/y-Q8_0.gguf", model_bytes(quant="Q8_0"))
    size_bytes = path.stat().st_size
    assert remove(home, "o/r:Q4_K_M") == size_bytes
    assert below(home.models_dir) == ["o/other/y-Q8_0.gguf"]
    assert not (home.models_dir / "o/r").exists()


def test_the_last_model_leaves_the_models_directory(home: Home) -> None:
    put_recorded(home.models_dir / "o/r/x.gguf")
    remove(home, "o/r:Q4_K_M")
    assert home.models_dir.is_dir()
    assert list(home.models_dir.iterdir()) == []


def test_other_files_of_the_directory_stay(home: Home) -> None:
    put_recorded(home.models_dir / "o/r/x.gguf")
    put(home.models_dir / "o/r/README.md", b"x")
    put(home.models_dir / "o/r/.y.gguf.0123456789abcdef.part", b"x")
    remove(home, "o/r:Q4_K_M")
    assert below(home.models_dir) == ["o/r/.y.gguf.0123456789abcdef.part", "o/r/README.md"]


def test_all_shards_go(home: Home) -> None:
    put_shards(home.models_dir / "o/r", "x", 3)
    remove(home, "o/r:Q4_K_M")
    assert below(home.models_dir) == []


def test_a_projector_stays_as_long_as_a_model_needs_it(home: Home) -> None:
    put_recorded(home.models_dir / "o/r/mmproj-F16.gguf", PROJECTOR)
    put_recorded(home.models_dir / "o/r/x-Q4_K_M.gguf")
    put_shards(home.models_dir / "o/r/Q8_0", "x-Q8_0", 2)
    small, large = sorted(catalog_of(home).models, key=lambda model: len(model.files))
    tool = remover(home)
    tool.remove(tool.doomed_models([small]))
    assert (home.models_dir / "o/r/mmproj-F16.gguf").exists()
    assert tool.files_of(tool.doomed_models([large]))[-1].name == "mmproj-F16.gguf"
    tool.remove(tool.doomed_models([large]))
    assert below(home.models_dir) == []


@pytest.mark.parametrize("other", ["y-Q8_0.GGUF", "deep/y-Q8_0.gguf"])
def test_a_projector_stays_for_a_model_of_whatever_name(home: Home, other: str) -> None:
    repo = home.models_dir / "o/r"
    put(repo / "x-Q4_K_M.gguf")
    put(repo / other, model_bytes(quant="Q8_0"))
    put(repo / "mmproj-F16.gguf", PROJECTOR)
    remove(home, "o/r:Q4_K_M")
    assert below(repo) == sorted([other, "mmproj-F16.gguf"])


def test_the_projector_of_a_copy_elsewhere_stays(home: Home, tmp_path: Path) -> None:
    own = put(home.models_dir / "o/r/x.gguf")
    put(tmp_path / "lm/p/q/x.gguf")
    projector = put(tmp_path / "lm/p/q/mmproj-F16.gguf", PROJECTOR)
    Roots(home, Remarks()).add(tmp_path / "lm", "lm-studio")
    remove(home, "o/r:Q4_K_M")
    assert (own.exists(), projector.exists()) == (False, True)


def test_all_quants_go_with_their_projector(home: Home) -> None:
    put(home.models_dir / "o/r/mmproj-F16.gguf", PROJECTOR)
    put(home.models_dir / "o/r/x-Q4_K_M.gguf")
    put(home.models_dir / "o/r/x-Q8_0.gguf", model_bytes(quant="Q8_0"))
    remove(home, "o/r:Q4_K_M", "o/r:Q8_0")
    assert below(home.models_dir) == []


def test_a_link_goes_and_what_it_leads_to_stays(home: Home, tmp_path: Path) -> None:
    outside = put(tmp_path / "outside/x.gguf")
    (home.models_dir / "o/r").mkdir(parents=True)
    (home.models_dir / "o/r/link.gguf").symlink_to(outside)
    assert remove(home, "o/r:Q4_K_M") == 0
    assert outside.read_bytes() == model_bytes()
    assert below(home.models_dir) == []


def test_a_second_name_frees_nothing(home: Home, tmp_path: Path) -> None:
    source = put(tmp_path / "x.gguf")
    (home.models_dir / "o/r").mkdir(parents=True)
    os.link(source, home.models_dir / "o/r/x.gguf")
    assert remove(home, "o/r:Q4_K_M") == 0
    assert source.exists()


# -- by path -----------------------------------------------------------------------------------------------------------


def test_what_is_broken_goes_by_its_path(home: Home) -> None:
    path = put(home.models_dir / "o/r/x.gguf", b"GGUF")
    assert remove_at(home, path) == 4
    assert below(home.models_dir) == []


def test_a_broken_set_goes_as_a_whole(home: Home) -> None:
    shards = put_shards(home.models_dir / "o/r", "x", 3)
    shards[0].unlink()
    other = put(home.models_dir / "o/r/y.gguf")
    remove_at(home, shards[2])
    assert below(home.models_dir) == ["o/r/y.gguf"]
    assert other.exists()


def test_a_side_car_without_its_file_goes_by_the_path_of_the_file(home: Home) -> None:
    path = put_recorded(home.models_dir / "o/r/x.gguf")
    path.unlink()
    remove_at(home, path)
    assert below(home.models_dir) == []


def test_the_path_of_a_shard_means_the_model_and_that_of_a_projector_itself(home: Home) -> None:
    shards = put_shards(home.models_dir / "o/r", "x", 2)
    projector = put(home.models_dir / "o/r/mmproj-F16.gguf", PROJECTOR)
    remove_at(home, projector)
    assert all(shard.exists() for shard in shards)
    remove_at(home, shards[1])
    assert below(home.models_dir) == []


def test_a_gguf_of_another_kind_goes_by_its_path(home: Home) -> None:
    put(home.models_dir / "o/r/x.gguf")
    draft = put(home.models_dir / "o/r/mtp-draft.gguf", model_bytes(seed=3))
    remove_at(home, draft)
    assert keys(catalog_of(home)) == ["o/r:Q4_K_M"]


def test_paths_elsewhere_are_refused(home: Home, tmp_path: Path) -> None:
    outside = put(tmp_path / "outside/x.gguf")
    (home.models_dir / "o/r").mkdir(parents=True)
    (home.models_dir / "o/r/way-out").symlink_to(outside.parent)
    state = put(home.models_dir / "o/notes.txt", b"x")
    own = put(home.models_dir / "o/r/y.gguf", model_bytes(seed=1))
    (tmp_path / "link.gguf").symlink_to(own)
    os.link(own, tmp_path / "second-name.gguf")
    for path in (
        outside,
        tmp_path / "link.gguf",
        tmp_path / "second-name.gguf",
        home.models_dir / "o/r/way-out/x.gguf",
        home.models_dir / "../../outside/x.gguf",
        state,
        home.models_dir,
    ):
        with pytest.raises(RefusedError):
            remove_at(home, path)
    with pytest.raises(NotFoundError):
        remove_at(home, tmp_path / "missing.gguf")
    assert all(path.exists() for path in (outside, state, own))


def test_files_of_other_tools_are_refused(home: Home, tmp_path: Path) -> None:
    path = put(tmp_path / "lm/o/r/x.gguf")
    broken = put(tmp_path / "lm/o/r/broken.gguf", b"")
    Roots(home, SilentReporter()).add(tmp_path / "lm", "lm-studio")
    (model,) = catalog_of(home).models
    with pytest.raises(RefusedError, match="only watched") as caught:
        remover(home).doomed_models([model])
    assert f"llama-mgr index remove {tmp_path / 'lm'}" in str(caught.value.hint)
    for one in (path, broken):
        with pytest.raises(RefusedError, match="only watched"):
            remove_at(home, one)


def test_a_projector_of_other_tools_is_refused(home: Home, tmp_path: Path) -> None:
    own = put(home.models_dir / "o/r/x.gguf")
    put(tmp_path / "lm/p/q/x.gguf")
    projector = put(tmp_path / "lm/p/q/mmproj-F16.gguf", PROJECTOR)
    Roots(home, Remarks()).add(tmp_path / "lm", "lm-studio")
    (home.models_dir / "theirs").symlink_to(tmp_path / "lm/p")
    broken = put(tmp_path / "lm/p/cut/z.gguf", b"GGUF")
    linked = home.models_dir / "theirs"
    for path in (projector, linked / "q/mmproj-F16.gguf", broken, linked / "cut/z.gguf"):
        with pytest.raises(RefusedError, match=f"it lies in {tmp_path / 'lm'}, which is only watched"):
            remove_at(home, path)
    assert all(path.exists() for path in (own, projector, broken))


def test_a_model_behind_a_linked_owner_goes_unless_another_tool_has_it(home: Home, tmp_path: Path) -> None:
    path = put_recorded(tmp_path / "big/model/x.gguf")
    broken = put(tmp_path / "big/cut/z.gguf", b"GGUF")
    put(tmp_path / "lm/publisher/model/y.gguf", model_bytes(seed=1))
    home.models_dir.mkdir(parents=True)
    (home.models_dir / "local").symlink_to(tmp_path / "big")
    (home.models_dir / "theirs").symlink_to(tmp_path / "lm/publisher")
    Roots(home, Remarks()).add(tmp_path / "lm", "lm-studio")
    assert remove(home, "local/model:Q4_K_M") > 0
    assert not path.exists()
    assert not path.with_name("x.gguf.json").exists()
    remove_at(home, home.models_dir / "local/cut/z.gguf")
    assert not broken.exists()
    with pytest.raises(RefusedError, match="which is only watched"):
        remove(home, "theirs/model:Q4_K_M")
    assert (tmp_path / "lm/publisher/model/y.gguf").exists()


def test_a_directory_that_became_a_link_is_not_followed(home: Home, tmp_path: Path) -> None:
    path = put(home.models_dir / "o/r/x.gguf")
    tool = remover(home)
    doomed = tool.doomed_models(catalog_of(home).models)
    outside = put(tmp_path / "outside/x.gguf").parent
    path.parent.rename(tmp_path / "kept")
    path.parent.symlink_to(outside)
    with pytest.raises(RefusedError):
        tool.remove(doomed)
    assert (outside / "x.gguf").exists()


# -- in use ------------------------------------------------------------------------------------------------------------


def test_what_a_server_uses_stays(home: Home) -> None:
    shards = put_shards(home.models_dir / "o/r", "x", 2)
    other = put(home.models_dir / "o/r2/y.gguf")
    tool = remover(home, {shards[0].resolve(): ["the server 'chat' (pid 42)"]})
    models = {model.name: model for model in catalog_of(home).models}
    with pytest.raises(InUseError, match=r"it is used by the server 'chat' \(pid 42\)"):
        tool.remove(tool.doomed_models([models["o/r2"], models["o/r"]]))
    assert other.exists(), "nothing goes when something must stay"
    assert all(shard.exists() for shard in shards)


def test_each_file_of_a_model_that_a_server_uses_stays(home: Home) -> None:
    shards = put_shards(home.models_dir / "o/r", "x", 2)
    projector = put(home.models_dir / "o/r/mmproj-F16.gguf", PROJECTOR)
    tool = remover(home, {shards[0].resolve(): ["the server 'chat'"]})
    for file in (*shards, projector):
        with pytest.raises(InUseError, match="it is used by the server 'chat'"):
            tool.require_unused([tool.doomed_at(file, catalog_of(home))])


def test_a_server_that_starts_while_a_removal_waits_keeps_its_model(home: Home) -> None:
    path = put(home.models_dir / "o/r/x.gguf")
    answers: list[dict[Path, list[str]]] = [{}, {path.resolve(): ["the server 'chat'"]}]
    tool = Remover(home, lambda: answers.pop(0), Remarks())
    with pytest.raises(InUseError):
        tool.remove(tool.doomed_models(catalog_of(home).models))
    assert (path.exists(), answers) == (True, [])


def test_what_is_being_pulled_stays(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_mgr.models.removal._BUSY_TIMEOUT_S", 0.1)
    path = put(home.models_dir / "o/r/x.gguf")
    with held_lock(home, lock_name("o/r"), "pull o/r", Remarks()), pytest.raises(BusyError, match="pull o/r"):
        remove(home, "o/r:Q4_K_M")
    assert path.exists()


def test_two_removals_of_one_model(home: Home) -> None:
    put_recorded(home.models_dir / "o/r/x.gguf")
    tool = remover(home)
    doomed = tool.doomed_models(catalog_of(home).models)
    assert tool.remove(doomed) > 0
    assert tool.remove(doomed) == 0


def test_a_json_file_of_somebody_else_stays(home: Home) -> None:
    path = put(home.models_dir / "o/r/x.gguf")
    put(path.with_name("x.gguf.json"), b'{"etag": "abc"}')
    remove(home, "o/r:Q4_K_M")
    assert below(home.models_dir) == ["o/r/x.gguf.json"]


def test_a_directory_keeps_its_side_car(home: Home) -> None:
    path = put_recorded(home.models_dir / "o/r/x.gguf")
    path.unlink()
    path.mkdir()
    tool = remover(home)
    with pytest.raises(LlamaMgrError, match="directory"):
        tool.remove([Doomed("x", "o/r", (path,), places=(path.parent.resolve(),))])
    assert path.with_name("x.gguf.json").exists()
