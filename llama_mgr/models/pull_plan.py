"""What `pull` fetches of a repository: one quant with all its shards, and the projector that belongs to it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from llama_mgr.errors import BadInputError, HashMismatchError, UnknownModelError
from llama_mgr.models.content import content_of
from llama_mgr.models.quants import Offer, chosen, joined_by_hand, offers, projectors
from llama_mgr.models.reference import HubRef
from llama_mgr.models.repo_path import checked_repo_path
from llama_mgr.models.side_car import read_record
from llama_mgr.partial import partial_path
from llama_mgr.paths import join_below
from llama_mgr.store import storage_errors
from llama_mgr.text import printable, size_words

if TYPE_CHECKING:
    from llama_mgr.models.hub import HubFile, HubRepo


@dataclass(frozen=True)
class Choice:
    """What is taken, and why."""

    offer: Offer
    projector: "HubFile | None"
    why: str
    fits: bool
    """It can run here, as far as its size tells."""

    @property
    def files(self) -> "tuple[HubFile, ...]":
        """All that is fetched; the model's own files first, in order."""
        return (*self.offer.files, self.projector) if self.projector else self.offer.files

    @property
    def size_bytes(self) -> int:
        """What all of it has together."""
        return sum(file.size_bytes for file in self.files)


def place_of(directory: Path, file: "HubFile") -> Path:
    """Return where `file` lies below the `directory` of its repository.

    Raises:
        RefusedError: its name would lead elsewhere.
    """
    return join_below(directory, *checked_repo_path(file.name))


def choice(
    repo: "HubRepo", ref: HubRef, directory: Path, fits: Callable[[int], bool], *, with_projector: bool = True
) -> Choice:
    """Return what to take of `repo`.

    What the user names is taken. Else what is here already, whole or in part: memory that is free today and not
    tomorrow shall not start another download. Else what `quants.chosen` prefers.

    Args:
        repo: the listing.
        ref: what the user wants.
        directory: where the files of the repository lie.
        fits: whether a model of so many bytes can run here.
        with_projector: take the projector, too, if there is one.

    Raises:
        UnknownModelError: the repository has no GGUF, or not what was named; what there is, is listed.
        AmbiguousModelError: several match what was named.
        IncompleteModelError: the repository lacks shards.
    """
    found = offers(repo.files)
    if not found:
        raise _without_models(repo)
    is_named = bool(ref.quant or ref.file)
    begun = [] if is_named else [one for one in found if not one.missing and _is_begun(one, directory)]
    offer = chosen(begun or found, ref, fits)
    projector = next(iter(projectors(repo.files, offer.files[0].name)), None) if with_projector else None
    size_bytes = offer.size_bytes + (projector.size_bytes if projector else 0)
    if is_named:
        why = ""
    elif begun and len(found) > 1:
        why = "it is here already, whole or in part; name a quant to get another"
    else:
        why = _why(offer, found, fits)
    return Choice(offer, projector, why, fits(size_bytes))


def _why(offer: Offer, found: Sequence[Offer], fits: Callable[[int], bool]) -> str:
    whole = [one for one in found if not one.missing]
    if len(whole) == 1:
        return "it is the only one"
    if not fits(offer.size_bytes):
        return "it is the smallest of all, and even that does not fit into the memory that is free"
    if offer is whole[0]:
        return "it is the first in the order of preference, and fits into the memory that is free"
    return f"{whole[0].label} ({size_words(whole[0].size_bytes)}) does not fit into the memory that is free"


def _is_begun(offer: Offer, directory: Path) -> bool:
    places = [(place_of(directory, file), file) for file in offer.files]
    return any(
        partial_path(target, content_of(file).digest).exists() or _is_from(target, file) for target, file in places
    )


def _is_from(target: Path, file: "HubFile") -> bool:
    """Tell whether `target` came from the repository of `file`, at whatever commit, or is `file`, only unrecorded."""
    if target.is_symlink() or not target.is_file():
        return False
    record = read_record(target)
    if record is None:  # a kill may have come before the record
        with storage_errors("cannot read", target):
            return target.stat().st_size == file.size_bytes
    return record.source.lower().startswith(f"hf:{file.repo}@".lower())  # the hub tells no case apart


def _without_models(repo: "HubRepo") -> UnknownModelError:
    names = [file.name for file in repo.files]
    pieces = joined_by_hand(names)
    if pieces:
        some = ", ".join(pieces[:2]) + (", …" if pieces[2:] else "")
        return UnknownModelError(
            "cannot find a GGUF model in", repo.repo, f"it has only pieces, to be joined by hand: {printable(some)}",
            hint="download the pieces of one file, `cat` them in order into one .gguf, then llama-mgr import it",
        )  # fmt: skip
    listed = repo.some_names()
    has_weights = any(name.endswith(".safetensors") for name in names)
    return UnknownModelError(
        "cannot find a GGUF model in", repo.repo, f"it has {listed}" if names else "it is empty",
        hint=f"llama-mgr pull --checkpoint {repo.repo}   (to convert it), or llama-mgr search {repo.repo.split('/')[1]}"
        if has_weights
        else f"llama-mgr search {repo.repo.split('/')[1]}",
    )  # fmt: skip


def require_sha256(files: "Sequence[HubFile]", sha256: str) -> None:
    """Refuse a model whose one file has another sha256 than the user asks for; nothing was fetched yet.

    Raises:
        BadInputError: it has several files, or the hub names no sha256 for it.
        HashMismatchError: it is another file.
    """
    if len(files) > 1:
        raise BadInputError(
            "cannot compare with --sha256", sha256[:16], f"the model has {len(files)} files",
            hint="without --sha256, each file is checked against the sha256 that the hub names",
        )  # fmt: skip
    (file,) = files
    if not file.sha256:
        raise BadInputError("cannot compare with --sha256", sha256[:16], "the hub names no sha256 for this small file")
    if file.sha256 != sha256:
        raise HashMismatchError(
            "cannot pull", file.source, f"its sha256 is {file.sha256[:16]}…, and {sha256[:16]}… is wanted",
            hint="name the revision that you mean with --revision, or correct --sha256",
        )  # fmt: skip
