"""Finding a model of the library by what the user typed: exact name, suffix, substring, words; a typo only suggests."""

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Protocol, TypeVar

from llama_mgr.errors import AmbiguousModelError, BadReferenceError, UnknownModelError
from llama_mgr.models.aliases import Aliases
from llama_mgr.models.quants import SUFFIX, shard_of, split_tag, stem_of, tag_of
from llama_mgr.models.reference import HubRef, NameRef, Reference, parse_reference
from llama_mgr.models.side_car import ModelRecord
from llama_mgr.names import canonical
from llama_mgr.text import printable

_LISTED = 8
_SUGGESTED = 3
_CLOSE = 72  # of 100; "smolm" has 83 with "smollm2"
_TYPED_LIMIT = 1024
_WORDS_LIMIT = 16
_WORD = re.compile(r"[^\W_]+(?:\.[0-9]+[^\W_]*)*")  # 2.5 and 0.5b are words, the dot before a quant is none
_GGUF_ENDING = re.compile(r"[-._]gguf$")
_COMMIT = re.compile(r"[0-9a-f]{7,40}")  # 7: what git shows as a short one
_DIGITS = "0123456789"
_PRESET_PREFIX = "p:"


class Candidate(Protocol):
    """What can be found: a model of the library."""

    @property
    def name(self) -> str:
        """`owner/repo`."""

    @property
    def quant(self) -> str:
        """The tag; may be empty."""

    @property
    def files(self) -> Sequence[Path]:
        """Its file, or its shards in order."""

    @property
    def record(self) -> ModelRecord | None:
        """Where it came from, if that is known."""


C = TypeVar("C", bound=Candidate)


@dataclass(frozen=True)
class _Wanted:
    """What was typed, in the form in which it is compared."""

    base: str
    quant: str = ""
    tag: str | None = None
    """`quant` as a tag, if it is one."""

    @property
    def words(self) -> list[str]:
        """The words to look for when the text is no part of a name: the quant is one only if it is no tag."""
        return _WORD.findall(self.base if self.tag else f"{self.base} {self.quant}")[:_WORDS_LIMIT]


@dataclass(frozen=True)
class _Known:
    """The names of a candidate, in the form in which they are compared."""

    name: str
    quant: str
    file: str
    """The name of the first file, without shard suffix and `.gguf`."""
    stem: str
    """That without the quant."""

    @property
    def short_names(self) -> tuple[str, ...]:
        repo = self.name.rpartition("/")[2]
        return repo, _GGUF_ENDING.sub("", repo), self.stem

    @property
    def words(self) -> list[str]:
        return _WORD.findall(f"{self.name} {self.file} {self.quant}")


def key_of(candidate: Candidate) -> str:
    """Return the text that means just this name and quant: `name:QUANT`."""
    return f"{candidate.name}:{candidate.quant}" if candidate.quant else candidate.name


def matches(text: str, candidates: Sequence[C]) -> list[C]:
    """Return the candidates that `text` means, by the strictest way in which it means any; empty if there is none.

    A text with a `/` (`owner/repo`, `owner/repo/file.gguf`) is a whole name, and means nothing else. For others there
    are these ways, strictest first: a file's whole name; the part after the `/`; the end of one of these, at the start
    of a word; any part; all the words, in any order. No part ends inside a number, and `4b` is neither in `14b` nor in
    `0.4b`. What follows a `:` is compared with the quant, whole before its beginning; if it cannot be a quant
    (`qwen:32b`), it is a word. Case and Unicode form do not count.

    Raises:
        BadReferenceError: the text names a preset, or a revision that cannot be compared with those of the candidates.
    """
    reference = _parsed(text[:_TYPED_LIMIT])
    wanted = _wanted(text[:_TYPED_LIMIT], reference)
    known = [(_known(one), one) for one in candidates]
    for named in _name_stages(wanted.base):
        found = [(names, one) for names, one in known if named(names, one)]
        meant = _of_quant(wanted, found)
        if meant:
            return _of_revision(reference, meant) if isinstance(reference, HubRef) else meant
    words = wanted.words
    if not words or "/" in wanted.base:
        return []
    found = [(names, one) for names, one in known if _has_words(names, words)]
    return _of_quant(wanted, found) if wanted.tag else [one for _, one in found]


def the_one(text: str, candidates: Sequence[C], aliases: Aliases | None = None) -> C:
    """Return the one candidate that `text` means; an alias means what it stands for, if that is among them.

    Raises:
        UnknownModelError: there is none; close ones are suggested.
        AmbiguousModelError: there are several; they are listed.
        BadReferenceError: the text is empty, or names a preset, or a revision that cannot be compared.
        BadConfigError: the user's aliases.toml cannot be read.
    """
    if not text.strip():
        parse_reference(text)
    target = aliases.expand(text) if aliases else None
    found = _matches_of_target(target, candidates) if target else []
    found = found or matches(text, candidates)
    if not found:
        raise _unknown(text, candidates, aliases, target)
    if len(found) > 1:
        raise _ambiguous(text, found)
    return found[0]


