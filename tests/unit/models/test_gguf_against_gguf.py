"""Our reader and the package `gguf` say the same of valid files. That one must never see another file: it may hang."""

from pathlib import Path
from typing import Any

import pytest

from llama_mgr.build.probe_model import probe_model
from llama_mgr.models.gguf import Array, Value, read_gguf
from llama_mgr.models.tensor_types import FILE_TYPES, TENSOR_TYPES
from tests.tools.gguf_file import QUANTS, SmallModel, TensorInfo, Typed, gguf_bytes, model_bytes

_BOOKKEEPING = "GGUF."  # fields that the package adds


def contents(path: Path) -> dict[str, Any]:
    """Return what the package reads, in our form."""
    import gguf

    reader = gguf.GGUFReader(path)
    fields = {name: field for name, field in reader.fields.items() if not name.startswith(_BOOKKEEPING)}
    return {
        "version": int(reader.fields["GGUF.version"].contents()),
        "alignment": int(reader.alignment),
        "data_offset": int(reader.data_offset),
        "metadata": {name: _value(field) for name, field in fields.items()},
        "tensors": [
            (one.name, tuple(map(int, one.shape)), one.tensor_type.name, int(one.data_offset), int(one.n_bytes))
            for one in reader.tensors
        ],
    }


def _value(field: Any) -> Any:  # noqa: ANN401 (the package has no types)
    import gguf

    if field.types[0] != gguf.GGUFValueType.ARRAY:
        return field.contents()
    kind = field.types[-1].name.lower()
    values = field.contents()
    return {"string": "string"}.get(kind, kind), len(values), None if kind == "string" else tuple(values)


def ours(path: Path) -> dict[str, Any]:
    header = read_gguf(path)
    return {
        "version": header.version,
        "alignment": header.alignment,
        "data_offset": header.data_offset,
        "metadata": {name: _own(value) for name, value in header.metadata.items()},
        "tensors": [
            (one.name, one.shape, one.type.name, header.data_offset + one.offset, one.size_bytes)
            for one in header.tensors
        ],
    }


def _own(value: Value) -> Any:  # noqa: ANN401
    return (value.kind, value.count, value.values) if isinstance(value, Array) else value


def kinds_of_values() -> bytes:
    numbers = {"uint8": 200, "int8": -3, "uint16": 60000, "int16": -9, "uint32": 2**32 - 1, "int32": -1}
    numbers |= {"uint64": 2**63, "int64": -(2**62)}
    metadata: dict[str, object] = {f"a.{kind}": Typed(kind, value) for kind, value in numbers.items()}
    metadata |= {f"b.{kind}": Typed("array", (kind, [value, 1])) for kind, value in numbers.items()}
    metadata |= {
        "c.float32": 0.25,
        "c.float64": Typed("float64", 0.1),
        "c.floats": [0.5, -1.0],
        "c.bools": [True, False],
    }
    metadata |= {"d.text": "ä\n\u2028", "d.none": "", "d.texts": ["a", "", "bc"], "general.alignment": 64}
    tensors = [TensorInfo("four", (32, 3, 2, 2), "Q5_1"), ("one", (7,), "BF16"), ("two", (256, 3), "IQ4_XS")]
    return gguf_bytes(metadata, tensors, alignment=64)


FILES = {
    "probe model": probe_model(),
    "kinds of values": kinds_of_values(),
    "version 2": model_bytes(version=2),
    "big vocabulary": model_bytes(vocabulary=20_000),
    "first shard": model_bytes(split=(0, 3)),
    "second shard": model_bytes(split=(1, 3)),
    "no tensors": gguf_bytes(SmallModel().parts()[0]),
    **{quant: model_bytes(quant=quant) for quant in QUANTS},
}


@pytest.mark.parametrize("name", FILES)
def test_both_readers_say_the_same(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(FILES[name])
    own, theirs = ours(path), contents(path)
    for key, (kind, count, values) in {k: v for k, v in own["metadata"].items() if isinstance(v, tuple)}.items():
        if values is None and kind != "string":  # long arrays are only counted
            theirs["metadata"][key] = (kind, len(theirs["metadata"][key][2]), None)
        assert count == theirs["metadata"][key][1]
    assert own == theirs


def test_the_types_are_theirs() -> None:
    import gguf

    theirs = {
        int(kind): (kind.name, *gguf.GGML_QUANT_SIZES[kind])
        for kind in gguf.GGMLQuantizationType
        if kind in gguf.GGML_QUANT_SIZES and kind.name not in {"Q8_1", "Q8_K"}  # never in files
    }
    own = {number: (kind.name, kind.block_weights, kind.block_bytes) for number, kind in TENSOR_TYPES.items()}
    assert {number: own.get(number) for number in theirs} == theirs


def test_the_file_types_are_theirs() -> None:
    import gguf

    for kind in gguf.LlamaFileType:
        name = kind.name.removeprefix("ALL_").removeprefix("MOSTLY_")
        assert kind == gguf.LlamaFileType.GUESSED or FILE_TYPES[int(kind)] == name


@pytest.mark.real
def test_both_readers_say_the_same_of_a_real_model(small_model: Path) -> None:
    own, theirs = ours(small_model), contents(small_model)
    assert own["tensors"] == theirs["tensors"]
    assert (own["version"], own["alignment"], own["data_offset"]) == (
        theirs["version"],
        theirs["alignment"],
        theirs["data_offset"],
    )
    assert list(own["metadata"]) == list(theirs["metadata"])
    for key, value in own["metadata"].items():
        assert (value[:2] if isinstance(value, tuple) else value) == (
            theirs["metadata"][key][:2] if isinstance(value, tuple) else theirs["metadata"][key]
        )
