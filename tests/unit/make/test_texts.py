"""Texts to measure with: the two that ship, and the user's, which must be texts."""

from pathlib import Path

import pytest

from llama_mgr.errors import BadInputError, NotFoundError, StorageError
from llama_mgr.make import texts
from llama_mgr.make.texts import Text, calibration_text, evaluation_text, text_at
from tests.tools.model_library import put

BYTES_PER_TOKEN = 6
"""More than tokenizers of today have for prose and code; the fewest tokens that the texts can be."""
CHUNK_TOKENS = 512


def test_our_texts_are_there_and_long_enough_to_measure_with() -> None:
    calibration, evaluation = calibration_text(), evaluation_text()
    assert (calibration.name, evaluation.name) == ("llama-mgr-calibration.txt", "llama-mgr-evaluation.txt")
    assert len(calibration.content) > 12 * CHUNK_TOKENS * BYTES_PER_TOKEN
    assert len(evaluation.content) > 8 * CHUNK_TOKENS * BYTES_PER_TOKEN
    for text in (calibration, evaluation):
        words = text.content.decode("utf-8")
        assert "\0" not in words
        assert "\r" not in words
        assert "\ufffd" not in words


def test_our_texts_are_not_one_text_repeated() -> None:
    for text in (calibration_text(), evaluation_text()):
        lines = [line for line in text.content.splitlines() if len(line) > 60]
        assert len(set(lines)) == len(lines)


def test_our_texts_have_nothing_in_common() -> None:
    length = 10  # words in a row
    runs = []
    for text in (calibration_text(), evaluation_text()):
        words = text.content.decode().lower().split()
        runs.append({tuple(words[place : place + length]) for place in range(len(words) - length)})
    assert all(runs)
    assert not runs[0] & runs[1]


def test_a_file_is_taken_as_it_is(tmp_path: Path) -> None:
    file = put(tmp_path / "My Corpus (v1).txt", "Grüße, 世界\r\n  \n".encode())
    text = text_at(file)
    assert text == Text("My-Corpus-v1.txt", file.read_bytes())
    assert len(text.sha256) == 64
    assert text_at(put(tmp_path / "other", file.read_bytes())).sha256 == text.sha256
    assert text_at(put(tmp_path / "other", b"Hello")).sha256 != text.sha256


def test_a_folder_gives_its_texts_by_name(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    put(folder / "b.txt", b"second")
    put(folder / "a.md", b"first")
    put(folder / "deep/er.txt", b"third")
    put(folder / "code.py", b"no")
    put(folder / "picture.png", b"\x89PNG\0")
    (folder / "dir.txt").mkdir()
    assert text_at(folder) == Text("corpus.txt", b"first\nsecond\nthird")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b" \n\t\r\n", "it is empty"),
        (b"abc\xff\xfedef", r"not UTF-8 \(byte 3 is not\)"),
        ("Grüße".encode("latin-1"), "not UTF-8"),
        (b"abc\0def", "NUL bytes"),
        ("\ufeffHello".encode("utf-16"), "not UTF-8"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(BadInputError, match=words):
        text_at(put(tmp_path / "x.txt", content))
    with pytest.raises(BadInputError, match=words):
        text_at(put(tmp_path / "folder/x.txt", content).parent)


def test_a_folder_without_texts_and_nothing_at_all_are_said(tmp_path: Path) -> None:
    put(tmp_path / "folder/x.bin", b"x")
    with pytest.raises(NotFoundError, match=r"no \.txt and no \.md"):
        text_at(tmp_path / "folder")
    with pytest.raises(NotFoundError, match="no such file"):
        text_at(tmp_path / "missing.txt")


def test_devices_and_endless_files_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StorageError, match="not a regular file"):
        text_at(Path("/dev/zero"))
    monkeypatch.setattr(texts, "_LIMIT_BYTES", 10)
    assert text_at(put(tmp_path / "x.txt", b"0123456789")).content == b"0123456789"
    with pytest.raises(StorageError, match="more than the limit of 10 B"):
        text_at(put(tmp_path / "x.txt", b"0123456789a"))


@pytest.mark.parametrize(("name", "expected"), [("-rf.txt", "rf.txt"), ("...", "model.txt"), ("ä b.md", "ä-b.txt")])
def test_the_name_of_a_text_is_safe_as_an_argument(tmp_path: Path, name: str, expected: str) -> None:
    assert text_at(put(tmp_path / name, b"x")).name == expected
