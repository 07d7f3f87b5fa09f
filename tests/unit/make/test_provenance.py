"""How a file was made, as its side-car and its header keep it."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from llama_mgr import __version__
from llama_mgr.make.provenance import (
    InputRecord,
    Provenance,
    SourceRecord,
    begun,
    header_keys,
    provenance_in,
    provenance_of,
    record_of_made,
    step_digest,
)
from llama_mgr.models.side_car import ModelRecord, read_record, write_record
from tests.tools.made_models import BUILD, INPUT, SOURCE, made_by, put_made, sha256_of
from tests.tools.model_library import put_recorded

OTHER = InputRecord(name="second.gguf", size_bytes=1, sha256="a" * 64)
CONVERT = made_by("convert", "c" * 64, source=SOURCE, options={"outtype": "auto", "architectures": ["Llama"]})
QUANT = made_by("quantize", "d" * 64, parent=CONVERT, imatrix_sha256="9" * 64, options={"type": "Q4_K_M"})


def digest(**changes: Any) -> str:  # noqa: ANN401 (any part)
    usual: dict[str, Any] = {
        "step": "quantize", "build": BUILD, "options": {"a": 1, "b": ["x"]}, "inputs": [INPUT, OTHER],
    }  # fmt: skip
    more = changes.pop("more", [])
    return step_digest(*{**usual, **changes}.values(), *more)


def test_the_digest_is_that_of_everything_that_decides_the_result() -> None:
    changed = [
        digest(step="imatrix"),
        digest(build=msgspec.structs.replace(BUILD, digest="0" * 64)),
        digest(options={"a": 2, "b": ["x"]}),
        digest(options={"a": 1, "b": ["x", "y"]}),
        digest(inputs=[INPUT]),
        digest(inputs=[INPUT, msgspec.structs.replace(OTHER, sha256="b" * 64)]),
        digest(inputs=[INPUT, msgspec.structs.replace(OTHER, name="third.gguf")]),
        digest(more=["m"]),
        digest(more=["m", "n"]),
    ]
    assert len({digest(), *changed}) == len(changed) + 1
    assert len(digest()) == 64
    assert int(digest(), 16)


def test_the_digest_is_not_that_of_order_names_of_instances_and_times() -> None:
    renamed = msgspec.structs.replace(BUILD, instance="other", build_id="b7-x", version="latest", commit="")
    assert digest(build=renamed) == digest()
    assert digest(options={"b": ["x"], "a": 1}) == digest()
    assert digest(inputs=[OTHER, INPUT]) == digest()
    assert digest(inputs=[INPUT, msgspec.structs.replace(OTHER, stamp="1:2", size_bytes=5)]) == digest()


def test_a_side_car_gives_back_what_it_was_given(tmp_path: Path) -> None:
    file = put_made(tmp_path / "m-Q4_K_M.gguf", QUANT)
    assert provenance_of(file) == QUANT
    record = read_record(file)
    assert record is not None
    assert (record.origin, record.repo, record.revision) == ("made", "owner/tiny", "5" * 40)
    assert record.source == f"made:owner/tiny@{'5' * 40}"
    assert (record.sha256, record.size_bytes) == (sha256_of(file), file.stat().st_size)
    assert record.downloaded_at == QUANT.made_at


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (SourceRecord(repo="a/b"), ("made:a/b", "a/b", None)),
        (SourceRecord(directory="/data/finetune"), ("made:/data/finetune", None, None)),
        (None, ("made:tiny-F16.gguf", None, None)),
    ],
)
def test_where_a_made_file_comes_from_in_one_line(
    source: SourceRecord | None, expected: tuple[str, str | None, str | None]
) -> None:
    record = record_of_made(made_by(source=source), "1" * 64, 5)
    assert (record.source, record.repo, record.revision) == expected


def test_steps_are_found_on_the_way_back_to_the_checkpoint() -> None:
    split = made_by("split", parent=QUANT)
    assert [split.of_step(step) for step in ("split", "quantize", "convert", "imatrix")] == [
        split, QUANT, CONVERT, None,
    ]  # fmt: skip
    assert split.origin() == SOURCE
    assert made_by().origin() is None
    assert made_by(source=SourceRecord(repo="near/er"), parent=CONVERT).origin() == SourceRecord(repo="near/er")


@pytest.mark.parametrize("provenance", [{}, {"step": "quantize"}, {"tool": "other", "inputs": 5}])
def test_a_record_that_says_nothing_of_the_making_gives_none(provenance: dict[str, Any]) -> None:
    record = ModelRecord(source="x", sha256="1" * 64, size_bytes=1, downloaded_at="now", provenance=provenance)
    assert provenance_in(record) is None


def test_files_of_others_have_no_provenance(tmp_path: Path) -> None:
    assert provenance_in(None) is None
    assert provenance_of(tmp_path / "missing.gguf") is None
    pulled = put_recorded(tmp_path / "pulled.gguf", repo="a/b", revision="1" * 40)
    assert provenance_of(pulled) is None
    damaged = put_made(tmp_path / "damaged.gguf", QUANT)
    damaged.with_name("damaged.gguf.json").write_text("{")
    assert provenance_of(damaged) is None


def test_fields_of_newer_versions_are_passed_over(tmp_path: Path) -> None:
    file = put_made(tmp_path / "m.gguf", QUANT)
    record = read_record(file)
    assert record is not None
    record.provenance["of_next_year"] = {"x": 1}
    write_record(file, record)
    assert provenance_of(file) == QUANT


def test_the_header_says_the_way_without_times_and_paths() -> None:
    assert header_keys(QUANT) == {
        "llama_mgr.version": __version__,
        "llama_mgr.quantize.build": "b7-cpu-0123abcd",
        "llama_mgr.quantize.commit": "7" * 40,
        "llama_mgr.input.sha256": "f" * 64,
        "llama_mgr.imatrix.sha256": "9" * 64,
        "llama_mgr.convert.build": "b7-cpu-0123abcd",
        "llama_mgr.convert.commit": "7" * 40,
        "llama_mgr.source.repo": "owner/tiny",
        "llama_mgr.source.revision": "5" * 40,
    }
    later = msgspec.structs.replace(QUANT, made_at="2030-01-01T00:00:00Z", took_s=99.0, command=["x"])
    assert header_keys(later) == header_keys(QUANT)


def test_what_is_unknown_or_too_long_for_a_header_is_left_out() -> None:
    bare = made_by(source=SourceRecord(directory="/home/me/finetune"))
    assert header_keys(bare).keys() == {
        "llama_mgr.version", "llama_mgr.quantize.build", "llama_mgr.quantize.commit", "llama_mgr.input.sha256",
    }  # fmt: skip
    # llama-quantize takes at most 127 bytes of a text, and ends when there are more
    fits, too_long = (made_by(source=SourceRecord(repo="ö" * count)) for count in (63, 64))
    assert header_keys(fits)["llama_mgr.source.repo"] == "ö" * 63
    assert "llama_mgr.source.repo" not in header_keys(too_long)


def test_a_step_that_begins_knows_when_and_by_whom() -> None:
    made = begun("quantize", "d" * 64, BUILD, command=[], inputs=[INPUT], options={"type": "Q8_0"})
    assert (made.step, made.digest, made.build, made.options) == ("quantize", "d" * 64, BUILD, {"type": "Q8_0"})
    assert made.made_by == f"llama-mgr {__version__}"
    assert made.made_at.startswith("20")
    assert msgspec.convert(msgspec.to_builtins(made), Provenance) == made
