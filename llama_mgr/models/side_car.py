"""The side-car `<file>.gguf.json`: what is known of the file beside it. It is written last, so it means "complete"."""

import json
import os
from pathlib import Path
from typing import Any, Literal

import msgspec

from llama_mgr.errors import ConflictError, CorruptStateError, NotFoundError, StorageError
from llama_mgr.store import DOCUMENT_LIMIT_BYTES, read_bounded, read_document, write_document

RECORD_KIND = "model"

Origin = Literal["hub", "url", "package-index", "import", "made", ""]


class ModelRecord(msgspec.Struct, kw_only=True):
    """Where a GGUF file came from, and what it must contain.

    `source` says it in one line for people; the fields after `downloaded_at` say it for programs. Records of older
    versions have only the first four.
    """

    source: str
    sha256: str
    size_bytes: int
    downloaded_at: str
    origin: Origin = ""
    repo: str | None = None
    """`owner/repo` on the hub, or the project on the package index."""
    revision: str | None = None
    """The commit of 40 hex digits, or the version on the package index."""
    file: str | None = None
    """The path inside the repository."""
    verified_at: str | None = None
    """When all bytes were last found to have `sha256`, if that was later than `downloaded_at`."""
    provenance: dict[str, Any] = {}
    """How a file that was made here was made."""


def side_car_of(model: Path) -> Path:
    """Return the path of the side-car of the file `model`."""
    return model.with_name(f"{model.name}.json")


def has_own_side_car(model: Path) -> bool:
    """Tell whether a side-car that a llama-mgr wrote lies beside the file `model`, of whatever schema.

    Others use the same name: the old cache of llama.cpp kept a `<file>.gguf.json` of its own (common/download.cpp).
    """
    try:
        return _is_own(side_car_of(model))
    except NotFoundError:
        return False


def _is_own(place: Path) -> bool:
    try:
        document = json.loads(read_bounded(place, DOCUMENT_LIMIT_BYTES))
    except NotFoundError:
        raise
    except (StorageError, ValueError, RecursionError):
        return False
    return isinstance(document, dict) and "schema" in document and document.get("kind") == RECORD_KIND


def require_side_car_place(what: str, model: Path) -> None:
    """Refuse to write the side-car of the file `model` over a file of somebody else.

    Raises:
        ConflictError: there is such a file.
    """
    place = side_car_of(model)
    try:
        is_free = not os.path.lexists(place) or _is_own(place)
    except NotFoundError:  # as when another process takes our own away in this moment
        is_free = not place.is_symlink()
    if not is_free:
        why = f"another file is at {place}, where its side-car must be"
        raise ConflictError(what, model, why, hint="move that file away")


def read_record(model: Path) -> ModelRecord | None:
    """Return the record of the file `model`, or None when it has none that can be read.

    Raises:
        NewerStateError: a newer llama-mgr wrote it.
        StorageError: it cannot be read.
    """
    try:
        return read_document(side_car_of(model), RECORD_KIND, ModelRecord)
    except (NotFoundError, CorruptStateError):
        return None


def damage_of(model: Path) -> str:
    """Return what is wrong with the side-car of the file `model`; empty when it is sound or not there.

    Raises:
        NewerStateError: a newer llama-mgr wrote it.
        StorageError: it cannot be read.
    """
    try:
        read_document(side_car_of(model), RECORD_KIND, ModelRecord)
    except NotFoundError:
        return ""
    except CorruptStateError as error:
        return error.message
    return ""


def write_record(model: Path, record: ModelRecord) -> None:
    """Write the record of the file `model`, durably and at once.

    Raises:
        StorageError: the disk is full, read-only or failing.
    """
    write_document(side_car_of(model), RECORD_KIND, record)
