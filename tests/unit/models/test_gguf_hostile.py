"""Files that are no whole GGUF: refused with a sentence that says what they look like, soon, and without much memory.

The numbers are those of the project's table of bad inputs.
"""

import json
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from llama_mgr.errors import BadGgufError
from llama_mgr.models.gguf import TEMPLATE_KEY, parse_gguf, read_gguf
from tests.conftest import ROOT
from tests.tools.gguf_file import (
    VALUE_NUMBERS,
    SmallModel,
    TensorInfo,
    Typed,
    gguf_bytes,
    gguf_head,
    model_bytes,
    packed_string,
)
from tests.tools.gguf_fuzz import MEMORY_LIMIT_BYTES, BytesSource, fuzz, memory_findings, seeds, truncate

ARRAY, STRING, UINT8, UINT32 = (VALUE_NUMBERS[kind] for kind in ("array", "string", "uint8", "uint32"))
MIB = 1024**2


def header(keys: int = 0, tensors: int = 0, version: int = 3, order: str = "<") -> bytes:
    return b"GGUF" + struct.pack(f"{order}IQQ", version, tensors, keys)


def key(name: bytes | str, kind: int, value: bytes) -> bytes:
    return header(1) + packed_string(name) + struct.pack("<I", kind) + value


def array(kind: int, count: int, items: bytes = b"") -> bytes:
    return key("a", ARRAY, struct.pack("<IQ", kind, count) + items)