def _matches_of_target(target: HubRef, candidates: Sequence[C]) -> list[C]:
    return matches(text_of_target(target), candidates)


def text_of_target(target: HubRef) -> str:
    """Return the text that means in the library what an alias stands for; it is a whole name."""
    # A branch was followed when the alias was pulled; what it was then is in the library.
    is_pinned = _COMMIT.fullmatch((target.revision or "").lower())
    return str(target if is_pinned else replace(target, revision=None))


def _parsed(text: str) -> Reference | None:
    """Return the reference `text`, or None: names made from file names may have forms that references never have."""
    try:
        return parse_reference(text)
    except BadReferenceError:
        return None


def _wanted(text: str, reference: Reference | None) -> _Wanted:
    if text.startswith(_PRESET_PREFIX):  # p:Q4_K_M, too, which has no form of a reference
        raise BadReferenceError("cannot use as a model of the library", text, "it names a preset, not a model")
    if isinstance(reference, HubRef):
        base, quant = f"{reference.name}/{reference.file}" if reference.file else reference.name, reference.quant
    elif isinstance(reference, NameRef):
        base, quant = reference.name, reference.quant
        inner = split_tag(quant or "")
        if inner:  # qwen3:4b-q8_0, as Ollama writes it
            base, quant = f"{base}:{inner[0]}", inner[1]
    else:
        base, colon, quant = text.rpartition(":")
        base, quant = (base, quant) if colon and "/" not in quant else (text, None)
    return _Wanted(canonical(base), canonical(quant or ""), canonical(tag_of(quant) or "") if quant else None)


def _known(candidate: Candidate) -> _Known:
    file = candidate.files[0].name if candidate.files else ""
    shard = shard_of(file)
    bare = shard[0] if shard else file.removesuffix(SUFFIX)
    return _Known(canonical(candidate.name), canonical(candidate.quant), canonical(bare), canonical(stem_of(file)))


def _name_stages(base: str) -> Iterator[Callable[[_Known, Candidate], bool]]:
    if not base:
        return
    yield lambda names, one: base in {names.name, names.file} or _is_file(base, names, one)
    if "/" in base:
        return
    yield lambda names, _: base in names.short_names
    if not any(map(str.isalnum, base)):  # "-" is a part of most names
        return
    part = _part(base)
    end = re.compile(rf"(?<![^\W_]){part.pattern}\Z")
    yield lambda names, _: any(end.search(name) for name in (names.name, *names.short_names))
    yield lambda names, _: bool(part.search(names.name) or part.search(names.file))


def _is_file(base: str, names: _Known, candidate: Candidate) -> bool:
    """Tell whether `base` is the name of one of the files, alone or below the model's name."""
    if not base.endswith(SUFFIX):
        return False
    file = base.removeprefix(f"{names.name}/")
    if file == base and "/" in base:
        return False
    return any(canonical(str(one)).endswith(f"/{file}") for one in candidate.files)


@lru_cache(64)
def _part(text: str, between: str = "") -> re.Pattern[str]:
    """Return the pattern of `text` inside a name, with `between` allowed anywhere in it; numbers count as a whole."""
    start = r"(?<![0-9.])" if text[0] in _DIGITS else ""
    end = r"(?![0-9])" if text[-1] in _DIGITS else ""
    return re.compile(start + between.join(map(re.escape, text)) + end)


def _of_quant(wanted: _Wanted, found: Sequence[tuple[_Known, C]]) -> list[C]:
    """Return those that have the quant itself, or else one that begins so; who types q4_k_xl also means UD-Q4_K_XL."""
    if not wanted.quant:
        return [one for _, one in found]
    typed = (wanted.quant, wanted.tag or wanted.quant)
    exact = [one for names, one in found if names.quant in typed]
    return exact or [
        one
        for names, one in found
        if names.quant.startswith(typed) or names.quant.removeprefix("ud-").startswith(typed)
    ]


def _of_revision(ref: HubRef, found: Sequence[C]) -> list[C]:
    """Return those of the revision that `ref` names: the whole, or the first seven digits of a commit or more."""
    wanted = (ref.revision or "").lower()
    if not wanted:
        return list(found)
    revisions = [(one.record.revision if one.record else None) or "" for one in found]
    is_commit = _COMMIT.fullmatch(wanted) is not None
    meant = [
        one
        for revision, one in zip(revisions, found, strict=True)
        if revision.lower() == wanted or (is_commit and revision.lower().startswith(wanted))
    ]
    if not meant and not (is_commit and all(revisions)):
        why = "names of the library take no revision, except the commit of a model that llama-mgr pulled"
        hint = f"write {shlex.quote(str(replace(ref, revision=None)))}"
        raise BadReferenceError("cannot use as a model of the library", ref, why, hint=hint)
    return meant


