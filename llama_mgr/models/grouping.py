"""From files to models: shards belong together, projectors belong to models, and the rest is broken or no model."""

import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_mgr.errors import IncompleteModelError
from llama_mgr.models.headers import Facts, Headers
from llama_mgr.models.model import Broken, Model, senses_of
from llama_mgr.models.naming import model_part
from llama_mgr.models.quants import shard_of
from llama_mgr.models.side_car import ModelRecord
from llama_mgr.models.traits import Split, Traits, merged
from llama_mgr.models.walk import Found, Scan
from llama_mgr.text import printable

_PROJECTOR = "mmproj"
_SHOWN_SHARDS = 3
_LAST_SECOND = 253402300799  # of the year 9999: file systems have stranger times


@dataclass(frozen=True)
class Group:
    """A model with the files that it was made of."""

    model: Model
    found: tuple[Found, ...]
    data_offsets: tuple[int, ...]
    sha256s: tuple[str, ...]
    """Of each file, where side-cars or the cache that they lie in say them; else empty."""


@dataclass(frozen=True)
class _Member:
    found: Found
    facts: Facts
    record: ModelRecord | None

    @property
    def file_name(self) -> str:
        return self.found.path.rpartition("/")[2]

    @property
    def directory(self) -> str:
        return self.found.path.rpartition("/")[0]


def grouped(scan: Scan, headers: Headers) -> tuple[list[Group], list[Broken]]:
    """Return the models below a root, and what should be a model and is none. Files of other kinds are left out."""
    broken = [Broken(Path(path), why, scan.root, (Path(path),)) for path, why in scan.broken]
    models: list[_Member] = []
    projectors: list[_Member] = []
    sets: dict[tuple[str, int], list[_Member]] = defaultdict(list)
    for found in scan.found:
        member = _Member(found, headers.facts(found), headers.record(found))
        shard = shard_of(member.file_name)
        if _is_projector(member.facts):
            projectors.append(member)
        elif shard is not None and (shard[2] > 1 or _is_split(member)):
            sets[f"{member.directory}/{shard[0]}", shard[2]].append(member)
        elif member.facts.is_servable:
            models.append(member)
    beside = _Projectors(projectors, [*models, *(one for members in sets.values() for one in members)], headers)
    groups = []
    for members in [[one] for one in models] + [sorted(one, key=_number) for one in sets.values()]:
        made = _made(scan, members, beside)
        if isinstance(made, Group):
            groups.append(made)
        elif made is not None:
            broken.append(made)
    broken += [_broken(scan, [one], why, one) for one in projectors if (why := _size_complaint(one))]
    for found in scan.found:
        stored = found.projector
        if stored is not None and not _is_projector(headers.facts(stored)):
            why = headers.facts(stored).trouble or "it should be a projector, and is none"
            broken.append(Broken(Path(stored.path), why, scan.root, (Path(stored.path),)))
    return groups, list(dict.fromkeys(broken))


def single(scan: Scan, path: str, headers: Headers) -> Group:
    """Return one file as if it were a model, whatever it is; its header must be whole."""
    (found,) = [one for one in scan.found if one.path == path]
    if found.name.endswith("/"):  # a projector that names no model
        found.name += model_part(found.path.rpartition("/")[2])
    member = _Member(found, headers.facts(found), headers.record(found))
    return _group(scan, [member], _Projectors([], [], headers))


def _made(scan: Scan, members: Sequence[_Member], projectors: "_Projectors") -> Group | Broken | None:
    """Return the model that the files are, or what is wrong with them; None for other kinds of files."""
    first = members[0]
    if first.facts.traits is not None and not first.facts.is_servable:
        return None  # a split adapter, say
    why, at_fault = _complaint(members)
    if why:
        return _broken(scan, members, why, at_fault)
    try:
        return _group(scan, members, projectors)
    except IncompleteModelError as error:
        return _broken(scan, members, error.message, first)


def _broken(scan: Scan, members: Sequence[_Member], why: str, at_fault: _Member) -> Broken:
    return Broken(Path(at_fault.found.path), why, scan.root, tuple(Path(one.found.path) for one in members))


# -- what is wrong -----------------------------------------------------------------------------------------------------


def _complaint(members: Sequence[_Member]) -> tuple[str, _Member]:
    """Return why the files are no model, and which of them is to blame; an empty reason when they are one."""
    shard = shard_of(members[0].file_name)
    count = shard[2] if shard is not None else 1
    for member in members:
        label = f"shard {_number(member)} of {count}: " if count > 1 else ""
        if member.facts.traits is None:
            return label + member.facts.trouble, member
        if why := _size_complaint(member):
            return label + why, member
    if shard is not None and (count > 1 or _is_split(members[0])):
        return _missing(members, shard[0], count) or next(_contradictions(members, count), ("", members[0]))
    split = _split_of(members[0])
    if split is not None and split.count > 1:
        stem = members[0].file_name.removesuffix(".gguf")
        name = f"{stem}-{split.number + 1:05d}-of-{split.count:05d}.gguf"
        why = f"it is shard {split.number + 1} of {split.count}, and is not named so; the form is {printable(name)}"
        return why, members[0]
    return "", members[0]


def _missing(members: Sequence[_Member], stem: str, count: int) -> tuple[str, _Member] | None:
    there = {_number(member) for member in members}
    missing = [number for number in range(1, count + 1) if number not in there]
    if not missing:
        return None
    names = ", ".join(f"{stem}-{number:05d}-of-{count:05d}.gguf" for number in missing[:_SHOWN_SHARDS])
    words = f"shard {missing[0]} of {count} is" if len(missing) == 1 else f"{len(missing)} of {count} shards are"
    more = ", …" if len(missing) > _SHOWN_SHARDS else ""
    return f"{words} missing: {printable(names, 400)}{more}", members[0]


