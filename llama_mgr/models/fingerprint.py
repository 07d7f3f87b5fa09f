"""Which models have the same content, told without reading whole files.

Equal sha256, where side-cars or caches say one; else one inode; else equal sizes, headers and samples of the weights.
Only models of equal size are looked at, so that most disks need no reading at all.
"""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from llama_mgr.models.grouping import Group
from llama_mgr.models.headers import Headers
from llama_mgr.models.model import Model

_BLOCKS = 64
_BLOCK_BYTES = 4096
_CHUNK_BYTES = 1024 * 1024


def without_duplicates(groups: Sequence[Group], headers: Headers) -> tuple[list[Model], list[Model]]:
    """Return (models that differ in content, models whose content one of those has, too), in the order of `groups`.

    Of equal ones the first among our own is kept, else the first of all; the paths of the others are its `copies`, and
    the projector of one is its own where it lacks one.
    """
    by_size: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for number, group in enumerate(groups):
        by_size[tuple(found.status.size_bytes for found in group.found)].append(number)
    kept: dict[int, Model] = {}
    duplicates: dict[int, Model] = {}
    for numbers in by_size.values():
        for equal in _equal(numbers, groups, headers) if len(numbers) > 1 else [numbers]:
            first, *others = sorted(equal, key=lambda number: not groups[number].model.root.is_own)
            model = groups[first].model
            paths = dict.fromkeys(groups[number].model.files[0] for number in others)
            copies = tuple(path for path in paths if path != model.files[0])
            kept[first] = _seeing(
                replace(model, copies=copies) if copies else model, [groups[one].model for one in others]
            )
            duplicates |= {number: groups[number].model for number in others}
    return [kept[number] for number in sorted(kept)], [duplicates[number] for number in sorted(duplicates)]


def _seeing(model: Model, others: Sequence[Model]) -> Model:
    """Return `model` with the projector of one of its equals, if it has none."""
    other = next((one for one in others if one.projector is not None), None)
    if model.projector is not None or other is None or other.projector is None:
        return model
    return replace(
        model, projector=other.projector, projector_bytes=other.projector_bytes, senses=other.senses,
        sha256s=(*model.sha256s, other.sha256_of(other.projector)),
    )  # fmt: skip


def sample_of(path: str, data_offset: int) -> str:
    """Return a fingerprint of the file `path`: its header, and 64 blocks of 4 KiB spread over its weights.

    Raises:
        OSError: it cannot be read.
    """
    import hashlib  # noqa: PLC0415 (most lists need no sample)

    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        size_bytes = os.fstat(descriptor).st_size
        digest = hashlib.sha256(f"{size_bytes} {data_offset}".encode())
        for start in range(0, data_offset, _CHUNK_BYTES):
            digest.update(os.pread(descriptor, min(_CHUNK_BYTES, data_offset - start), start))
        last = max(size_bytes - _BLOCK_BYTES, data_offset)
        for number in range(_BLOCKS):
            digest.update(
                os.pread(descriptor, _BLOCK_BYTES, data_offset + (last - data_offset) * number // (_BLOCKS - 1))
            )
    finally:
        os.close(descriptor)
    return digest.hexdigest()


def _equal(numbers: Sequence[int], groups: Sequence[Group], headers: Headers) -> list[list[int]]:
    """Return the numbers of groups of equal sizes in classes of equal content."""
    classes = _Classes()
    with_sha256 = [number for number in numbers if groups[number].sha256s]
    for number in with_sha256:
        group = groups[number]
        sample = _sample(group, headers) if len(with_sha256) < len(numbers) else ()
        classes.add(number, [("sha256", *group.sha256s)], [_inodes(group), sample])
    for number in numbers:
        group = groups[number]
        if not group.sha256s:
            place = classes.place_of(_inodes(group))
            sample = _sample(group, headers) if place is None else ()
            classes.add(number, [_inodes(group), sample], [])
    return classes.all


class _Classes:
    """Numbers in classes; marks tell which class a number belongs to."""

    def __init__(self) -> None:
        self.all: list[list[int]] = []
        self._places: dict[tuple[str, ...], int] = {}

    def place_of(self, mark: tuple[str, ...]) -> int | None:
        return self._places.get(mark)

    def add(self, number: int, marks: Sequence[tuple[str, ...]], later: Sequence[tuple[str, ...]]) -> None:
        """Add `number` to the class that one of `marks` belongs to, or a new one; `later` decide only for others."""
        known = [self._places[mark] for mark in marks if mark in self._places]
        place = known[0] if known else len(self.all)
        if not known:
            self.all.append([])
        self.all[place].append(number)
        for mark in (*marks, *later):
            if mark:
                self._places.setdefault(mark, place)


def _inodes(group: Group) -> tuple[str, ...]:
    return ("inode", *(f"{found.status.device}:{found.status.inode}" for found in group.found))


def _sample(group: Group, headers: Headers) -> tuple[str, ...]:
    """Return the fingerprints of its files; empty when one cannot be read."""
    samples = []
    for found, data_offset in zip(group.found, group.data_offsets, strict=True):
        sample = headers.sample(found)
        if not sample:
            try:
                sample = sample_of(found.path, data_offset)
            except OSError:
                return ()
            headers.note_sample(found, sample)
        samples.append(sample)
    return ("sample", *samples)