def _has_words(names: _Known, words: Sequence[str]) -> bool:
    """Tell whether each word starts a word of the names. `llama3.1` is also in `Llama-3.1`, but `4b` not in `14B`."""
    known = names.words
    joined = "\0".join(known)
    return all(
        any(_part(word).match(one) for one in known) or (word[0].isalpha() and _part(word, "\0?").search(joined))
        for word in words
    )


# -- what to say when it is not one ------------------------------------------------------------------------------------


def _ambiguous(text: str, found: Sequence[Candidate]) -> AmbiguousModelError:
    keys = sorted({key_of(one) for one in found})
    names = {one.name for one in found}
    if len(keys) == 1:
        files = sorted(str(one.files[0]) for one in found if one.files)
        why, hint = f"there are several {printable(keys[0])}: {_some(files)}", "name the file, with its directory"
    elif len(names) == 1:
        quants = [one.removeprefix(f"{one.rpartition(':')[0]}:") for one in keys]
        why, hint = f"{printable(names.pop())} has the quants {_some(quants)}", f"name one: {_quoted(keys[0])}"
    else:
        why, hint = f"several match: {_some(keys)}", f"write more of it: {_quoted(keys[0])}"
    return AmbiguousModelError("cannot tell which model is", text, why, hint=hint)


def _unknown(
    text: str, candidates: Sequence[Candidate], aliases: Aliases | None, target: HubRef | None
) -> UnknownModelError:
    reference = _parsed(text[:_TYPED_LIMIT])
    wanted = _wanted(text[:_TYPED_LIMIT], reference)
    is_quant = wanted.tag or (wanted.quant and isinstance(reference, HubRef))
    others = matches(wanted.base, candidates) if is_quant else []
    if others:
        keys = sorted({key_of(one) for one in others})
        why = f"the library has other quants: {_some(keys)}"
        return UnknownModelError("cannot find the model", text, why, hint=f"name one: {_quoted(keys[0])}")
    if target:
        hint = f"llama-mgr pull {shlex.quote(text)}"
    elif text.endswith(SUFFIX) and isinstance(reference, HubRef) and text == reference.name:
        hint = _file_hint(text)
    else:
        hint = _did_you_mean(text, candidates, aliases) or _other_hint(text, reference)
    return UnknownModelError("cannot find the model", text, "no model of the library has this name", hint=hint)


def _did_you_mean(text: str, candidates: Sequence[Candidate], aliases: Aliases | None) -> str | None:
    close = [quoted if (quoted := _quoted(key))[0] == "'" else f"'{quoted}'" for key in suggestions(text, candidates)]
    if close:
        return f"did you mean {' or '.join(close)}?"
    return aliases.suggestion(text) if aliases else None


def _other_hint(text: str, reference: Reference | None) -> str:
    if isinstance(reference, HubRef):
        return f"llama-mgr pull {shlex.quote(str(reference))}"
    return _file_hint(text) if isinstance(reference, NameRef) and text.endswith(SUFFIX) else "llama-mgr list"


def _file_hint(text: str) -> str:
    return f"a file is written with its directory: {shlex.quote(f'./{text}')}"


def _quoted(key: str) -> str:
    return shlex.quote(printable(key))


def suggestions(text: str, candidates: Sequence[Candidate]) -> list[str]:
    """Return the keys of up to three candidates that have a close word for every word of `text`, closest first."""
    from rapidfuzz import fuzz, process  # noqa: PLC0415 (only mistakes need it)

    wanted = _wanted(text[:_TYPED_LIMIT], _parsed(text[:_TYPED_LIMIT]))
    words_of = {key_of(one): set(_known(one).words) for one in candidates}
    vocabulary = sorted(set().union(*words_of.values()))
    scores = dict.fromkeys(words_of, 0.0)
    for word in wanted.words:
        close = {
            found: score
            for found, score, _ in process.extract(word, vocabulary, scorer=fuzz.ratio, score_cutoff=_CLOSE, limit=None)
        }
        scores = {
            key: score + max(close[one] for one in words_of[key] & close.keys())
            for key, score in scores.items()
            if words_of[key] & close.keys()
        }
    if not wanted.words:
        return []
    return sorted(scores, key=lambda key: (-scores[key], key))[:_SUGGESTED]


def _some(words: Sequence[str]) -> str:
    more = f" and {len(words) - _LISTED} more" if len(words) > _LISTED else ""
    return ", ".join(printable(word, 120) for word in words[:_LISTED]) + more
