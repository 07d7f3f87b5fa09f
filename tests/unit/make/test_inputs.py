"""Contents of files that go into a step: read once, and known again as long as the files stay as they are."""

import os
from pathlib import Path

import pytest

from llama_mgr.errors import StorageError
from llama_mgr.make.inputs import input_of, known_inputs
from llama_mgr.make.provenance import InputRecord
from llama_mgr.models.content import hash_of
from llama_mgr.report import Reporter, SilentReporter
from tests.tools.made_models import made_by, model_of, put_made, sha256_of
from tests.tools.model_library import put, put_recorded

SILENT = SilentReporter()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read whole."""
    names: list[str] = []

    def noted(path: Path, reporter: Reporter) -> str:
        names.append(path.name)
        return hash_of(path, reporter)

    monkeypatch.setattr("llama_mgr.make.inputs.hash_of", noted)
    return names


def test_a_file_is_read_the_first_time_and_known_the_second(tmp_path: Path, read: list[str]) -> None:
    file = put(tmp_path / "model.safetensors", b"weights")
    first = input_of(file, SILENT)
    assert (first.name, first.size_bytes, first.sha256) == ("model.safetensors", 7, sha256_of(file))
    assert first.stamp
    assert input_of(file, SILENT, {"model.safetensors": first}) == first
    assert read == ["model.safetensors"]


def test_a_file_that_was_written_again_is_read_again(tmp_path: Path, read: list[str]) -> None:
    file = put(tmp_path / "model.safetensors", b"weights")
    first = input_of(file, SILENT)
    known = {first.name: first}
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=(0, 1_000_000_000))
    second = input_of(file, SILENT, known)
    assert second.sha256 == sha256_of(file) != first.sha256
    replaced = tmp_path / "new"
    replaced.write_bytes(b"Weights")
    os.utime(replaced, ns=(0, file.stat().st_mtime_ns))
    replaced.rename(file)  # the same size and time, but another inode
    assert input_of(file, SILENT, {second.name: second}).sha256 == sha256_of(file)
    file.write_bytes(b"longer weights")
    assert input_of(file, SILENT, known).size_bytes == 14
    assert read == ["model.safetensors"] * 4


def test_a_record_without_stamp_is_believed_for_the_same_size(tmp_path: Path, read: list[str]) -> None:
    file = put(tmp_path / "model.safetensors", b"weights")
    vouched = InputRecord(name="model.safetensors", size_bytes=7, sha256="a" * 64)
    assert input_of(file, SILENT, {"model.safetensors": vouched}) == vouched
    assert read == []
    other = InputRecord(name="model.safetensors", size_bytes=8, sha256="a" * 64)
    assert input_of(file, SILENT, {"model.safetensors": other}).sha256 == sha256_of(file)
    assert input_of(file, SILENT, {"other.safetensors": vouched}).sha256 == sha256_of(file)


def test_the_side_car_of_a_model_tells_its_content(tmp_path: Path, read: list[str]) -> None:
    file = put_recorded(tmp_path / "m.gguf", model_of())
    assert input_of(file, SILENT) == InputRecord(name="m.gguf", size_bytes=file.stat().st_size, sha256=sha256_of(file))
    assert read == []
    with file.open("ab") as grown:
        grown.write(b"x")
    assert input_of(file, SILENT).sha256 == sha256_of(file)
    file.with_name("m.gguf.json").unlink()
    assert input_of(file, SILENT).sha256 == sha256_of(file)
    assert read == ["m.gguf"] * 2


def test_a_json_file_beside_another_file_is_no_side_car(tmp_path: Path, read: list[str]) -> None:
    file = put_recorded(tmp_path / "model.bin", b"weights")
    file.write_bytes(b"WEIGHTS")
    assert input_of(file, SILENT).sha256 == sha256_of(file)
    assert read == ["model.bin"]


def test_a_file_that_is_gone_is_said(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot read"):
        input_of(tmp_path / "gone.gguf", SILENT)


def test_made_files_tell_what_went_into_them(tmp_path: Path) -> None:
    stamped = InputRecord(name="a.safetensors", size_bytes=1, sha256="a" * 64, stamp="1:2")
    bare = InputRecord(name="b.safetensors", size_bytes=1, sha256="b" * 64)
    newer = InputRecord(name="a.safetensors", size_bytes=2, sha256="c" * 64, stamp="3:4")
    first = put_made(tmp_path / "1.gguf", made_by(inputs=[stamped, bare]))
    second = put_made(tmp_path / "2.gguf", made_by(inputs=[newer]))
    pulled = put_recorded(tmp_path / "3.gguf", repo="a/b")
    assert known_inputs([first, pulled, tmp_path / "missing.gguf"]) == {"a.safetensors": stamped}
    assert known_inputs([first, second]) == {"a.safetensors": newer}
    assert known_inputs([]) == {}
