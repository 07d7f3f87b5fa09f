"""What one `make` did: one document for each run, and what its table shows."""

import secrets
from pathlib import Path

import msgspec

from llama_mgr.make.ledger import Evaluation
from llama_mgr.make.output import Made
from llama_mgr.make.provenance import BuildOrigin, SourceRecord
from llama_mgr.paths import Home, join_below
from llama_mgr.store import now_at, write_document

_KIND = "run"
MADE, UNCHANGED = "made", "unchanged"


class StepRecord(msgspec.Struct, kw_only=True):
    """One step: what it was, whether it had to be done, and what there is now."""

    step: str
    what: str
    state: str
    """`made`, or `unchanged` where inputs and command were those of an earlier run."""
    took_s: float = 0.0
    files: list[str] = []
    sha256s: list[str] = []
    size_bytes: int = 0
    command: list[str] = []


class RunRecord(msgspec.Struct, kw_only=True):
    """`runs/<id>.json`: one run of `make`."""

    run_id: str
    model: str
    source: SourceRecord
    build: BuildOrigin
    started_at: str
    ended_at: str = ""
    steps: list[StepRecord] = []
    evaluations: list[Evaluation] = []
    uploaded_to: str = ""

    @property
    def did_nothing(self) -> bool:
        """Whether all was there before."""
        return all(step.state == UNCHANGED for step in self.steps) and not self.uploaded_to


def begun_run(model: str, source: SourceRecord, build: BuildOrigin) -> RunRecord:
    """Return the record of a run that begins now."""
    started_at = now_at()
    run_id = f"{started_at.replace(':', '').replace('-', '')}-{secrets.token_hex(3)}"
    return RunRecord(run_id=run_id, model=model, source=source, build=build, started_at=started_at)


def step_of(step: str, what: str, made: Made) -> StepRecord:
    """Return the record of a step that made files, or found them."""
    return StepRecord(
        step=step, what=what, state=UNCHANGED if made.was_there else MADE,
        took_s=0.0 if made.was_there else made.provenance.took_s, files=[str(file) for file in made.files],
        sha256s=list(made.sha256s), size_bytes=made.size_bytes, command=made.provenance.command,
    )  # fmt: skip


def keep_run(home: Home, record: RunRecord) -> Path:
    """Write the record of a run that has ended; return its file.

    Raises:
        StorageError: the disk is full or failing.
    """
    record.ended_at = now_at()
    file = join_below(home.runs_dir, f"{record.run_id}.json")
    write_document(file, _KIND, record)
    return file