def _contradictions(members: Sequence[_Member], count: int) -> Iterator[tuple[str, _Member]]:
    """Yield where shards of the right names do not belong together, as llama.cpp checks it when it loads them."""
    first = members[0]
    whole = _split_of(first)
    for member in members:
        split = _split_of(member)
        label = f"shard {_number(member)} of {count}"
        if _number(member) > count:
            yield f"it is named {label}", member
        elif split is None or whole is None:
            yield f"{label} is a whole model by its header", member
        elif (split.number + 1, split.count) != (_number(member), count):
            yield f"{label} is number {split.number + 1} of {split.count} by its header", member
        elif split.tensors != whole.tensors:
            yield f"{label} belongs to a model of {split.tensors} tensors, and shard 1 to another", member
        if _revision(member) and _revision(first) and _revision(member) != _revision(first):
            yield f"{label} is of revision {_revision(member)}, and shard 1 of {_revision(first)}", member
    tensors = sum(_tensors(member) for member in members)
    if whole is not None and whole.tensors and tensors != whole.tensors:
        yield f"its shards have {tensors} tensors together, and {whole.tensors} are promised", first


def _size_complaint(member: _Member) -> str:
    record, size_bytes = member.record, member.found.status.size_bytes
    if record is None or record.size_bytes == size_bytes:
        return ""
    return f"it has {size_bytes:,} bytes, and its side-car says {record.size_bytes:,}"


def _is_split(member: _Member) -> bool:
    return _split_of(member) is not None


def _split_of(member: _Member) -> Split | None:
    return member.facts.traits.split if member.facts.traits is not None else None


def _number(member: _Member) -> int:
    shard = shard_of(member.file_name)
    return shard[1] if shard is not None else 0


def _tensors(member: _Member) -> int:
    return sum(one.tensors for one in member.facts.traits.types.values()) if member.facts.traits is not None else 0


def _revision(member: _Member) -> str:
    record = member.record
    return printable(f"{record.repo}@{(record.revision or '')[:12]}") if record is not None and record.revision else ""


# -- models ------------------------------------------------------------------------------------------------------------


def _group(scan: Scan, members: Sequence[_Member], projectors: "_Projectors") -> Group:
    first = members[0].found
    traits = _traits(members)
    projector = projectors.of(members[0])
    sha256s = tuple(_sha256(one) for one in members)
    model = Model(
        name=first.name,
        quant=traits.quant,
        files=tuple(Path(one.found.path) for one in members),
        projector=Path(projector.found.path) if projector is not None else None,
        traits=traits,
        size_bytes=sum(one.found.status.size_bytes for one in members),
        modified_at=_time_words(max(one.found.status.mtime_ns for one in members)),
        root=scan.root,
        record=members[0].record,
        projector_bytes=projector.found.status.size_bytes if projector is not None else 0,
        senses=senses_of(projector.facts.traits) if projector is not None else (),
        place=first.path.removeprefix(f"{first.repo_dir}/"),
        sha256s=(*sha256s, *([_sha256(projector)] if projector is not None else [])),
    )
    data_offsets = tuple(one.facts.data_offset for one in members)
    return Group(model, tuple(one.found for one in members), data_offsets, sha256s if all(sha256s) else ())


def _traits(members: Sequence[_Member]) -> Traits:
    all_traits = [one.facts.traits for one in members if one.facts.traits is not None]
    return all_traits[0] if len(members) == 1 else merged(all_traits)


def _time_words(mtime_ns: int) -> str:
    seconds = min(max(mtime_ns // 1_000_000_000, 0), _LAST_SECOND)
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _sha256(member: _Member) -> str:
    return member.record.sha256 if member.record is not None else member.found.sha256


def _is_projector(facts: Facts) -> bool:
    return facts.traits is not None and facts.traits.kind == _PROJECTOR


class _Projectors:
    """The projectors below a root, by the repository that they belong to."""

    def __init__(self, projectors: Iterable[_Member], models: Iterable[_Member], headers: Headers) -> None:
        self._headers = headers
        self._by_repository: dict[str, list[_Member]] = defaultdict(list)
        for one in projectors:
            if one.facts.traits is not None and not _size_complaint(one):
                self._by_repository[one.found.repo_dir].append(one)
        self._names: dict[str, set[str]] = defaultdict(set)
        if self._by_repository:
            for one in models:
                self._names[one.found.repo_dir].add(one.found.name)

    def of(self, model: _Member) -> _Member | None:
        """Return the best projector for `model`, or None."""
        stored = model.found.projector
        if stored is not None:
            facts = self._headers.facts(stored)
            return _Member(stored, facts, None) if _is_projector(facts) else None
        repo_dir = model.found.repo_dir
        fitting = [one for one in self._by_repository.get(repo_dir, ()) if self._may_belong(one, model)]
        if not fitting:
            return None
        from llama_mgr.models.hub import HubFile  # noqa: PLC0415 (the hub's client is not needed for most lists)
        from llama_mgr.models.quants import projectors  # noqa: PLC0415

        def file_of(one: _Member) -> HubFile:
            return HubFile("", os.path.relpath(one.found.path, repo_dir), "", "", one.found.status.size_bytes)

        by_name = {file_of(one).name: one for one in fitting}
        best = projectors([file_of(one) for one in fitting], file_of(model).name)
        return by_name[best[0].name] if best else None

    def _may_belong(self, projector: _Member, model: _Member) -> bool:
        """Tell whether they are of one model; where many models lie in one directory, by their names."""
        if model.found.is_in_repository or projector.found.name == model.found.name:
            return True
        is_nameless = projector.found.name.endswith("/")
        return is_nameless and len(self._names[model.found.repo_dir]) == 1
