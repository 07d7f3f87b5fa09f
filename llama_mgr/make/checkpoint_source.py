"""Where a checkpoint comes from: a directory of this disk, or a repository of the hub, which is pulled first."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from llama_mgr.errors import BadReferenceError, CorruptStateError, NotFoundError, RemoteError
from llama_mgr.make.inputs import is_newer
from llama_mgr.make.provenance import InputRecord, SourceRecord
from llama_mgr.models.checkpoint import (
    DIRECTORY_NAME,
    RECORD_KIND,
    RECORD_NAME,
    CheckpointPuller,
    CheckpointRecord,
)
from llama_mgr.models.checkpoint_files import patterns_with_code
from llama_mgr.models.naming import LOCAL_OWNER, name_part
from llama_mgr.models.reference import HubRef, parse_reference
from llama_mgr.paths import Home, join_below
from llama_mgr.report import Reporter
from llama_mgr.store import read_document
from llama_mgr.text import printable


@dataclass(frozen=True)
class CheckpointSource:
    """A checkpoint on this disk, and what is known of it."""

    directory: Path
    model: str
    """What models made of it are called."""
    record: SourceRecord
    known: dict[str, InputRecord]
    """Contents that somebody vouches for, by name."""


def checkpoint_source(
    home: Home, text: str, puller: Callable[[], CheckpointPuller], reporter: Reporter, *, with_code: bool = False
) -> CheckpointSource:
    """Return the checkpoint that `text` means: a directory, or `owner/repo[@revision]`, pulled now unless it is here.

    Args:
        home: where pulled ones lie.
        text: what the user typed.
        puller: asked for when something may have to be fetched.
        reporter: hears when the hub cannot be asked and what is here is used.
        with_code: also pull the Python files of the repository.

    Raises:
        NotFoundError: it is a path, and there is nothing.
        BadReferenceError: it is neither.
        RemoteError, RemoteDeniedError, UnknownRepositoryError: the hub does not give it.
    """
    path = Path(text).expanduser()
    if path.exists() or text.startswith((".", "/", "~")) or text.count("/") != 1:
        return _on_disk(home, path.absolute())
    ref = parse_reference(text)
    if not isinstance(ref, HubRef) or ref.quant or ref.file:
        raise BadReferenceError("cannot use as a checkpoint", text, "a directory or OWNER/REPO[@REVISION] is needed")
    try:
        include, exclude = patterns_with_code() if with_code else ([], [])
        pulled = puller().pull(ref, include=include, exclude=exclude)
    except RemoteError as error:
        here = join_below(home.models_dir, *ref.name.split("/"), "checkpoint")
        if not (here / RECORD_NAME).is_file() or ref.revision:
            raise
        reporter.warn(f"{error.message}; the checkpoint that is here is used")
        return _on_disk(home, here)
    return _on_disk(home, pulled.directory)


def _on_disk(home: Home, directory: Path) -> CheckpointSource:
    """Return the checkpoint in `directory`; one that was pulled into the library has a record of its contents.

    Elsewhere, such a record could say anything.
    """
    if not directory.exists():
        hint = "name a directory with a config.json, or OWNER/REPO on the hub"
        raise NotFoundError("cannot find the checkpoint", printable(directory), "there is no such directory", hint=hint)
    record = _record_of(home, directory)
    if record is None:
        model = f"{LOCAL_OWNER}/{name_part(directory.resolve().name)}"
        return CheckpointSource(directory, model, SourceRecord(directory=str(directory)), {})
    known = {
        one.name: InputRecord(name=one.name, size_bytes=one.size_bytes, sha256=one.sha256)
        for one in record.files
        if one.sha256 and not is_newer(directory / one.name, directory / RECORD_NAME)
    }
    return CheckpointSource(directory, record.repo, SourceRecord(repo=record.repo, revision=record.revision), known)


def _record_of(home: Home, directory: Path) -> CheckpointRecord | None:
    """Return the record of a pulled checkpoint, if `directory` is where `pull` puts the one that it tells of."""
    try:
        record = read_document(directory / RECORD_NAME, RECORD_KIND, CheckpointRecord)
    except (NotFoundError, CorruptStateError):
        return None
    owner, repo = directory.parent.parent.name, directory.parent.name
    is_ours = directory.resolve() == (home.models_dir / owner / repo / DIRECTORY_NAME).resolve()
    return record if is_ours and record.repo == f"{owner}/{repo}" else None
