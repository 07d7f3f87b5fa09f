"""Projectors on this disk: which model each belongs to."""

from llama_mgr.paths import Home
from tests.tools.gguf_file import model_bytes
from tests.tools.model_library import (
    PROJECTOR,
    catalog_of,
    put,
    put_shards,
)

REVISION, OTHER_REVISION = "a" * 40, "b" * 40


def test_a_projector_belongs_to_all_quants_of_its_repository(home: Home) -> None:
    projector = put(home.models_dir / "o/r/mmproj-F16.gguf", PROJECTOR)
    put(home.models_dir / "o/r/r-Q4_K_M.gguf")
    put_shards(home.models_dir / "o/r/Q8_0", "r-Q8_0", 2)
    put(home.models_dir / "o/other/r-Q4_K_M.gguf", model_bytes(seed=5))
    found = {(model.name, len(model.files)): model for model in catalog_of(home).models}
    assert found["o/r", 1].projector == found["o/r", 2].projector == projector
    assert found["o/r", 1].projector_bytes == len(PROJECTOR)
    assert "vision" in found["o/r", 1].capabilities
    assert found["o/other", 1].projector is None
    assert "vision" not in found["o/other", 1].capabilities


def test_the_best_projector_is_taken(home: Home) -> None:
    put(home.models_dir / "o/r/mmproj-F32.gguf", PROJECTOR)
    best = put(home.models_dir / "o/r/mmproj-F16.gguf", PROJECTOR)
    put(home.models_dir / "o/r/r-Q4_K_M.gguf")
    (model,) = catalog_of(home).models
    assert model.projector == best


def test_among_many_models_a_projector_belongs_to_the_one_that_it_names(home: Home) -> None:
    projector = put(home.models_dir / "flat/mmproj-seer-F16.gguf", PROJECTOR)
    put(home.models_dir / "flat/seer-Q4_K_M.gguf", model_bytes(seed=1))
    put(home.models_dir / "flat/blind-Q4_K_M.gguf", model_bytes(seed=2))
    found = {model.name: model.projector for model in catalog_of(home).models}
    assert found == {"flat/seer": projector, "flat/blind": None}


def test_a_nameless_projector_is_for_a_single_model_only(home: Home) -> None:
    projector = put(home.models_dir / "flat/mmproj-F16.gguf", PROJECTOR)
    put(home.models_dir / "flat/seer-Q4_K_M.gguf", model_bytes(seed=1))
    (model,) = catalog_of(home).models
    assert model.projector == projector
    put(home.models_dir / "flat/blind-Q4_K_M.gguf", model_bytes(seed=2))
    assert [model.projector for model in catalog_of(home).models] == [None, None]


def test_a_damaged_projector_belongs_to_nothing(home: Home) -> None:
    put(home.models_dir / "o/r/mmproj-F16.gguf", PROJECTOR[:-1])
    put(home.models_dir / "o/r/r-Q4_K_M.gguf")
    catalog = catalog_of(home)
    assert [model.projector for model in catalog.models] == [None]
    assert "cut off" in catalog.broken[0].why
