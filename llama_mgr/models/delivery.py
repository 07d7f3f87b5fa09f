"""Files that arrive together: none gets its name before all of them are whole, checked and fit each other.

The order of a delivery: what is there already is told by its side-car, or by its content; files of others are never
touched; the disk must have room for the rest; each file is fetched into its partial, with its sha256, and its header is
read there; then all are renamed, the first one last; then the side-cars are written.
"""

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import msgspec

from llama_mgr.errors import (
    BadGgufError,
    BadInputError,
    ConflictError,
    CorruptStateError,
    NotFoundError,
    RefusedError,
)
from llama_mgr.models.content import Content, hash_of
from llama_mgr.models.disk_space import Space, full_disk, require_room
from llama_mgr.models.gguf import GgufHeader, parse_gguf, read_gguf
from llama_mgr.models.gguf_source import FileSource
from llama_mgr.models.second_copy import second_copy
from llama_mgr.models.shards import require_one_model, require_shard
from llama_mgr.models.shared_bar import Coming, shared_bar
from llama_mgr.models.side_car import (
    RECORD_KIND,
    ModelRecord,
    read_record,
    require_side_car_place,
    side_car_of,
    write_record,
)
from llama_mgr.models.traits import traits_of
from llama_mgr.partial import Partial, held_partial, stepped_aside
from llama_mgr.report import Progress, Reporter
from llama_mgr.store import now_at, read_document, remove_temporaries, storage_errors, sync_dir
from llama_mgr.text import printable, size_words

_Held = list[tuple["Item", Partial]]
_NAME_LIMIT_BYTES = 230  # 255 of the file system, less what the temporary of a side-car adds to the name (`store`)
_KINDS = {
    "adapter": "an adapter (LoRA), which works only together with its model",
    "mmproj": "a projector, which works only together with its model",
    "vocab": "a vocabulary without weights",
    "control-vector": "a control vector, which works only together with its model",
}


@dataclass(frozen=True)
class Item:
    """One GGUF file to have.

    `record` is what its side-car will say; size and sha256 are put in when they were not known before. `fill` fetches
    it: it leaves `content` in the partial, and returns how many bytes came over the network. `known` tells where on
    this disk the content is, too, as far as anybody knows.
    """

    target: Path
    content: Content
    record: ModelRecord
    fill: Callable[[Partial, Progress], int]
    known: Callable[[], Path | None] = lambda: None

    def is_recorded(self) -> bool:
        """Tell whether the file is there, and its side-car says that it is this one."""
        record = read_record(self.target)
        if record is None or not self.target.is_file():
            return False
        same_revision = record.source == self.record.source  # for files whose sha256 nobody told
        is_this = record.sha256 == self.content.sha256 if self.content.sha256 else same_revision
        with storage_errors("cannot read", self.target):
            return is_this and self.target.stat().st_size == record.size_bytes


