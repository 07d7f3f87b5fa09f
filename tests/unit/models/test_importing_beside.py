"""Imports where files of others lie beside: projectors that several models share, and documents that are not ours."""

from pathlib import Path

import pytest

from llama_mgr.errors import ConflictError
from llama_mgr.models.importing import Imported, Importer, Way
from llama_mgr.paths import Home
from tests.tools.gguf_file import model_bytes
from tests.tools.model_library import PROJECTOR, Remarks, catalog_of, put


def take(home: Home, path: Path, way: Way = "share", name: str | None = None) -> Imported:
    (imported,) = Importer(home, Remarks()).take(path, way, name)
    return imported


@pytest.mark.parametrize("name", ["me/m", None])
def test_quants_that_share_a_projector_are_moved_together(home: Home, tmp_path: Path, name: str | None) -> None:
    put(tmp_path / "in/m-Q4_K_M.gguf")
    put(tmp_path / "in/m-Q8_0.gguf", model_bytes(quant="Q8_0"))
    put(tmp_path / "in/mmproj-F16.gguf", PROJECTOR)
    assert len(Importer(home, Remarks()).take(tmp_path / "in", "move", name)) == 2
    assert list((tmp_path / "in").iterdir()) == []
    assert all(model.projector for model in catalog_of(home).models)


def test_a_projector_of_a_model_that_stays_is_not_taken_away(home: Home, tmp_path: Path) -> None:
    moved = put(tmp_path / "in/m-Q4_K_M.gguf")
    put(tmp_path / "in/m-Q8_0.gguf", model_bytes(quant="Q8_0"))
    projector = put(tmp_path / "in/mmproj-F16.gguf", PROJECTOR)
    one = take(home, moved, "move")
    assert (moved.exists(), projector.exists()) == (False, True)
    assert one.projector is not None
    take(home, tmp_path / "in/m-Q8_0.gguf", "move")
    assert list((tmp_path / "in").iterdir()) == []


def test_a_json_file_of_somebody_else_stays(home: Home, tmp_path: Path) -> None:
    theirs = put(home.models_dir / "me/x/x.gguf.json", b'{"etag": "abc"}')
    with pytest.raises(ConflictError, match="where its side-car must be"):
        take(home, put(tmp_path / "x.gguf"), name="me/x")
    assert theirs.read_bytes() == b'{"etag": "abc"}'
    assert [path.name for path in home.models_dir.rglob("*.*")] == ["x.gguf.json"]
