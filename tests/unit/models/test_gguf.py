"""Reading GGUF headers: every kind of value, both versions, and windows that end anywhere."""

import struct
from pathlib import Path

import pytest

from llama_mgr.errors import BadGgufError, NotFoundError
from llama_mgr.models.gguf import TEMPLATE_KEY, Array, GgufHeader, parse_gguf, read_gguf
from tests.tools.gguf_file import (
    BLOCKS,
    VALUE_NUMBERS,
    SmallModel,
    TensorInfo,
    Typed,
    gguf_bytes,
    gguf_head,
    model_bytes,
    packed_string,
    write_sparse_model,
)
from tests.tools.gguf_fuzz import BytesSource

FIRST_WINDOW = 128 * 1024


def parsed(content: bytes) -> GgufHeader:
    return parse_gguf(BytesSource(content, len(content)), "test.gguf")


def test_a_model_in_every_part(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(model_bytes(name="My Model", context=4096))
    header = read_gguf(path)
    assert header.version == 3
    assert header.metadata["general.name"] == "My Model"
    assert header.metadata["llama.context_length"] == 4096
    assert header.metadata["tokenizer.ggml.tokens"] == Array("string", 64)
    assert header.metadata["tokenizer.ggml.token_type"] == Array("int32", 64, (1,) * 64)
    assert (header.alignment, header.data_offset % 32, header.size_bytes) == (32, 0, path.stat().st_size)
    first = header.tensors[0]
    assert (first.name, first.shape, first.type.name, first.offset) == ("token_embd.weight", (256, 64), "Q4_K", 0)
    assert (first.weights, first.size_bytes) == (256 * 64, 256 * 64 // 256 * 144)
    assert len(header.tensors) == 12


@pytest.mark.parametrize("version", [2, 3])
def test_both_versions(version: int) -> None:
    header = parsed(model_bytes(version=version))
    assert (header.version, len(header.tensors)) == (version, 12)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("uint8", 255), ("int8", -128), ("uint16", 65535), ("int16", -32768), ("uint32", 2**32 - 1),
        ("int32", -(2**31)), ("uint64", 2**64 - 1), ("int64", -(2**63)), ("float32", 0.5), ("float64", 0.1),
        ("bool", True), ("bool", False),
    ],
)  # fmt: skip
def test_every_kind_of_number_alone_and_in_an_array(kind: str, value: object) -> None:
    header = parsed(gguf_head({"a": Typed(kind, value), "b": Typed("array", (kind, [value] * 3)), "c": "end"}))
    assert header.metadata == {"a": value, "b": Array(kind, 3, (value,) * 3), "c": "end"}  # type: ignore[arg-type]
    assert type(header.metadata["a"]) is type(value)


def test_texts_may_be_empty_long_and_broken() -> None:
    broken = Typed("string", b"a\xffb")
    header = parsed(gguf_head({"a": "", "b": "ä" * 30_000, "c": broken}))
    assert header.metadata == {"a": "", "b": "ä" * 30_000, "c": "a\ufffdb"}


def test_long_arrays_and_texts_in_arrays_are_counted_only() -> None:
    values: dict[str, object] = {
        "long": Typed("array", ("int16", [0] * 5000)),
        "kept": Typed("array", ("int16", [7] * 4096)),
        "words": ["", "one", "ä" * 200_000],
        "none": Typed("array", ("string", [])),
    }
    metadata = parsed(gguf_head(values)).metadata
    assert metadata["long"] == Array("int16", 5000)
    assert metadata["kept"] == Array("int16", 4096, (7,) * 4096)
    assert (metadata["words"], metadata["none"]) == (Array("string", 3), Array("string", 0))


def test_values_of_arrays_are_kept_only_so_far() -> None:
    arrays = {f"a{number:03}": Typed("array", ("uint8", [1] * 4096)) for number in range(20)}
    kept = [value for value in parsed(gguf_head(arrays)).metadata.values() if isinstance(value, Array) and value.values]
    assert len(kept) == 16


def test_numbers_beyond_the_window_are_not_read() -> None:
    class Counting(BytesSource):
        read_bytes = 0

        def read(self, offset: int, length: int) -> bytes:
            Counting.read_bytes += length
            return super().read(offset, length)

    head = b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + packed_string("big")
    head += struct.pack("<IIQ", VALUE_NUMBERS["array"], VALUE_NUMBERS["uint8"], 2**35)
    tail = packed_string("after") + struct.pack("<II", VALUE_NUMBERS["uint32"], 5)

    class Holed(Counting):
        def read(self, offset: int, length: int) -> bytes:
            end = len(head) + 2**35
            found = super().read(offset, length)
            return tail[offset - end :][:length] if offset >= end else found

    header = parse_gguf(Holed(head, len(head) + 2**35 + len(tail)), "holed")
    assert header.metadata == {"big": Array("uint8", 2**35), "after": 5}
    assert Counting.read_bytes < 10 * FIRST_WINDOW