class Delivery:
    """One model: its file or its shards in order, and what belongs to it.

    Args:
        name: what to call it in messages.
        model: the file, or all shards in order.
        beside: other GGUF files that belong to it (the projector).
        reporter: shows the progress.
        models_dir: where `index prune` looks for what was begun.
    """

    def __init__(
        self, name: str, model: Sequence[Item], beside: Sequence[Item], reporter: Reporter, models_dir: Path
    ) -> None:
        self._name = name
        self._models_dir = models_dir
        self._model = list(model)
        self._items = [*model, *beside]
        self._reporter = reporter

    def is_here(self) -> bool:
        """Tell whether every file is there, as its side-car says; those of a split model tell of one revision."""
        if not all(item.is_recorded() for item in self._items):
            return False
        revisions = {record.revision for item in self._model if (record := read_record(item.target))}
        return len(revisions) == 1

    def deliver(self, *, force: bool = False) -> int:
        """Have all files, and return how many bytes came over the network.

        On disk afterwards: all files with their side-cars. After an error or a kill: what was there before, and
        partials from which the next call goes on; between the renames, a set that lacks its first file, which the next
        call completes without fetching anything.

        Args:
            force: do not ask whether the disk has room.

        Raises:
            ConflictError: a file that came from elsewhere has the name of one of these, or of a side-car.
            NoSpaceError: the disk has no room for all of it, or no longer.
            HashMismatchError: something else than promised arrived, twice.
            BadGgufError: a file is no GGUF.
            IncompleteModelError: the shards do not belong together.
            BadInputError: a file is an adapter, a projector or the like under the name of a model; nothing stays of it.
            RefusedError: a name is so long that its side-car can have none.
            RemoteError: a file cannot be had.
        """
        for item in self._items:
            _require_short_name(item.target)
            require_side_car_place("cannot pull", item.target)
        for directory in {item.target.parent for item in self._items}:
            remove_temporaries(directory)  # a kill may have left a half-written record
        unrecorded = [item for item in self._items if not item.is_recorded()]
        present = {item.target for item in unrecorded if os.path.lexists(item.target)}
        wanted = [item for item in unrecorded if not item.content.is_in(item.target, self._reporter)]
        replaced = {item.target for item in wanted if item.target in present}
        for item in wanted:
            if item.target in replaced:  # what came after that look is another pull's, or is seen before the end
                _require_same_origin(item)
        with _no_empty_directories([item.target for item in wanted]), ExitStack() as stack:
            wanted = [item for item in wanted if not self._is_taken(item)]
            if not force:
                require_room("pull", self._name, [_space(item) for item in wanted])
            held = [(item, stack.enter_context(held_partial(item.target, item.content.digest))) for item in wanted]
            if not force:
                self._reserve(held)
            fetched_bytes = self._fill(held)
            self._publish(held, replaced)
        for item in reversed(self._items):
            if item in unrecorded:
                self._record(item)
            elif item in self._model:
                _renew_record(item)
        return fetched_bytes

    def _fill(self, held: _Held) -> int:
        headers: dict[Path, GgufHeader] = {}
        coming = [Coming(item.target.name, item.content.size_bytes, partial.size_bytes()) for item, partial in held]
        present_bytes, fetched_bytes = sum(one.present_bytes for one in coming), 0
        if present_bytes:
            self._reporter.note(f"going on with {size_words(present_bytes)} that came before")
        with shared_bar(f"pull {printable(self._name)}", coming, self._reporter) as shares:
            for (item, partial), share in zip(held, shares, strict=True):
                with full_disk(item.target, self._unpruned(partial)):
                    fetched_bytes += item.fill(partial, share)
                    partial.flush()
                headers[item.target] = self._checked(item, partial)
        if held:
            whole = [headers.get(item.target) or read_gguf(item.target) for item in self._model]
            require_one_model(self._name, [item.target.name for item in self._model], whole)
        return fetched_bytes

    def _checked(self, item: Item, partial: Partial) -> GgufHeader:
        """Return the header of a file that came; a wrong shard is found before the next one is fetched."""
        try:
            return self._header_in(partial.path, item)
        except (BadGgufError, BadInputError):
            partial.discard()
            raise

    def _header_in(self, path: Path, item: Item) -> GgufHeader:
        """Return the header of the file `path`, which shall become `item`."""
        with FileSource(path) as source:
            header = parse_gguf(source, item.target.name)
        if item in self._model:
            number = self._model.index(item) + 1
            require_shard(self._name, item.target.name, number, len(self._model), header)
            _require_model(item, header)
        return header

    def _is_taken(self, item: Item) -> bool:
        """Have a model of one file from another place on this disk, and tell whether that worked."""
        if [item] != self._model or os.path.lexists(item.target):
            return False
        source = item.known()
        if source is None:
            return False
        check = functools.partial(self._header_in, item=item)
        if not second_copy(source, item.target, item.content, check, self._reporter):
            return False
        with held_partial(item.target, item.content.digest):
            self._reporter.note(f"taken from {printable(source)} instead of the network")
        return True  # what had come before is no longer needed, and gone

    def _reserve(self, held: _Held) -> None:
        for item, partial in held:
            with full_disk(item.target, self._unpruned(partial)):
                partial.reserve(item.content.size_bytes)

    def _unpruned(self, partial: Partial) -> Path | None:
        return None if partial.path.is_relative_to(self._models_dir) else partial.path

    def _publish(self, held: _Held, replaced: set[Path]) -> None:
        """Rename all, the first shard last. In an update it has no name meanwhile: old and new shards are no model.

        Where locks do nothing, others may be at it, too, and no name is taken away. The records of what is replaced
        step aside first, so that no record ever stands beside another content than its own. Hours may have passed:
        what has one of the names now is looked at once more.
        """
        first, targets = self._model[0], [item.target for item, _ in held]
        is_update = any(item.target in replaced for item in self._model)
        breaks = is_update and len(self._model) > 1 and all(partial.is_shared for _, partial in held)
        for item, _ in held:
            require_side_car_place("cannot pull", item.target)
            self._require_still_ours(item)
        with ExitStack() as stack, storage_errors("cannot replace", first.target):
            for target in targets:
                with suppress(FileNotFoundError):
                    side_car_of(target).rename(_superseded_of(target))
            if breaks and first.target in targets:
                first.target.unlink(missing_ok=True)
                sync_dir(first.target.parent)
                replaced = replaced - {first.target}
            elif breaks:
                stack.enter_context(_aside(first))
            for item, partial in reversed(held):
                if not partial.publish(replace=item.target in replaced):
                    self._require_still_ours(item)  # where locks do nothing, another pull may have been faster
                    partial.publish()

    def _require_still_ours(self, item: Item) -> None:
        try:
            _require_same_origin(item)
        except ConflictError:
            if not item.content.is_in(item.target, self._reporter):
                raise

    def _record(self, item: Item) -> None:
        sha256 = item.content.sha256 or hash_of(item.target, self._reporter)
        with storage_errors("cannot read", item.target):
            size_bytes = item.content.size_bytes or item.target.stat().st_size
            _superseded_of(item.target).unlink(missing_ok=True)
        facts = {"sha256": sha256, "size_bytes": size_bytes, "downloaded_at": now_at()}
        write_record(item.target, msgspec.structs.replace(item.record, **facts))


