"""Headers of safetensors files: what they say, and files that are none, refused soon and in little memory."""

import json
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from llama_mgr.errors import BadCheckpointError, LlamaMgrError, NotFoundError, StorageError
from llama_mgr.make.safetensors import read_safetensors
from tests.conftest import ROOT
from tests.tools.checkpoints import llama_tensors, write_safetensors

MB = 1_000_000


def file_of(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def entry(begin: int, end: int, shape: object, dtype: object = "F16") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def one(begin: int, end: int, shape: object, dtype: object = "F16") -> dict[str, object]:
    return {"a": entry(begin, end, shape, dtype)}


def test_a_header_in_every_part(tmp_path: Path) -> None:
    tensors = {"b": ("BF16", (2, 3), bytes(12)), "a": ("F32", (), bytes(4)), "none": ("I64", (0, 5), b"")}
    path = write_safetensors(tmp_path / "model.safetensors", tensors, {"format": "pt", "note": '{"x": [1]}'})
    header = read_safetensors(path)
    assert [(one.name, one.dtype, one.shape, one.size_bytes, one.offset) for one in header.tensors] == [
        ("b", "BF16", (2, 3), 12, 0),
        ("a", "F32", (), 4, 12),
        ("none", "I64", (0, 5), 0, 16),
    ]
    assert header.metadata == {"format": "pt", "note": '{"x": [1]}'}
    assert (header.size_bytes, header.data_offset) == (path.stat().st_size, path.stat().st_size - 16)
    assert (header.parameters, header.dtypes) == (7, {"BF16": 6, "F32": 1, "I64": 0})


def test_tensors_may_be_listed_in_any_order_with_any_spacing(tmp_path: Path) -> None:
    header = json.dumps({"a": entry(4, 8, [2]), "__metadata__": {"k": "v"}, "b": entry(0, 4, [2])}, indent=3).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_of(b"\n " + header + b"  \r\n\t ", bytes(8)))
    assert [tensor.name for tensor in read_safetensors(path).tensors] == ["b", "a"]
    assert read_safetensors(path).metadata == {"k": "v"}


def test_names_and_metadata_may_hold_braces_quotes_and_other_scripts(tmp_path: Path) -> None:
    name = 'model."{layers}".\\ä\u6f22'
    path = write_safetensors(tmp_path / "x", {name: ("U8", (3,), b"abc")}, {'{"': '}"\\"{'})
    header = read_safetensors(path)
    assert header.tensors[0].name == name
    assert header.metadata == {'{"': '}"\\"{'}


@pytest.mark.parametrize("header", [{}, {"__metadata__": {}}])
def test_a_file_without_tensors_is_one(tmp_path: Path, header: object) -> None:
    (tmp_path / "x").write_bytes(file_of(header))
    assert read_safetensors(tmp_path / "x").tensors == ()


@pytest.mark.parametrize(("dtype", "count", "size_bytes"), [("F4", 6, 3), ("F6_E2M3", 4, 3), ("C64", 2, 16)])
def test_types_of_other_widths(tmp_path: Path, dtype: str, count: int, size_bytes: int) -> None:
    path = write_safetensors(tmp_path / "x", {"a": (dtype, (count,), bytes(size_bytes))})
    assert read_safetensors(path).tensors[0].size_bytes == size_bytes


def test_a_header_longer_than_a_window(tmp_path: Path) -> None:
    tensors = {f"model.layers.{n}.{'x' * 900}.weight": ("U8", (1,), b"x") for n in range(12_000)}
    path = write_safetensors(tmp_path / "x", tensors)
    assert path.stat().st_size > 10 * MB
    assert [tensor.name for tensor in read_safetensors(path).tensors] == list(tensors)


@pytest.mark.parametrize("length", [640, 896, 1152, 1408])
def test_a_header_whose_length_looks_like_a_pickle(tmp_path: Path, length: int) -> None:
    path = tmp_path / "x"
    path.write_bytes(file_of(json.dumps(one(0, 2, [1])).encode().ljust(length), b"ab"))
    assert path.read_bytes()[:1] == b"\x80"
    assert read_safetensors(path).parameters == 1