@pytest.mark.parametrize("kind", list(BLOCKS))
def test_sizes_of_tensors(kind: str) -> None:
    number, weights, size_bytes = BLOCKS[kind]
    (tensor,) = parsed(gguf_bytes({}, [("t", (weights * 2, 3), kind)])).tensors
    assert (tensor.type.number, tensor.weights, tensor.size_bytes) == (number, weights * 6, size_bytes * 6)
    assert tensor.type.bits_per_weight == size_bytes * 8 / weights


def test_one_to_four_dimensions_and_single_numbers() -> None:
    shapes: list[tuple[int, ...]] = [(), (1,), (2, 3), (2, 3, 4), (2, 3, 4, 5)]
    header = parsed(gguf_bytes({}, [(f"t{len(shape)}", shape, "F32") for shape in shapes]))
    assert [tensor.shape for tensor in header.tensors] == shapes
    assert [tensor.weights for tensor in header.tensors] == [1, 1, 6, 24, 120]


@pytest.mark.parametrize("alignment", [1, 8, 64, 4096])
def test_alignment_of_the_file(alignment: int) -> None:
    tensors = [("a", (3,), "F32"), ("b", (1,), "F32")]
    header = parsed(gguf_bytes({"general.alignment": alignment}, tensors, alignment=alignment))
    assert header.alignment == alignment
    assert header.data_offset % alignment == 0
    assert header.tensors[1].offset % alignment == 0


def test_gaps_and_another_order_are_well_formed() -> None:
    tensors = [TensorInfo("second", (8,), offset=256), TensorInfo("first", (8,), offset=32)]
    content = gguf_head({}, tensors) + bytes(288)
    assert [tensor.offset for tensor in parsed(content).tensors] == [256, 32]


def test_no_tensors_and_no_metadata() -> None:
    header = parsed(gguf_bytes({}))
    assert (header.metadata, header.tensors) == ({}, ())


def test_what_pads_the_last_tensor_may_be_missing() -> None:
    content = gguf_bytes({}, [("a", (1,), "F32")])
    assert parsed(content[:-28]).tensors
    with pytest.raises(BadGgufError):
        parsed(content[:-29])


@pytest.mark.parametrize("before", range(220))
def test_a_window_may_end_anywhere(before: int) -> None:
    """The first window ends `before` bytes into what follows a long text, then the second in the same way."""
    follows: dict[str, object] = {"n": 7, "t": "text", "w": ["a", "", "bc" * 9], "i": Typed("array", ("int64", [1, 2]))}
    tensors = [TensorInfo("t.weight", (4, 2), "F32")]
    fixed = len(gguf_head({TEMPLATE_KEY: ""}, [], alignment=1))
    for end in (FIRST_WINDOW, FIRST_WINDOW * 5):
        content = gguf_bytes({TEMPLATE_KEY: "x" * (end - fixed - before), **follows}, tensors)
        header = parsed(content)
        assert header.metadata["n"] == 7
        assert header.metadata["w"] == Array("string", 3)
        assert header.metadata["i"] == Array("int64", 2, (1, 2))
        assert header.tensors[0].shape == (4, 2)


def test_many_words_over_many_windows() -> None:
    words = [f"word {number}" * (number % 7) for number in range(200_000)]
    assert parsed(gguf_head({"words": words, "after": 1})).metadata == {"words": Array("string", 200_000), "after": 1}


def test_a_sparse_file_is_read_like_another(tmp_path: Path) -> None:
    model = SmallModel(quant="Q8_0")
    path = write_sparse_model(tmp_path / "sparse.gguf", model)
    assert read_gguf(path).tensors == parsed(model_bytes(quant="Q8_0")).tensors
    assert path.stat().st_size == len(model_bytes(quant="Q8_0"))


def test_a_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "blob").write_bytes(model_bytes())
    (tmp_path / "model.gguf").symlink_to("blob")
    assert read_gguf(tmp_path / "model.gguf").tensors


def test_no_file_and_no_file_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "dangling.gguf").symlink_to("nothing")
    for name in ("dangling.gguf", "missing.gguf"):
        with pytest.raises(NotFoundError, match="there is no such file"):
            read_gguf(tmp_path / name)


def test_the_header_says_which_file_it_was_read_from(tmp_path: Path) -> None:  # row 104
    path = tmp_path / "model.gguf"
    path.write_bytes(model_bytes())
    stamp, found = read_gguf(path).stamp, path.stat()
    assert stamp is not None
    assert (stamp.device, stamp.inode) == (found.st_dev, found.st_ino)
    assert (stamp.size_bytes, stamp.mtime_ns) == (found.st_size, found.st_mtime_ns)
