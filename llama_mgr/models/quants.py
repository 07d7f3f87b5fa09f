"""Quants by their names: the tag in a file name, the shards of a split model, and which of several quants to take.

Nothing here touches disk or network; preferences and patterns are data in `quants.toml`.
"""

import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from llama_mgr.errors import AmbiguousModelError, IncompleteModelError, UnknownModelError
from llama_mgr.text import printable, size_words
from llama_mgr.toml_file import read_toml

if TYPE_CHECKING:
    from llama_mgr.models.hub import HubFile
    from llama_mgr.models.reference import HubRef

SUFFIX = ".gguf"
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})", re.DOTALL)
_SPELLINGS = {"FP16": "F16", "FP32": "F32"}
_SEPARATORS = "-._ "
_PROJECTOR = "mmproj"
_IMATRIX = "imatrix"
_LISTED = 12


class _Data(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    schema: int
    tag: str
    floats: list[str]
    ranking: list[str]
    projectors: list[str]
    removed: list[str]
    foreign_endings: list[str]
    draft_beginnings: list[str]
    draft_parts: list[str]
    other_words: list[str]
    piece_ending: str


@dataclass(frozen=True)
class _Knowledge:
    tag: re.Pattern[str]
    floats: frozenset[str]
    places: dict[str, int]
    loaded: int
    """The places before this one are those of types that llama.cpp loads."""
    foreign_endings: tuple[str, ...]
    projector_places: dict[str, int]
    draft_beginnings: tuple[str, ...]
    draft_parts: tuple[str, ...]
    others: re.Pattern[str]
    piece: re.Pattern[str]


@cache
def _known() -> _Knowledge:
    data = read_toml(Path(__file__).with_name("quants.toml"), _Data)
    return _Knowledge(
        re.compile(f"(?<![A-Za-z0-9])(?:{data.tag})(?![A-Za-z0-9])", re.IGNORECASE | re.ASCII),
        frozenset(data.floats),
        {tag: place for place, tag in enumerate([*data.ranking, *data.removed])},
        len(data.ranking),
        tuple(data.foreign_endings),
        {tag: place for place, tag in enumerate(data.projectors)},
        tuple(data.draft_beginnings),
        tuple(data.draft_parts),
        re.compile(f"(?<![a-z0-9])(?:{'|'.join(map(re.escape, data.other_words))})(?![a-z0-9])"),
        re.compile(rf".*\.gguf{data.piece_ending}", re.IGNORECASE | re.DOTALL),
    )


# -- names of files ----------------------------------------------------------------------------------------------------


def tag_in(file_name: str) -> str | None:
    """Return the quant that `file_name` (a path in a repository, or a file name) names, in upper case.

    The file's own name counts before its directories. Of several tags in one name the last quantized one counts:
    `Model-F16-Q4_0.gguf` is Q4_0.
    """
    *directories, name = file_name.split("/")
    for part in (_bare(name), *reversed(directories)):
        found = _tag_match(part)
        if found:
            return _canonical(found["tag"])
    return None


def tag_of(text: str) -> str | None:
    """Return the quant that the whole of `text`, which a user typed, is, as `tag_in` does; None when it is another."""
    found = _known().tag.fullmatch(text)
    return _canonical(found["tag"]) if found else None


def split_tag(text: str) -> tuple[str, str] | None:
    """Return (head, quant) of `4b-q8_0` or `4b:q8_0`, as they were typed; None when `text` is no such thing."""
    if tag_of(text):
        return None
    ends = (place for place, character in enumerate(text) if character in "-:" and place)
    return next(((text[:end], text[end + 1 :]) for end in ends if tag_of(text[end + 1 :])), None)


def shard_of(file_name: str) -> tuple[str, int, int] | None:
    """Return (path without the shard suffix, number from 1, count) of a shard's file name; None for other files.

    The suffix is `-00001-of-00003.gguf` (`gguf_split` of llama.cpp). Hostile names may have a number above the count.
    """
    found = _SHARD.fullmatch(file_name.removesuffix(SUFFIX)) if file_name.endswith(SUFFIX) else None
    return (found["stem"], int(found["number"]), int(found["count"])) if found else None


def stem_of(file_name: str) -> str:
    """Return what the file name calls the model: without directories, shard suffix, quant tag and `.gguf`.

    A name that has nothing else keeps its tag.
    """
    bare = _bare(file_name.rpartition("/")[2])
    found = _tag_match(bare)
    if not found:
        return bare
    before, after = bare[: found.start()].rstrip(_SEPARATORS), bare[found.end() :]
    return (before + after).strip(_SEPARATORS) or bare


def is_model(file_name: str) -> bool:
    """Tell whether the file name is that of a model or a shard of one.

    Projectors, importance matrices and drafts for speculative decoding are GGUF files, too, and cannot be served alone.
    """
    name = file_name.rpartition("/")[2].lower()
    if not name.endswith(SUFFIX) or _PROJECTOR in name or _is_draft(name):
        return False
    # Model-BF16.imatrix.gguf is the matrix of the unquantized model, Model-Q4_K_M-imatrix.gguf a model made with one
    return _IMATRIX not in name or (tag_in(name) or "F16") not in _known().floats


def _is_draft(name: str) -> bool:
    return name.startswith(_known().draft_beginnings) or any(part in name for part in _known().draft_parts)


def joined_by_hand(names: Iterable[str]) -> list[str]:
    """Return those of `names` that are pieces of a GGUF, which only their user can join: `m.gguf.part1of2`."""
    return sorted(name for name in names if _known().piece.fullmatch(name))


def is_projector(file_name: str) -> bool:
    """Tell whether the file name is that of a projector (mmproj), which lets a model see or hear."""
    name = file_name.rpartition("/")[2].lower()
    return name.endswith(SUFFIX) and _PROJECTOR in name


def rank(tag: str) -> int:
    """Return the place of a quant in the order of preference; smaller is preferred.

    A tag that the ranking does not know has the place of the longest known tag that it begins with (`Q4_K_P`: that of
    `Q4_K`); files without a tag, unknown types and those that only ik_llama.cpp loads come last.
    """
    places = _known().places
    if tag.endswith(_known().foreign_endings):
        return len(places)
    for name in (tag, tag.removeprefix("UD-")):
        for length in range(len(name), 1, -1):
            if name[:length] in places:
                return places[name[:length]]
    return len(places)


def _bare(name: str) -> str:
    """Return a file name without `.gguf` and shard suffix."""
    shard = shard_of(name)
    return shard[0] if shard else name.removesuffix(SUFFIX)


def _tag_match(text: str) -> re.Match[str] | None:
    found = list(_known().tag.finditer(text))
    quantized = [one for one in found if _canonical(one["tag"]) not in _known().floats]
    best = quantized or found
    return best[-1] if best else None


def _canonical(tag: str) -> str:
    return _SPELLINGS.get(tag.upper(), tag.upper())


# -- what a repository has ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Offer:
    """One servable model that a repository has: the shards of one quant, in order."""

    quant: str
    """The tag; empty when no name tells it."""
    files: "tuple[HubFile, ...]"
    count: int = 1
    """How many shards there must be."""

    @property
    def is_whole(self) -> bool:
        """Whether the repository has every shard."""
        return len(self.files) == self.count

    @property
    def missing(self) -> tuple[int, ...]:
        """The numbers of the first hundred shards that the repository lacks; a name may claim 99,999."""
        there = {(shard_of(file.name) or ("", 1, 1))[1] for file in self.files}
        return tuple(islice((number for number in range(1, self.count + 1) if number not in there), 100))

    @property
    def size_bytes(self) -> int:
        """What all its files have together."""
        return sum(file.size_bytes for file in self.files)

    @property
    def stem(self) -> str:
        """What the files call the model."""
        return stem_of(self.files[0].name)

    @property
    def label(self) -> str:
        """What to call it among the offers of its repository: the quant, or else the name of its file."""
        return self.quant or self.stem


def offers(files: "Sequence[HubFile]") -> list[Offer]:
    """Return the models among `files`, best first: whole ones, by rank, of one rank the smaller first.

    Sets of shards that are not whole come last; `chosen` refuses them. Two different models with one quant are two
    offers. Adapters and vocabularies are none.
    """
    sets: dict[tuple[str, int], dict[int, HubFile]] = {}
    for file in files:
        if is_model(file.name) and not _known().others.search(file.name.rpartition("/")[2].lower()):
            stem, number, count = shard_of(file.name) or (file.name, 0, 0)
            if number in range(min(count, 1), count + 1):
                sets.setdefault((stem, count), {})[number] = file
    found = [_offer(shards, max(count, 1)) for (_, count), shards in sets.items()]
    return sorted(found, key=lambda one: (not one.is_whole, rank(one.quant), one.size_bytes, one.files[0].name))


def _offer(shards: "dict[int, HubFile]", count: int) -> Offer:
    in_order = tuple(shards[number] for number in sorted(shards))
    return Offer(tag_in(in_order[0].name) or "", in_order, count)


def projectors(files: "Sequence[HubFile]", model: str = "") -> "list[HubFile]":
    """Return the projectors among `files`, best first.

    Args:
        files: of one repository.
        model: the name of the model's (first) file. Projectors in directories that do not hold it are left out, nearer
            ones come first (as llama.cpp does it); of those in one place, first those whose name begins as the model's
            does, then those that name no model.
    """
    directory = model.rpartition("/")[0]
    found = [file for file in files if is_projector(file.name) and _holds(file.name.rpartition("/")[0], directory)]
    places = _known().projector_places

    def preference(file: "HubFile") -> tuple[int, int, int, str]:
        depth = file.name.count("/")
        return -depth, _strangeness(file.name, model), places.get(tag_in(file.name) or "", len(places)), file.name

    return sorted(found, key=preference)


def _holds(outer: str, inner: str) -> bool:
    return not outer or inner == outer or inner.startswith(f"{outer}/")


def _strangeness(projector: str, model: str) -> int:
    """Return 0 for a projector whose name begins as the model's, 1 for one that names no model, 2 for another's."""
    words = re.sub(_PROJECTOR, "", stem_of(projector), flags=re.IGNORECASE).strip(_SEPARATORS).lower()
    if not words:
        return 1
    return 0 if stem_of(model).lower().startswith(words) else 2


# -- choosing ----------------------------------------------------------------------------------------------------------


def chosen(offers: Sequence[Offer], ref: "HubRef", fits: Callable[[int], bool]) -> Offer:
    """Return the offer that `ref` means.

    By its file or quant when it names one: the whole tag, else its beginning (`Q4_K` when there is only Q4_K_M). Else
    the first of the ranking if it fits; else the biggest that fits; else the smallest of all: ask
    `fits(offer.size_bytes)` of what is returned to tell the user. Types that llama.cpp does not load, and unknown ones,
    are taken only when they are named, or there is nothing else.

    Args:
        offers: what the repository has.
        ref: what the user wants.
        fits: whether a model of so many bytes can run here.

    Raises:
        AmbiguousModelError: several match; they are listed, and a default is named.
        UnknownModelError: none matches; what there is, is listed.
        IncompleteModelError: the repository lacks shards of what was named, or of all it has.
    """
    found = _named(offers, ref)
    if not found:
        raise _unknown(offers, ref)
    whole = [one for one in found if one.is_whole]
    if not whole:
        raise _incomplete(found[0], ref)
    if ref.file or ref.quant:
        alike = whole
    else:
        default = _default(whole, fits)
        alike = [one for one in whole if one.quant == default.quant]  # different models, which no ranking tells apart
    if len(alike) > 1:
        raise _ambiguous(alike, ref, fits)
    return alike[0]


def _default(whole: Sequence[Offer], fits: Callable[[int], bool]) -> Offer:
    loaded = [one for one in whole if rank(one.quant) < _known().loaded] or whole
    best = min(loaded, key=lambda one: rank(one.quant))
    fitting = [one for one in loaded if fits(one.size_bytes)]
    if best in fitting:
        return best
    if fitting:
        return max(fitting, key=lambda one: one.size_bytes)
    return min(loaded, key=lambda one: one.size_bytes)


def _named(offers: Sequence[Offer], ref: "HubRef") -> list[Offer]:
    if ref.file:
        wanted = ref.file.casefold()
        return [one for one in offers if any(file.name.casefold() == wanted for file in one.files)]
    if not ref.quant:
        return list(offers)
    for matches in _ways(tag_of(ref.quant) or ref.quant.upper()):
        found = [one for one in offers if matches(one)]
        if found:
            return found
    return []


def _ways(typed: str) -> Iterator[Callable[[Offer], bool]]:
    """Yield the ways to name a quant, strictest first; who types Q4_K_XL also means UD-Q4_K_XL."""
    yield lambda one: one.quant == typed
    yield lambda one: one.quant.removeprefix("UD-") == typed
    yield lambda one: one.quant.startswith(typed)
    yield lambda one: one.quant.removeprefix("UD-").startswith(typed)


def _unknown(offers: Sequence[Offer], ref: "HubRef") -> UnknownModelError:
    wanted = ref.file or ref.quant
    what = f"cannot find {printable(wanted)} in" if wanted else "cannot find a model in"
    why = f"the repository has {_listed(offers)}" if offers else "the repository has no GGUF model"
    return UnknownModelError(what, ref.name, why, hint=next((_pull_words(ref, one) for one in offers), None))


def _ambiguous(found: Sequence[Offer], ref: "HubRef", fits: Callable[[int], bool]) -> AmbiguousModelError:
    default = _default(found, fits)
    if len({one.quant for one in found}) == len(found):
        why = f"several quants match: {_listed(found)}; the default among them is {default.label}"
        return AmbiguousModelError("cannot choose for", ref, why, hint=_pull_words(ref, default))
    names = [f"{printable(one.files[0].name, 120)} ({size_words(one.size_bytes)})" for one in found]
    why = f"several models have this quant, so name the file: {_some(names)}"
    return AmbiguousModelError("cannot choose for", ref, why, hint=_pull_words(ref, default, by_file=True))


def _incomplete(offer: Offer, ref: "HubRef") -> IncompleteModelError:
    lacking = offer.count - len(offer.files)
    numbers = _some([str(number) for number in offer.missing], lacking)
    noun = "shard" if lacking == 1 else "shards"
    why = f"the repository lacks {noun} {numbers} of {offer.count} of {printable(offer.label)}"
    return IncompleteModelError("cannot use", ref, why, hint=f"llama-mgr info {shlex.quote(ref.name)}")


def _listed(offers: Sequence[Offer]) -> str:
    return _some([f"{printable(one.label, 80)} ({size_words(one.size_bytes)})" for one in offers])


def _some(words: Sequence[str], count: int | None = None) -> str:
    left = (len(words) if count is None else count) - _LISTED
    return ", ".join(words[:_LISTED]) + (f" and {left} more" if left > 0 else "")


def _pull_words(ref: "HubRef", offer: Offer, *, by_file: bool = False) -> str:
    """Return the command that takes just this offer."""
    file = offer.files[0].name if by_file or not offer.quant else None
    exact = replace(ref, quant=None if file else offer.quant, file=file)
    return f"llama-mgr pull {shlex.quote(str(exact))}"