DAMAGED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "it has 0 bytes"),
    "7 bytes": (b"1234567", "it has 7 bytes"),
    "length of 2^60": (file_of({}, length=2**60), "a header of 1,152,921,504,606,846,976 bytes, more than the 100,000"),
    "length of 2^64-1": (file_of({}, length=2**64 - 1), "more than the 100,000,000"),
    "length above the limit": (file_of({}, length=100 * MB + 1), "a header of 100,000,001 bytes"),
    "length beyond the file": (file_of({}, length=3), "it is cut off: it claims a header of 3 bytes, and the whole"),
    "length 0": (file_of(b"", b"{}"), "not a JSON object"),
    "no JSON": (file_of(b"hello"), "not a JSON object that lists tensors, near 'hello'"),
    "zeros": (bytes(100), "not a JSON object"),
    "list": (file_of([]), "not a JSON object"),
    "number": (file_of(5), "not a JSON object"),
    "cut JSON": (file_of(b'{"a":{"dtype":"F16","shape":[1]'), "not a JSON object"),
    "comma at the end": (file_of(b'{"__metadata__":{},}'), "not a JSON object"),
    "two objects": (file_of(b"{}{}"), "goes on behind its end"),
    "zeros as padding": (file_of(b"{}\0\0"), "goes on behind its end"),
    "unescaped newline": (file_of(b'{"a\nb":{}}'), "a name that is no text"),
    "name that is no text": (file_of(b'{"\xff":{}}'), "a name that is no text"),
    "long name": (file_of({"n" * 5000: entry(0, 0, [0])}), "a name of 5,002 bytes"),
    "tensor twice": (
        file_of(b'{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"\\u0061":{"dtype":"U8","shape":[0],'
                b'"data_offsets":[0,0]}}'),
        "the key a twice",
    ),
    "metadata twice": (file_of(b'{"__metadata__":{},"__metadata__":{}}'), "the key __metadata__ twice"),
    "field twice": (
        file_of(b'{"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}'), "a has a field twice",
    ),
    "metadata key twice": (file_of(b'{"__metadata__":{"a":"","a":""}}'), "__metadata__ has a key twice"),
    "metadata of numbers": (file_of({"__metadata__": {"a": 1}}), "__metadata__ is not an object of texts"),
    "metadata of lists": (file_of({"__metadata__": {"a": []}}), "__metadata__ is not an object of texts"),
    "metadata as text": (file_of({"__metadata__": "a"}), "not a JSON object that lists tensors"),
    "large metadata": (file_of({"__metadata__": {"a": "x" * 4_194_304}}), "its __metadata__ has 4,194,3"),
    "tensor as list": (file_of({"a": []}), "not a JSON object that lists tensors"),
    "field missing": (file_of({"a": {"dtype": "F16", "shape": []}}), "missing required field `data_offsets`"),
    "field more": (file_of({"a": {**entry(0, 0, [0]), "x": 1}}), "unknown field `x`"),
    "long entry": (file_of(one(0, 0, [0] * 2000)), "the tensor a is described by"),
    "unknown type": (file_of(one(0, 2, [1], "Q4_K"), bytes(2)), "the unknown type 'Q4_K'"),
    "type as number": (file_of(one(0, 2, [1], 7), bytes(2)), "Expected `str`, got `int`"),
    "negative length": (file_of(one(0, 2, [-1, -1]), bytes(2)), "the impossible shape [-1, -1]"),
    "length as text": (file_of(one(0, 2, ["1"]), bytes(2)), "Expected `int`, got `str`"),
    "length as truth value": (file_of(one(0, 2, [True]), bytes(2)), "Expected `int`, got `bool`"),
    "half a length": (file_of(one(0, 2, [0.5]), bytes(2)), "Expected `int`, got `float`"),
    "huge length": (file_of(one(0, 2, [2**64]), bytes(2)), "the impossible shape"),
    "length of 400 digits": (file_of(one(0, 2, [10**400]), bytes(2)), "the impossible shape"),
    "product of 2^64": (file_of(one(0, 0, [2**32, 2**32])), "the impossible shape"),
    "product of 2^64 times 0": (file_of(one(0, 0, [2**32, 2**32, 0])), "the impossible shape"),
    "bytes of 2^64": (file_of(one(0, 0, [2**60], "F64")), "the impossible shape"),
    "too few bytes": (file_of(one(0, 2, [2]), bytes(2)), "lies at 0 to 2, and F16 of the shape [2] take 4 bytes"),
    "too many bytes": (file_of(one(0, 6, [2]), bytes(6)), "lies at 0 to 6"),
    "part of a byte": (file_of(one(0, 1, [3], "F4"), bytes(1)), "lies at 0 to 1"),
    "ends before it begins": (file_of(one(4, 0, [2]), bytes(4)), "lies at 4 to 0"),
    "negative offset": (file_of(one(-4, 0, [2]), bytes(4)), "lies at -4 to 0"),
    "three offsets": (
        file_of({"a": {"dtype": "U8", "shape": [], "data_offsets": [0, 1, 1]}}, b"x"), "of length 2",
    ),
    "overlap": (file_of({"a": entry(0, 4, [2]), "b": entry(2, 6, [2])}, bytes(6)), "the tensors a and b overlap"),
    "same place": (file_of({"a": entry(0, 4, [2]), "b": entry(0, 4, [2])}, bytes(4)), "the tensors a and b overlap"),
    "hole": (file_of({"a": entry(0, 4, [2]), "b": entry(6, 8, [1])}, bytes(8)), "a hole of 2 bytes before b"),
    "hole at the beginning": (file_of(one(4, 8, [2]), bytes(8)), "a hole of 4 bytes before a"),
    "cut off": (file_of(one(0, 4, [2]), bytes(3)), "it is cut off: its tensors have 4 bytes, and 3 are there"),
    "bytes behind": (file_of(one(0, 4, [2]), bytes(5)), "1 bytes follow its last tensor"),
    "offset of 2^62": (file_of(one(2**62, 2**62 + 4, [2]), bytes(4)), "a hole of"),
    "zip": (b"PK\x03\x04" + bytes(60), "it is a pickle under the name of a safetensors file"),
    "pickle": (b"\x80\x02}q\x00." + bytes(60), "it is a pickle under the name of a safetensors file"),
    "pickle of 4": (b"\x80\x04\x95" + bytes(60), "it is a pickle under the name of a safetensors file"),
    "LFS pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "a Git LFS pointer"),
    "web page": (b"<!DOCTYPE html><html lang=en>", "it is a web page"),
    "GGUF": (b"GGUF\x03\x00\x00\x00" + bytes(60), "it is a GGUF under the name of"),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGED)
