"""Measurements are kept by the content that was measured, and one damaged document hides no other."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llama_mgr.make.ledger import Evaluation, Ledger, model_sha256
from llama_mgr.paths import Home
from tests.tools.made_models import measured
from tests.tools.model_library import Remarks

ONE, TWO = "1" * 64, "2" * 64


@pytest.fixture
def remarks() -> Remarks:
    return Remarks()


@pytest.fixture
def ledger(home: Home, remarks: Remarks) -> Ledger:
    return Ledger(home, remarks)


def documents(home: Home) -> list[Path]:
    return sorted(home.ledger_dir.rglob("*.json"))


def test_a_measurement_is_found_again(ledger: Ledger, home: Home, remarks: Remarks) -> None:
    entry = measured(same_top=0.97, kld_99=0.2, peak_bytes=5, devices="AMD EPYC, 2 threads")
    assert ledger.find(entry) is None
    assert ledger.entries() == []
    ledger.write(entry)
    assert Ledger(home, remarks).find(entry) == entry
    assert Ledger(home, remarks).entries() == [entry]
    assert [file.parent.name for file in documents(home)] == [entry.model_sha256[:32]]
    assert remarks.warnings == []


def test_it_is_found_by_content_whatever_the_model_is_called_now(ledger: Ledger) -> None:
    entry = measured(model="owner/tiny:Q4_K_M")
    ledger.write(entry)
    blank = measured(model="me/renamed:Q4_K_M", quant="Q4_K_M", text="other.txt", base="x", perplexity=None, kld=None)
    assert ledger.find(blank) == entry


def test_other_builds_texts_contexts_chunks_and_bases_are_other_measurements(ledger: Ledger, home: Home) -> None:
    entries = [
        measured(),
        measured(build_digest="9" * 64),
        measured(text_sha256="9" * 64),
        measured(context_tokens=256),
        measured(chunks=4),
        measured(base_sha256=""),
        measured(base_sha256="9" * 64),
        measured(model_sha256="9" * 64),
    ]
    for number, entry in enumerate(entries):
        ledger.write(measured(**{**fields(entry), "perplexity": float(number)}))
    assert len(documents(home)) == len(entries)
    found = [ledger.find(entry) for entry in entries]
    assert [one.perplexity if one else None for one in found] == [float(number) for number in range(len(entries))]


def fields(entry: Evaluation) -> dict[str, Any]:
    return {name: getattr(entry, name) for name in entry.__struct_fields__}


def test_measuring_again_takes_the_place_of_the_older_one(ledger: Ledger, home: Home) -> None:
    ledger.write(measured(perplexity=1.0))
    ledger.write(measured(perplexity=2.0, measured_at="2026-02-01T00:00:00Z"))
    assert len(documents(home)) == 1
    assert [one.perplexity for one in ledger.entries()] == [2.0]


def test_entries_come_newest_first_and_by_model(ledger: Ledger) -> None:
    first = measured(model_sha256=ONE, measured_at="2026-01-01T00:00:00Z")
    third = measured(model_sha256=ONE, chunks=4, measured_at="2026-03-01T00:00:00Z")
    second = measured(model_sha256=TWO, measured_at="2026-02-01T00:00:00Z")
    for entry in (first, third, second):
        ledger.write(entry)
    assert ledger.entries() == [third, second, first]
    assert ledger.entries(ONE) == [third, first]
    assert ledger.entries("3" * 64) == []


def test_a_document_that_another_model_has_is_not_taken_for_it(ledger: Ledger) -> None:
    ledger.write(measured(model_sha256=ONE))
    assert ledger.find(measured(model_sha256=TWO)) is None


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda file: file.write_text("{"), "not a JSON document"),
        (lambda file: file.write_bytes(file.read_bytes()[:100]), "not a JSON document"),
        (lambda file: file.write_bytes(b""), "not a JSON document"),
        (lambda file: file.write_text(file.read_text().replace('"evaluation"', '"model"')), "'model'"),
        (lambda file: file.write_text(file.read_text().replace('"schema": 1', '"schema": 2')), "schema 2"),
        (lambda file: file.write_text(file.read_text().replace('"quant": "Q4_K_M"', '"quant": 5')), "quant"),
        (lambda file: file.write_text(file.read_text().replace("20.0", "NaN")), "NaN is not a number"),
    ],
)
def test_a_damaged_document_is_told_and_hides_no_other(
    ledger: Ledger, home: Home, remarks: Remarks, damage: Callable[[Path], object], words: str
) -> None:
    damaged = measured(model_sha256=ONE)
    ledger.write(damaged)
    (file,) = documents(home)
    before = file.read_bytes()
    damage(file)
    assert file.read_bytes() != before
    sound = measured(model_sha256=TWO)
    ledger.write(sound)
    assert ledger.entries() == [sound]
    assert ledger.entries(ONE) == []
    assert ledger.find(damaged) is None
    assert len(remarks.warnings) == 3
    assert all(words in warning and str(file) in warning for warning in remarks.warnings)


def test_a_damaged_document_is_written_again(ledger: Ledger, home: Home) -> None:
    entry = measured()
    ledger.write(entry)
    documents(home)[0].write_text("{")
    ledger.write(entry)
    assert ledger.entries() == [entry]


def test_fields_that_are_not_there_yet_have_their_default(ledger: Ledger, home: Home) -> None:
    ledger.write(measured(delta_p_rms=0.04))
    (file,) = documents(home)
    lines = [line for line in file.read_text().splitlines() if '"delta_p_rms"' not in line and '"devices"' not in line]
    file.write_text("\n".join(lines))
    assert [(one.delta_p_rms, one.devices) for one in ledger.entries()] == [(None, "")]


def test_files_of_others_are_passed_over(ledger: Ledger, home: Home, remarks: Remarks) -> None:
    entry = measured()
    ledger.write(entry)
    (home.ledger_dir / "notes.json").write_text("mine")
    (documents(home)[0].parent / "notes.txt").write_text("mine")
    assert ledger.entries() == [entry]
    assert remarks.warnings == []


def test_what_a_model_is_known_by() -> None:
    assert model_sha256([ONE]) == ONE
    assert len(model_sha256([ONE, TWO])) == 64
    assert len({model_sha256(parts) for parts in ([ONE, TWO], [TWO, ONE], [ONE], [ONE, ONE])}) == 4