def tensor(name: bytes | str = "t", shape: tuple[int, ...] = (32,), kind: int = 0, offset: int = 0) -> bytes:
    entry = packed_string(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
    return header(tensors=1) + entry + bytes(4096)


MODEL = model_bytes()
WIDE_TEXT = "x" * 7 * MIB + "\U0001f600"  # 4 bytes a character once decoded
NESTED = struct.pack("<IQ", ARRAY, 1) * 2000
HOSTILE: dict[str, tuple[bytes, str]] = {
    # 89
    "empty": (b"", "it is empty"),
    "4 bytes": (b"GGUF", "it is cut off"),
    "2 bytes": (b"GG", "it is cut off: it has 2 bytes"),
    "old GGML": (b"lmgg\x00\x7d\x00\x00" + bytes(100), "an old GGML file"),
    "GGML as text": (b"GGML" + bytes(100), "an old GGML file"),
    "old ggjt": (b"tjgg\x03\x00\x00\x00" + bytes(100), "an old GGML file"),
    "web page": (b"\xef\xbb\xbf\n<!DOCTYPE html><html lang=en>", "it is a web page"),
    "html": (b"<html><body>404</body></html>", "it is a web page"),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS pointer"),
    "JSON error": (b'{"error":"Repository not found"}', "an error message of a server"),
    "plain text": (b"Access\x20is fine\n", "it is text that begins with 'Access is fine'"),
    "safetensors": (struct.pack("<Q", 20) + b'{"a":{"dtype":"F32"}}' + bytes(40), "it is a safetensors file"),
    "PyTorch": (b"PK\x03\x04" + bytes(60), "it is a ZIP archive"),
    "pickle": (b"\x80\x02}q\x00." + bytes(60), "it is a Python pickle"),
    "gzip": (b"\x1f\x8b\x08" + bytes(60), "it is compressed"),
    "noise": (b"\x91\xe7\x05\x77" * 20, "it begins with the bytes 91 e7 05 77"),
    # 90
    "version 0": (header(version=0), "version 0"),
    "version 1": (header(version=1) + bytes(50), "version 1, which llama.cpp no longer reads"),
    "version 99": (header(version=99), "needs a newer llama-mgr"),
    "big-endian": (gguf_bytes({"a": 1}, byte_order=">"), "big-endian"),
    "swapped": (MODEL[3::-1] + MODEL[4:], "bytes swapped"),
    # 91
    "2^63 keys": (header(2**63) + bytes(1000), "it claims 9,223,372,036,854,775,808 metadata keys"),
    "2^40 keys": (header(2**40) + bytes(16 * MIB), "metadata keys"),
    "2^63 tensors": (header(0, 2**63) + bytes(1000), "tensors, more than any model has"),
    "16,384 tensors": (header(0, 16_384) + bytes(1000), "it is cut off: it lists 16,384 tensors"),
    "16,385 tensors": (header(0, 16_385) + bytes(MIB), "it claims 16,385 tensors"),
    "4,096 keys of zeros": (header(4_096) + bytes(16 * MIB), "not plain text"),
    "4,097 keys": (header(4_097) + bytes(MIB), "it claims 4,097 metadata keys"),
    # 92
    "text of 2^62": (key("a", STRING, struct.pack("<Q", 2**62)), "it is cut off: the value of a"),
    "key of 2^40": (header(1) + struct.pack("<Q", 2**40) + bytes(100), "it is cut off: a metadata key"),
    "template of 13 MiB": (key(TEMPLATE_KEY, STRING, packed_string("x" * 13 * MIB)), "more than a header may have"),
    "template of 7 MiB with an emoji": (key(TEMPLATE_KEY, STRING, packed_string(WIDE_TEXT)), "more than a header may"),
    # 93
    "array of 2^40": (array(UINT8, 2**40), "it is cut off: the array a would have"),
    "array of 2^31": (array(UINT32, 2**31), "it is cut off: the array a would have"),
    "array of 2^64-1": (array(UINT32, 2**64 - 1), "it is cut off"),
    "2^40 words": (array(STRING, 2**40), "it is cut off: the array a would have"),
    "words too many": (array(STRING, 2_000_001, bytes(8 * 2_000_001)), "more than a vocabulary has"),
    "word of 2^62": (array(STRING, 1, struct.pack("<Q", 2**62)), "it is cut off: a string of the array a"),
    "word of 2^64-1": (array(STRING, 1, struct.pack("<Q", 2**64 - 1) + bytes(9)), "it is cut off"),
    "word beyond": (array(STRING, 2, packed_string("a") + struct.pack("<Q", 9)), "it is cut off"),
    # 94
    "nested": (key("a", ARRAY, NESTED + bytes(100)), "holds arrays"),
    # 95
    "value type 77": (key("a", 77, bytes(8)), "unknown type 77: it is damaged, or needs a newer llama-mgr and"),
    "array type 77": (array(77, 1), "unknown type 77"),
    "tensor type 9999": (tensor(kind=9999), "the tensor t has the unknown type 9999"),
    "removed tensor type": (tensor(kind=31), "Q4_0_4_4, which llama.cpp no longer reads"),
    "type of a fork": (tensor(kind=36), "(or I2_S of the BitNet fork, not of llama.cpp)"),
    "activations Q8_1": (tensor(kind=9), "Q8_1, which llama.cpp has in memory only"),
    "activations Q8_K": (tensor(shape=(256,), kind=15), "Q8_K, which llama.cpp has in memory only"),
    # 96
    **{f"alignment {n}": (gguf_head({"general.alignment": n}), "power of two") for n in (0, 3, 2**31)},
    "alignment as text": (gguf_head({"general.alignment": "32"}), "general.alignment is string"),
    "alignment of 64 bits": (gguf_head({"general.alignment": Typed("uint64", 32)}), "must be uint32"),
    # 97
    "2^31 dimensions": (header(0, 1) + packed_string("t") + struct.pack("<I", 2**31) + bytes(99), "dimensions"),
    "5 dimensions": (tensor(shape=(1,) * 5), "has 5 dimensions, more than 4"),
    "product of 2^64": (tensor(shape=(2**32, 2**32)), "impossible shape"),
    "product of 2^66": (tensor(shape=(2**62, 16)), "impossible shape"),
    "dimension 0": (tensor(shape=(32, 0)), "the impossible shape 32 x 0"),
    "dimension -1": (tensor(shape=(32, 2**64 - 1)), "the impossible shape 32 x -1"),
    "part of a block": (tensor(shape=(33,), kind=2), "blocks of Q4_0 have 32"),
    # 98
    "offset beyond": (tensor(offset=2**40), "ends before the tensor t does"),
    "offset overflows": (tensor(offset=2**64 - 32), "ends before the tensor t does"),
    "size beyond": (tensor(shape=(2**40,)), "ends before the tensor t does"),
    "offset off the alignment": (tensor(offset=7), "off the alignment"),
    # 99
    "tensor twice": (gguf_bytes({}, [("t", (8,), "F32"), ("t", (8,), "F32")]), "it has the tensor t twice"),
    "key twice": (header(2) + (packed_string("k") + struct.pack("<II", UINT32, 1)) * 2, "the metadata key k twice"),
    "overlap": (gguf_bytes({}, [TensorInfo("a", (16,)), TensorInfo("b", (8,), offset=32)]), "tensors a and b overlap"),
    "same place": (gguf_bytes({}, [TensorInfo("a", (16,)), TensorInfo("b", (8,), offset=0)]), "overlap"),
    # 100
    "key is no text": (key(b"\xff\xfe", UINT32, bytes(4)), r"not plain text: '\xff\xfe'"),
    "key with ESC": (key("a\x1b[2J", UINT32, bytes(4)), r"not plain text: 'a\x1b[2J'"),
    "key with newline": (key("a\nb", UINT32, bytes(4)), r"'a\nb'"),
    "key in Greek": (key("\u03bb", UINT32, bytes(4)), "not plain text"),
    "empty key": (key("", UINT32, bytes(4)), "not plain text"),
    "key of 64 KiB": (key("k" * 65536, UINT32, bytes(4)), "more than a header may have"),
    "name is no text": (tensor(name=b"\xff"), r"not plain text: '\xff'"),
    "name with ESC": (tensor(name="t\x1b[2J"), r"not plain text: 't\x1b[2J'"),
    "name with bidi mark": (tensor(name="t\u202e"), r"not plain text: 't\u202e'"),
    "empty name": (tensor(name=""), "not plain text"),
    "name of 64": (tensor(name="n" * 64), "more than a header may have"),
    # 102
    "unfinished": (bytes(5 * MIB), "it begins with zeros: it is unfinished"),
    # 103
    "last byte missing": (MODEL[:-1], f"it has {len(MODEL) - 1:,} of {len(MODEL):,} bytes"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_it_is_refused_and_said_why(name: str, tmp_path: Path) -> None:
    content, words = HOSTILE[name]
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(BadGgufError) as caught:
        read_gguf(path)
    assert words in caught.value.message
    assert caught.value.message.startswith(f"cannot read the model file '{path}': ")
    assert caught.value.message.isprintable()
    assert caught.value.exit_status == 5


def test_big_arrays_and_texts_are_fine() -> None:  # rows 101 and 105
    for size in (8 * MIB, 64 * MIB):
        big = array(UINT8, size)
        assert parse_gguf(BytesSource(big, len(big) + size), "x").metadata["a"]
    template = "{{ self.__init__.__globals__ }}" + "x" * 10 * MIB
    metadata = {"tokenizer.chat_template": template}
    content = gguf_bytes(metadata)
    assert parse_gguf(BytesSource(content, len(content)), "x").metadata == metadata


def test_a_name_of_63_bytes_is_the_longest() -> None:  # gguf.cpp: "tensor name is too long" from GGML_MAX_NAME on
    content = tensor(name="n" * 63)
    assert parse_gguf(BytesSource(content, len(content)), "x").tensors[0].name == "n" * 63


def test_long_texts_that_nobody_asks_for_are_cut() -> None:
    """`tokenizer.huggingface.json` is megabytes in some files."""
    big, long = "x" + "ä" * 7 * MIB, "ä" * 50_000
    metadata = {"a": big, **{f"b{number}": long for number in range(40)}, "c": 5, TEMPLATE_KEY: "whole" * 50_000}
    content = gguf_head(metadata)
    found = parse_gguf(BytesSource(content, len(content)), "x").metadata
    assert found["a"] == "x" + "ä" * (32 * 1024 - 1)  # the half character at the end is dropped
    assert found["b0"] == "ä" * 32 * 1024
    assert found["b39"] == ""
    assert (found["c"], found[TEMPLATE_KEY]) == (5, "whole" * 50_000)


def test_what_is_no_file_is_refused_without_opening_it(tmp_path: Path) -> None:
    pipe, directory, place = tmp_path / "pipe.gguf", tmp_path / "directory.gguf", tmp_path / "s.gguf"
    os.mkfifo(pipe)
    directory.mkdir()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        for path, words in ((pipe, "a pipe"), (directory, "a directory"), (place, "a socket")):
            with pytest.raises(BadGgufError, match=f"it is {words}, not a file"):
                read_gguf(path)
    with pytest.raises(BadGgufError, match="it is a device, not a file"):
        read_gguf(Path("/dev/zero"))


def test_a_file_that_shrinks_while_it_is_read() -> None:
    class Shrinking(BytesSource):
        def read(self, offset: int, length: int) -> bytes:
            return self.head[:1000][offset : offset + length]

    with pytest.raises(BadGgufError, match="it became shorter while it was read"):
        parse_gguf(Shrinking(MODEL, len(MODEL)), "x")


def all_limits(*, wide: bool) -> bytes:
    """Return a valid file that has the most of everything: tensors, keys, words, numbers, and text."""
    template = "x" * (5 * MIB if wide else 10 * MIB) + ("\U0001f600" if wide else "")
    numbers = Typed("array", ("uint64", [2**63 + 1] * 4096))
    metadata: dict[str, object] = {"general.architecture": "llama", TEMPLATE_KEY: template}
    metadata |= {f"n{number}": numbers for number in range(16)}
    metadata |= {f"t{number}": "x" * 60_000 + "\U0001f600" for number in range(40)}
    metadata |= {f"k{number:0200}": 1 for number in range(4_095 - len(metadata))}
    words = packed_string("tokenizer.ggml.tokens") + struct.pack("<IIQ", ARRAY, STRING, 2_000_000) + bytes(16_000_000)
    keys = gguf_head(metadata, alignment=1)[24:]
    entries = b"".join(
        packed_string(f"{number:063}") + struct.pack("<I4QIQ", 4, 1, 1, 1, 1, 0, number * 32)
        for number in range(16_384)
    )
    content = header(4_096, 16_384) + keys + words + entries
    return content + bytes(-len(content) % 32 + 32 * 16_384)


def two_templates() -> bytes:
    half = "x" * (3 * MIB - 200) + "\U0001f600"
    metadata = {"general.architecture": "llama", TEMPLATE_KEY: half, f"{TEMPLATE_KEY}.t": half}
    return gguf_head(metadata)


def test_all_of_them_in_little_memory(tmp_path: Path) -> None:
    """One process makes traits of the whole corpus, and of the biggest that are still valid."""
    contents = [content for content, _ in HOSTILE.values()]
    contents += [
        all_limits(wide=True),
        all_limits(wide=False),
        two_templates(),
        array(STRING, 2_000_000, bytes(16_000_000)),
    ]
    for number, content in enumerate(contents):
        (tmp_path / f"{number}.gguf").write_bytes(content)
    script = """
import json, sys
from pathlib import Path
from llama_mgr.errors import BadGgufError
from tests.tools.peak_memory import peak_bytes
from llama_mgr.models.gguf import read_gguf
from llama_mgr.models.traits import traits_of
refused = 0
for path in Path(sys.argv[1]).iterdir():
    try:
        traits_of(read_gguf(path), path.name)
    except BadGgufError:
        refused += 1
print(json.dumps([refused, peak_bytes()]))
"""
    said = subprocess.run(
        [sys.executable, "-c", script, tmp_path],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={"PYTHONPATH": str(ROOT)},
    )
    refused, peak = json.loads(said.stdout)
    assert refused == len(HOSTILE)
    assert peak < MEMORY_LIMIT_BYTES


def test_too_much_memory_is_a_finding_of_the_fuzz_run() -> None:
    assert memory_findings(2**50) == []
    (found,) = memory_findings(1)
    assert "MB of memory" in found


@pytest.mark.parametrize("seed", [1, 2])
def test_a_slice_of_the_fuzz_run(seed: int) -> None:
    outcome = fuzz(seeds(), 3_000, seed)
    assert outcome.findings == []
    assert outcome.counts["accepted"] > 60
    assert outcome.counts["refused"] > 1_000


def test_the_seeds_themselves_are_read() -> None:
    for head in seeds():
        assert parse_gguf(BytesSource(head, len(head) + 2 * MIB), "seed").version in {2, 3}


def test_every_shorter_file_is_refused() -> None:
    content = gguf_bytes(*SmallModel(vocabulary=8).parts())
    head_bytes = parse_gguf(BytesSource(content, len(content)), "x").data_offset
    offsets = [*range(0, head_bytes, 3), *range(head_bytes, len(content), 4099), len(content) - 1]
    assert truncate(content, offsets).findings == []


def test_a_vocabulary_of_terabytes_is_given_up_soon() -> None:
    class Endless:
        """Words of 4 MiB each, millions of them, in a file of 32 TB."""

        size_bytes = 2**45

        def __init__(self) -> None:
            self.lengths: list[int] = []

        def read(self, offset: int, length: int) -> bytes:
            self.lengths.append(length)
            head = array(STRING, 2_000_000)
            words = struct.pack("<Q", 4 * MIB - 8) * (length // 8 + 1)
            return (head + words if offset == 0 else words)[:length]

    source = Endless()
    with pytest.raises(BadGgufError, match="its header is larger than 128 MiB"):
        parse_gguf(source, "endless.gguf")
    assert sum(source.lengths) <= 128 * MIB
    assert max(source.lengths) <= 4 * MIB
