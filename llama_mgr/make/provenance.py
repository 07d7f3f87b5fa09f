"""How a file was made: kept in its side-car, and in its header where the tool can write keys of ours."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Optional

import msgspec

from llama_mgr import __version__
from llama_mgr.models.side_car import ModelRecord, read_record
from llama_mgr.store import now_at

_TEXT_LIMIT_BYTES = 127  # of a value that llama-quantize puts into a header: llama_model_kv_override of include/llama.h


class BuildOrigin(msgspec.Struct, kw_only=True, frozen=True):
    """Which build of llama.cpp did a step."""

    instance: str
    build_id: str
    version: str
    commit: str
    digest: str
    """Of its plan: equal ones make equal files."""


class InputRecord(msgspec.Struct, kw_only=True, frozen=True):
    """A file that went into a step."""

    name: str
    size_bytes: int
    sha256: str
    stamp: str = ""
    """Time and inode by which the file is known again without reading it; empty for those that others vouch for."""


class SourceRecord(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """Where a checkpoint came from."""

    repo: str = ""
    revision: str = ""
    directory: str = ""
    """Of a checkpoint that lay on this disk."""


class Provenance(msgspec.Struct, kw_only=True, frozen=True, omit_defaults=True):
    """How one file was made."""

    step: str
    """`convert`, `quantize`, `imatrix`, `split` or `merge`."""
    digest: str
    """Over the build, the options and the contents of the inputs: what has the same one need not be made again."""
    build: BuildOrigin
    command: list[str]
    """As it ran; names without a directory lay in a directory of its own."""
    inputs: list[InputRecord]
    made_at: str
    made_by: str
    took_s: float = 0.0
    options: dict[str, Any] = {}
    """What was asked for, so that it can be done again."""
    source: SourceRecord | None = None
    imatrix_sha256: str = ""
    text_sha256: str = ""
    """Of the text that an importance matrix was computed over."""
    code: dict[str, Any] = {}
    """What tells whether the program that did it has changed since: see `staleness`."""
    made_for: str = ""
    """`make`, where a pipeline made it, which may make it again."""
    parent: Optional["Provenance"] = None
    """How the input was made, if that was done here."""

    def origin(self) -> SourceRecord | None:
        """Return where the checkpoint came from that all this began with; None when nobody knows."""
        return self.source or (self.parent.origin() if self.parent else None)

    def of_step(self, step: str) -> Optional["Provenance"]:
        """Return the nearest `step` on the way from the checkpoint to this file."""
        if self.step == step:
            return self
        return self.parent.of_step(step) if self.parent else None


def step_digest(
    step: str, build: BuildOrigin, options: dict[str, Any], inputs: Sequence[InputRecord], *more: str
) -> str:
    """Return 64 hex digits over all that decides what a step makes."""
    content = [step, build.digest, options, sorted((one.name, one.sha256) for one in inputs), *more]
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()


def provenance_in(record: ModelRecord | None) -> Provenance | None:
    """Return how a file was made, from its side-car; None when that does not say."""
    if record is None or not record.provenance:
        return None
    try:
        return msgspec.convert(record.provenance, Provenance)
    except msgspec.ValidationError:
        return None


def provenance_of(file: Path) -> Provenance | None:
    """Return how the file was made; None when nobody knows.

    Raises:
        NewerStateError, StorageError: its side-car cannot be read.
    """
    return provenance_in(read_record(file))


def record_of_made(made: Provenance, sha256: str, size_bytes: int) -> ModelRecord:
    """Return the side-car of a file that was made here."""
    source = made.origin()
    repo = source.repo if source and source.repo else None
    place = repo or (source.directory if source else "") or (made.inputs[0].name if made.inputs else "")
    return ModelRecord(
        source=f"made:{place}" + (f"@{source.revision}" if source and source.revision else ""),
        sha256=sha256, size_bytes=size_bytes, downloaded_at=made.made_at, origin="made", repo=repo,
        revision=(source.revision or None) if source else None, provenance=msgspec.to_builtins(made),
    )  # fmt: skip


def header_keys(made: Provenance) -> dict[str, str]:
    """Return what the header of a quant says of its making; no times, so that the same work gives the same file."""
    source, convert = made.origin(), made.of_step("convert")
    keys = {
        "llama_mgr.version": __version__,
        "llama_mgr.quantize.build": made.build.build_id,
        "llama_mgr.quantize.commit": made.build.commit,
        "llama_mgr.input.sha256": made.inputs[0].sha256,
        "llama_mgr.imatrix.sha256": made.imatrix_sha256,
        "llama_mgr.convert.build": convert.build.build_id if convert else "",
        "llama_mgr.convert.commit": convert.build.commit if convert else "",
        "llama_mgr.source.repo": source.repo if source else "",
        "llama_mgr.source.revision": source.revision if source else "",
    }
    return {name: value for name, value in keys.items() if value and len(value.encode()) <= _TEXT_LIMIT_BYTES}


def begun(step: str, digest: str, build: BuildOrigin, **facts: Any) -> Provenance:  # noqa: ANN401 (any field)
    """Return the provenance of a step that is done now."""
    return Provenance(
        step=step, digest=digest, build=build, made_at=now_at(), made_by=f"llama-mgr {__version__}", **facts
    )
