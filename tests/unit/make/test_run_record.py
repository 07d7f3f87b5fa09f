"""One document for each run of `make`: what it did, and what was there before."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from llama_mgr.errors import RefusedError
from llama_mgr.make.output import Made
from llama_mgr.make.run_record import MADE, UNCHANGED, RunRecord, StepRecord, begun_run, keep_run, step_of
from llama_mgr.paths import Home
from llama_mgr.store import read_document
from tests.tools.made_models import BUILD, SOURCE, made_by, measured

FILES = (Path("/m/a-00001-of-00002.gguf"), Path("/m/a-00002-of-00002.gguf"))
MADE_NOW = Made(FILES, ("1" * 64, "2" * 64), 30, made_by(took_s=4.5), was_there=False)


def test_a_step_that_made_files_says_how() -> None:
    assert step_of("quantize", "Q4_K_M", MADE_NOW) == StepRecord(
        step="quantize", what="Q4_K_M", state=MADE, took_s=4.5, files=[str(file) for file in FILES],
        sha256s=["1" * 64, "2" * 64], size_bytes=30, command=["llama-quantize", "in", "out"],
    )  # fmt: skip


def test_a_step_that_found_them_took_no_time() -> None:
    found = step_of("quantize", "Q4_K_M", replace(MADE_NOW, was_there=True))
    assert (found.state, found.took_s, found.files) == (UNCHANGED, 0.0, [str(file) for file in FILES])
    assert found.command == ["llama-quantize", "in", "out"]


def test_a_run_is_kept_and_read_back(home: Home) -> None:
    record = begun_run("owner/tiny", SOURCE, BUILD)
    record.steps.append(step_of("quantize", "Q4_K_M", MADE_NOW))
    record.evaluations = [measured("Q4_K_M"), measured("Q8_0", kld=None)]
    file = keep_run(home, record)
    assert file == home.runs_dir / f"{record.run_id}.json"
    assert read_document(file, "run", RunRecord) == record
    assert record.started_at <= record.ended_at
    assert file.stat().st_mode & 0o777 == 0o600


def test_runs_of_one_second_have_documents_of_their_own_in_the_order_of_time(home: Home) -> None:
    files = [keep_run(home, begun_run("owner/tiny", SOURCE, BUILD)) for _ in range(20)]
    assert len(set(files)) == len(list(home.runs_dir.iterdir())) == 20
    assert all(re.fullmatch(r"\d{8}T\d{6}Z-[0-9a-f]{6}\.json", file.name) for file in files)


def test_a_run_id_that_leaves_the_directory_is_refused(home: Home) -> None:
    record = begun_run("owner/tiny", SOURCE, BUILD)
    record.run_id = "../x"
    with pytest.raises(RefusedError):
        keep_run(home, record)


@pytest.mark.parametrize(
    ("states", "uploaded_to", "expected"),
    [
        ([], "", True),
        ([UNCHANGED, UNCHANGED], "", True),
        ([UNCHANGED, MADE], "", False),
        ([UNCHANGED], "me/tiny", False),
    ],
)
def test_whether_a_run_did_nothing(states: list[str], uploaded_to: str, expected: bool) -> None:
    record = begun_run("owner/tiny", SOURCE, BUILD)
    record.steps = [StepRecord(step="quantize", what="Q8_0", state=state) for state in states]
    record.uploaded_to = uploaded_to
    assert record.did_nothing is expected
