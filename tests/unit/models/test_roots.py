"""The list of watched directories: what may be on it, and what becomes of it when it is damaged."""

import json
import os
from pathlib import Path

import pytest

from llama_mgr.errors import (
    BadInputError,
    ConflictError,
    CorruptStateError,
    NewerStateError,
    NotFoundError,
    RefusedError,
    StorageError,
)
from llama_mgr.models.roots import Roots
from llama_mgr.paths import Home
from tests.tools.gguf_file import model_bytes
from tests.tools.model_library import Remarks, catalog_of, keys, put


def lm_studio(root: Path) -> None:
    put(root / "publisher/Model-GGUF/Model-Q4_K_M.gguf", model_bytes())


def test_a_root_is_remembered_and_forgotten(home: Home, tmp_path: Path) -> None:
    lm_studio(tmp_path / "lm")
    roots = Roots(home, Remarks())
    root, is_new = roots.add(tmp_path / "lm", "lm-studio")
    assert is_new
    assert roots.add(tmp_path / "lm" / "publisher" / "..", "folder") == (root, False)
    assert Roots(home, Remarks()).watched() == [root]
    (tmp_path / "link").symlink_to(tmp_path / "lm")
    assert roots.add(tmp_path / "link", "folder") == (root, False)
    assert roots.remove(tmp_path / "lm") == root
    assert (roots.watched(), keys(catalog_of(home))) == ([], [])
    assert (tmp_path / "lm/publisher/Model-GGUF/Model-Q4_K_M.gguf").exists()


def test_roots_must_not_overlap(home: Home, tmp_path: Path) -> None:
    put(home.models_dir / "o/r/x.gguf")
    (tmp_path / "theirs/inside").mkdir(parents=True)
    roots = Roots(home, Remarks())
    for directory, words in ((home.models_dir, "always listed"), (home.models_dir / "o", "always listed")):
        with pytest.raises(ConflictError, match=words):
            roots.add(directory, "folder")
    with pytest.raises(ConflictError, match=r"the models directory .* lies in it"):
        roots.add(tmp_path, "folder")
    roots.add(tmp_path / "theirs", "folder")
    with pytest.raises(ConflictError, match="which is watched"):
        roots.add(tmp_path / "theirs/inside", "folder")
    roots.remove(tmp_path / "theirs")
    roots.add(tmp_path / "theirs/inside", "folder")
    with pytest.raises(ConflictError, match=r"the watched directory .* lies in it"):
        roots.add(tmp_path / "theirs", "folder")


def test_what_is_no_directory_is_no_root(home: Home, tmp_path: Path) -> None:
    roots = Roots(home, Remarks())
    with pytest.raises(NotFoundError):
        roots.add(tmp_path / "missing", "folder")
    with pytest.raises(BadInputError):
        roots.add(put(tmp_path / "x.gguf"), "folder")
    with pytest.raises(BadInputError):
        roots.add(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")), "folder")
    with pytest.raises(NotFoundError):
        roots.remove(tmp_path)
    with pytest.raises(RefusedError):
        roots.remove(home.models_dir)
    assert not roots.file.exists()


def test_a_root_that_is_gone_stays_a_root(home: Home, tmp_path: Path) -> None:
    lm_studio(tmp_path / "lm")
    put(home.models_dir / "o/r/x.gguf", model_bytes(seed=1))
    Roots(home, Remarks()).add(tmp_path / "lm", "lm-studio")
    assert len(catalog_of(home).models) == 2
    (tmp_path / "lm").rename(tmp_path / "away")
    remarks = Remarks()
    catalog = catalog_of(home, remarks)
    assert keys(catalog) == ["o/r:Q4_K_M"]
    assert [root.path for root in catalog.missing_roots] == [tmp_path / "lm"]
    assert len(remarks.warnings) == 1
    assert "cannot search" in remarks.warnings[0]
    (tmp_path / "away").rename(tmp_path / "lm")
    assert len(catalog_of(home).models) == 2
    (tmp_path / "lm").rename(tmp_path / "away")
    Roots(home, Remarks()).remove(tmp_path / "lm")
    assert not catalog_of(home).missing_roots


def test_a_damaged_list_of_roots_stops_no_list(home: Home) -> None:
    put(home.models_dir / "o/r/x.gguf")
    roots = Roots(home, Remarks())
    for content in (b"", b"{", b"\x00" * 50, b'{"schema": 1, "kind": "model-roots", "roots": [{"path": 5}]}'):
        roots.file.write_bytes(content)
        remarks = Remarks()
        assert keys(catalog_of(home, remarks)) == ["o/r:Q4_K_M"]
        assert "is searched" in remarks.warnings[0]
        with pytest.raises(CorruptStateError):
            roots.watched()
        assert roots.file.read_bytes() == content
    roots.file.write_bytes(b'{"schema": 99}')
    with pytest.raises(NewerStateError):
        catalog_of(home)
    roots.file.unlink()
    roots.file.mkdir()
    with pytest.raises(StorageError):
        catalog_of(home)


def test_a_damaged_list_of_roots_steps_aside_for_the_next_add(home: Home, tmp_path: Path) -> None:
    put(tmp_path / "lm/x.gguf")
    remarks = Remarks()
    roots = Roots(home, remarks)
    roots.file.write_bytes(b"{")
    assert roots.add(tmp_path / "lm", "folder")[1]
    assert [root.path for root in roots.watched()] == [tmp_path / "lm"]
    (aside,) = home.root.glob("model-roots.json.corrupt-*")
    assert aside.read_bytes() == b"{"
    assert str(aside) in remarks.warnings[0]
    roots.file.write_bytes(b"[]")
    with pytest.raises(NotFoundError, match="it is not watched"):
        roots.remove(tmp_path / "lm")
    assert roots.watched() == []


def test_a_relative_path_in_the_list_is_no_root(home: Home) -> None:  # row 51
    entry = {"path": "../../etc", "form": "folder", "added_at": ""}
    document = {"schema": 1, "kind": "model-roots", "written_by": "x", "roots": [entry]}
    Roots(home, Remarks()).file.write_text(json.dumps(document))
    assert Roots(home, Remarks()).watched() == []