def test_a_file_that_is_none_is_refused_with_its_reason(tmp_path: Path, name: str) -> None:
    content, why = DAMAGED[name]
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadCheckpointError) as caught:
        read_safetensors(path)
    assert why in caught.value.message, caught.value.message
    assert caught.value.exit_status == 5
    assert caught.value.message.isprintable()
    assert len(caught.value.message) < 900


def test_a_file_with_more_tensors_than_any_model_has(tmp_path: Path) -> None:
    listed = b",".join(b'"%d":{"dtype":"F16","shape":[0],"data_offsets":[0,0]}' % number for number in range(131_073))
    (tmp_path / "x").write_bytes(file_of(b"{" + listed + b"}"))
    with pytest.raises(BadCheckpointError, match="more than 131,072 tensors"):
        read_safetensors(tmp_path / "x")


def test_what_is_shown_of_a_hostile_name_is_harmless(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(file_of({"\x1b[2J\u202e": entry(0, 2, [5])}, bytes(2)))
    with pytest.raises(BadCheckpointError) as caught:
        read_safetensors(tmp_path / "x")
    assert r"the tensor \x1b[2J\u202e lies" in caught.value.message


def test_a_file_that_is_not_there_or_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        read_safetensors(tmp_path / "absent")
    with pytest.raises(StorageError, match="not a regular file"):
        read_safetensors(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(StorageError, match="not a regular file"):
        read_safetensors(tmp_path / "pipe")


def test_any_damage_gives_a_header_or_a_refusal(tmp_path: Path) -> None:
    """Bits flipped, bytes inserted and removed, the end cut, in the header of a whole file."""
    path = write_safetensors(tmp_path / "x", llama_tensors(), {"format": "pt"})
    whole = path.read_bytes()
    dice = random.Random(20260723)  # noqa: S311 (no secret)
    seen = set()
    for _ in range(3000):
        content = bytearray(whole)
        for _ in range(dice.randint(1, 3)):
            place = dice.randrange(read_safetensors_length(whole))
            dice.choice((_flip, _insert, _remove, _cut))(content, place, dice)
        path.write_bytes(content)
        try:
            read_safetensors(path)
            seen.add("header")
        except BadCheckpointError:
            seen.add("refused")
        except LlamaMgrError as error:
            pytest.fail(f"{type(error).__name__}: {error}")
    assert seen == {"header", "refused"}


def read_safetensors_length(content: bytes) -> int:
    return 8 + int.from_bytes(content[:8], "little")


def _flip(content: bytearray, place: int, dice: random.Random) -> None:
    if place < len(content):
        content[place] ^= 1 << dice.randrange(8)


def _insert(content: bytearray, place: int, dice: random.Random) -> None:
    content[place:place] = dice.choice((b'"', b"{", b"}", b"\\", b"9", b"[", b",", b"\0", b" "))


def _remove(content: bytearray, place: int, dice: random.Random) -> None:
    del content[place : place + dice.randint(1, 4)]


def _cut(content: bytearray, place: int, dice: random.Random) -> None:
    if dice.random() < 0.1:
        del content[place:]


# Files of up to 100 MB, built where they are read: what they claim is checked before it is kept.
LARGE = {
    "spaces": "b'{}' + b' ' * 99 * M",
    "spaces before": "b' ' * 99 * M + b'{}'",
    "name": "b'{\"' + b'a' * 99 * M + b'\":{}}'",
    "escapes": "b'{\"' + b'\\\\\\\\' * 49 * M + b'\":{}}'",
    "metadata": "b'{\"__metadata__\":{\"a\":\"' + b'a' * 99 * M + b'\"}}'",
    "metadata of lists": "b'{\"__metadata__\":{\"a\":[' + b'[],' * 1300000 + b'[]]}}'",
    "metadata keys": "b'{\"__metadata__\":{' + b','.join(b'\"%d\":\"\"' % n for n in range(300000)) + b'}}'",
    "nested": "b'{\"a\":' * 16 * M",
    "lists": "b'[' * 99 * M",
    "shape": 'b\'{"a":{"dtype":"F16","shape":[\' + b\'1000,\' * 19 * M + b\'1],"data_offsets":[0,0]}}\'',
    "keys": "b'{' + b'\"a\":{},' * 12 * M + b'}'",
    "zeros": "bytes(99 * M)",
    "tensors": 'b\'{\' + b\',\'.join(b\'"%d":{"dtype":"F16","shape":[0],"data_offsets":[0,0]}\' % n'
    " for n in range(140000)) + b'}'",
}
READER = """
import struct, sys, time
from pathlib import Path
from llama_mgr.errors import BadCheckpointError
from llama_mgr.make.safetensors import read_safetensors
from tests.tools.peak_memory import peak_bytes
began = time.process_time()
try:
    read_safetensors(Path(sys.argv[1]))
except BadCheckpointError:
    pass
print(time.process_time() - began, peak_bytes())
"""


@pytest.mark.parametrize("name", LARGE)
def test_a_large_hostile_header_takes_little_time_and_memory(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_of(eval(LARGE[name], {"M": MB})))  # noqa: S307 (our own expressions)
    words = [sys.executable, "-c", READER, str(path)]
    said = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout.split()
    took_s, peak = float(said[0]), int(said[1])
    assert took_s < 1
    assert peak < 150 * MB
