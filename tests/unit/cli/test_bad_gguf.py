"""Files that are no whole GGUF, one of each row of the project's table, on the real command line.

`import` refuses them with status 5 and one sentence, and the library stays as it was. All kinds of each row are tried
on the reader itself in tests/unit/models/test_gguf_hostile.py.
"""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from llama_mgr.paths import Home
from tests.conftest import Cli
from tests.tools.bad_input import assert_shape
from tests.tools.gguf_file import Typed, gguf_bytes, model_bytes, packed_string

MODEL = model_bytes()
_ARRAY, _STRING, _UINT8 = 9, 8, 0
_META_BYTES = 2048  # llama-quantize writes them last


def header(keys: int = 0, tensors: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, tensors, keys)


def array(kind: int, count: int, items: bytes = b"") -> bytes:
    return header(1) + packed_string("a") + struct.pack("<IIQ", _ARRAY, kind, count) + items


def tensor(name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    return packed_string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


ROWS: list[tuple[str, bytes, str]] = [
    ("89-empty", b"", "it is empty"),
    ("89-web-page", b"<!DOCTYPE html><html></html>", "it is a web page"),
    ("89-ggml", b"GGML" + bytes(100), "an old GGML file"),
    ("90-version-1", header(version=1) + bytes(50), "version 1"),
    ("90-big-endian", gguf_bytes({"a": 1}, byte_order=">"), "big-endian"),
    ("91-keys", header(2**63) + bytes(1000), "metadata keys"),
    ("91-tensors", header(0, 2**62) + bytes(1000), "tensors"),
    ("92-string", header(1) + packed_string("a") + struct.pack("<IQ", _STRING, 2**62), "it is cut off"),
    ("93-array", array(_UINT8, 2**40), "it is cut off"),
    ("93-strings", array(_STRING, 2**31), "it is cut off"),
    ("94-nested", array(_ARRAY, 1, struct.pack("<IQ", _ARRAY, 1) * 2000), "holds arrays"),
    ("95-value-type", header(1) + packed_string("a") + struct.pack("<I", 77), "unknown type 77"),
    ("95-tensor-type", header(0, 1) + tensor("t", (32,), 9999) + bytes(256), "newer llama-mgr"),
    ("96-alignment", gguf_bytes({"general.alignment": Typed("uint32", 3)}), "general.alignment is 3"),
    ("97-dimensions", header(0, 1) + packed_string("t") + struct.pack("<I", 2**31) + bytes(64), "dimensions"),
    ("97-overflow", header(0, 1) + tensor("t", (2**40, 2**40)) + bytes(64), "impossible shape"),
    ("98-beyond", header(0, 1) + tensor("t", (32,), 0, 2**40) + bytes(256), "before the tensor t does"),
    ("99-duplicate", header(0, 2) + tensor("t", (8,)) + tensor("t", (8,), 0, 32) + bytes(256), "twice"),
    ("99-overlap", header(0, 2) + tensor("t", (16,)) + tensor("u", (16,), 0, 32) + bytes(256), "overlap"),
    ("100-escape", header(1) + packed_string("a\x1b[31m\n") + struct.pack("<II", 4, 1), "not plain text"),
    ("102-unfinished-quantize", bytes(_META_BYTES) + MODEL[_META_BYTES:], "unfinished"),
    ("103-last-byte", MODEL[:-1], "it is cut off"),
]


@pytest.mark.parametrize(("content", "says"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS])
def test_a_file_that_is_no_whole_gguf_is_refused(
    cli: Cli, home: Home, tmp_path: Path, content: bytes, says: str
) -> None:
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    answer = cli("import", path)
    assert answer.status == 5, answer.stderr
    assert says in answer.stderr
    assert_shape(answer)
    assert not list(home.models_dir.rglob("*.gguf*"))
    assert path.read_bytes() == content


def directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "says"), [(os.mkfifo, "a pipe"), (directory, "no GGUF")], ids=["89-pipe", "89-directory"]
)
def test_what_is_no_file_is_refused(cli: Cli, tmp_path: Path, make: Callable[[Path], None], says: str) -> None:
    path = tmp_path / "bad.gguf"
    make(path)
    answer = cli("import", path)
    assert answer.status in {3, 5}
    assert says in answer.stderr
    assert_shape(answer)


def test_a_large_array_is_read(cli: Cli, tmp_path: Path) -> None:  # row 101
    path = tmp_path / "large.gguf"
    path.write_bytes(model_bytes(extra={"tokenizer.ggml.scores": Typed("array", ("uint8", [1] * 8_000_000))}))
    assert cli.json("import", path)


def test_a_hostile_template_is_shown_escaped(cli: Cli, tmp_path: Path) -> None:  # row 105
    path = tmp_path / "template.gguf"
    evil = "{{ ''.__class__.__mro__ }}\x1b]0;owned\x07\n" + "A" * 10_000_000
    path.write_bytes(model_bytes(chat_template=evil))
    cli.done("import", path)
    shown = cli.done("show", "template", "--template").stdout
    assert "__mro__" in shown
    assert "\x1b" not in shown
    assert len(shown) < 200_000