def _require_short_name(target: Path) -> None:
    if len(os.fsencode(target.name)) > _NAME_LIMIT_BYTES:
        why = f"it has more than {_NAME_LIMIT_BYTES} bytes, and its record needs a longer name"
        raise RefusedError("cannot use the file name", target.name, why)


def _require_model(item: Item, header: GgufHeader) -> None:
    """Refuse what can never be served by itself; who names it so is wrong."""
    kind = traits_of(header, item.target.name).kind
    if kind != "model":
        raise BadInputError(
            "cannot pull as a model", item.target.name, f"it is {_KINDS.get(kind, f'of the kind {kind}')}",
            hint="name another file or quant",
        )  # fmt: skip


def _renew_record(item: Item) -> None:
    """Let the record of a file that stays as it is tell of the revision that the others have now."""
    found, now = read_record(item.target), item.record
    if found is not None and found.source != now.source:
        facts = {"source": now.source, "origin": now.origin, "repo": now.repo, "revision": now.revision}
        write_record(item.target, msgspec.structs.replace(found, **facts, file=now.file))


def _space(item: Item) -> Space:
    return Space(item.target, item.content.digest, item.content.size_bytes)


@contextmanager
def _no_empty_directories(targets: Sequence[Path]) -> Iterator[None]:
    """Remove the directories that the body makes for `targets` if it fails and leaves nothing in them."""
    missing = {place for target in targets for place in target.parents if not place.exists()}
    try:
        yield
    except BaseException:
        for place in sorted(missing, reverse=True):  # the inner ones first
            with suppress(OSError):
                place.rmdir()
        raise


def _require_same_origin(item: Item) -> None:
    """Refuse to replace a file that did not come from where this one comes from."""
    if not os.path.lexists(item.target):
        return
    found = read_record(item.target) or _superseded_record(item.target)
    if found is None or _origin_of(found) != _origin_of(item.record):
        raise ConflictError(
            "cannot replace", item.target, f"it did not come from {printable(_origin_of(item.record))}",
            hint="move it away, or pull to another place with --dir DIR",
        )  # fmt: skip


@contextmanager
def _aside(first: Item) -> Iterator[None]:
    """Let a first shard that stays as it is have no name, and no record, while the body replaces others."""
    record, hidden = side_car_of(first.target), _superseded_of(first.target)
    with suppress(FileNotFoundError):
        record.rename(hidden)
    with stepped_aside(first.target, first.content.digest):
        yield
    with suppress(FileNotFoundError):
        hidden.rename(record)


def _superseded_of(target: Path) -> Path:
    """Return where the record of the file that is being replaced lies: it tells whose it is, and no more."""
    return target.with_name(f".{target.name}.json.old")


def _superseded_record(target: Path) -> ModelRecord | None:
    try:
        return read_document(_superseded_of(target), RECORD_KIND, ModelRecord)
    except (NotFoundError, CorruptStateError):
        return None


def _origin_of(record: ModelRecord) -> str:
    """Return where a file comes from, whatever its revision; records of older versions have only `source`."""
    kind, _, rest = record.source.partition(":")
    return record.source if kind.startswith("http") else f"{kind}:{rest.partition('@')[0].partition('==')[0]}"
