"""What the headers and side-cars of many files say: from the index where the file is unchanged, else read now."""

import os
import zlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import msgspec

from llama_mgr import __version__
from llama_mgr.errors import BadGgufError, LlamaMgrError
from llama_mgr.models.gguf import read_gguf
from llama_mgr.models.gguf_source import WHAT
from llama_mgr.models.gguf_vocabulary import Vocabularies
from llama_mgr.models.index_file import IndexFile, Row
from llama_mgr.models.quants import SUFFIX, is_model
from llama_mgr.models.side_car import ModelRecord, read_record
from llama_mgr.models.traits import Traits, traits_of
from llama_mgr.models.walk import Found, Status
from llama_mgr.paths import Home
from llama_mgr.report import Reporter
from llama_mgr.text import printable

_SHOWN_FROM = 20  # fewer files are read before a bar could be seen


class Facts(msgspec.Struct, frozen=True, gc=False):
    """What the header of a file says, or why it has none."""

    traits: Traits | None = None
    trouble: str = ""
    is_servable: bool = True
    """Whether it is a model or a shard of one, as far as its header and its name tell."""
    data_offset: int = 0
    """Where its weights begin."""


_DECODED = msgspec.json.Decoder(Facts).decode
_RECORD = msgspec.json.Decoder(ModelRecord).decode
_ENCODED = msgspec.json.Encoder().encode


def table_name() -> str:
    """Return the name of the table of what this version notes: another version may understand headers otherwise."""
    form = "\n".join((__version__, *Facts.__struct_fields__, *Traits.__struct_fields__, *ModelRecord.__struct_fields__))
    return f"files_{zlib.crc32(form.encode()):08x}"


class Headers:
    """What is known of files. `read` them first; then ask.

    Args:
        home: where the index lies.
        reporter: shows the reading of many files, and hears of trouble with the index.
    """

    def __init__(self, home: Home, reporter: Reporter) -> None:
        self._reporter = reporter
        self._index = IndexFile(home, table_name(), reporter)
        self._vocabularies = Vocabularies()
        self._facts: dict[str, Facts] = {}
        self._changed: dict[bytes, Row] = {}
        self._seen: set[bytes] = set()

    # -- asking --------------------------------------------------------------------------------------------------------

    def facts(self, found: Found) -> Facts:
        """Return what the header of `found` says."""
        if found.path not in self._facts:
            self._facts[found.path] = self._remembered(found) or self._facts_now(found)
        return self._facts[found.path]

    def record(self, found: Found) -> ModelRecord | None:
        """Return the side-car of `found`; None when it has none that can be read."""
        if found.side_car is None:
            return None
        key = os.fsencode(found.path)
        row = self._row(key)
        if row is None or row.side_car_stamp != found.side_car.stamp:
            return self._record_now(found, found.side_car.stamp)
        return _RECORD(row.side_car) if row.side_car else None

    def sample(self, found: Found) -> str:
        """Return the fingerprint of the content that was noted, or empty when none was."""
        row = self._row(os.fsencode(found.path))
        return row.sample if row is not None and row.stamp == found.status.stamp else ""

    def note_sample(self, found: Found, sample: str) -> None:
        """Note the fingerprint of the content."""
        row = self._row(os.fsencode(found.path))
        if row is not None and row.stamp == found.status.stamp:
            self._note(row._replace(sample=sample))

    def knows(self, found: Found) -> bool:
        """Tell whether the index knows `found` as it is now."""
        return self._remembered(found) is not None

    # -- filling -------------------------------------------------------------------------------------------------------

    def read(self, files: Sequence[Found]) -> None:
        """Read what is new or changed among `files`."""
        self._seen |= {os.fsencode(found.path) for found in files}
        unknown = [found for found in files if self._remembered(found) is None]
        if len(unknown) < _SHOWN_FROM:
            for found in unknown:
                self.facts(found)
            return
        with self._reporter.progress("read headers", len(unknown), "objects") as bar:
            for number, found in enumerate(unknown, 1):
                self.facts(found)
                bar.update(number, len(unknown), os.path.basename(found.path))  # noqa: PTH119

    def save(self, away: Iterable[str]) -> None:
        """Write what is new to the index; forget all files that were not read, except below the directories `away`."""
        places = tuple(os.fsencode(f"{directory.rstrip('/')}/") for directory in away)
        gone = [path for path in self._rows if path not in self._seen and not path.startswith(places)]
        self._index.update(self._changed.values(), gone)
        self._changed = {}

    def forget(self) -> None:
        """Delete the index.

        Raises:
            StorageError: it cannot be deleted.
        """
        self._index.delete()
        self._rows, self._facts, self._changed = {}, {}, {}

    @cached_property
    def _rows(self) -> dict[bytes, Row]:
        return self._index.rows()

    def _row(self, key: bytes) -> Row | None:
        return self._rows.get(key)

    def _note(self, row: Row) -> None:
        self._rows[row.path] = self._changed[row.path] = row

    def _remembered(self, found: Found) -> Facts | None:
        if found.path in self._facts:
            return self._facts[found.path]
        row = self._row(os.fsencode(found.path))
        if row is None or row.stamp != found.status.stamp:
            return None
        try:
            facts = _DECODED(row.facts)
        except msgspec.MsgspecError:  # another form under the same name: read again
            return None
        self._facts[found.path] = facts
        return facts

    def _facts_now(self, found: Found) -> Facts:
        path = Path(found.path)
        try:
            header = read_gguf(path, self._vocabularies)
            traits = traits_of(header, path.name)
            facts = Facts(traits, is_servable=_is_servable(traits, path.name), data_offset=header.data_offset)
        except BadGgufError as error:
            facts = Facts(trouble=_why(error, path))
        except LlamaMgrError as error:  # of the disk, not of the file: asked again next time
            return Facts(trouble=_why(error, path))
        else:
            if header.stamp is not None:  # it may have been replaced since it was found
                stamp = header.stamp
                found.status = Status(stamp.size_bytes, stamp.mtime_ns, stamp.inode, stamp.device)
        key = os.fsencode(found.path)
        old = self._row(key)
        side_car = (old.side_car_stamp, old.side_car) if old is not None else ("", b"")
        self._note(Row(key, found.status.stamp, _ENCODED(facts), "", *side_car))
        return facts

    def _record_now(self, found: Found, stamp: str) -> ModelRecord | None:
        try:
            record = read_record(Path(found.path))
        except LlamaMgrError as error:
            self._reporter.warn(f"nothing is known of where {found.path} came from: {error.message}")
            return None
        row = self._row(os.fsencode(found.path))
        if row is not None:
            encoded = _ENCODED(record) if record is not None else b""
            self._note(row._replace(side_car_stamp=stamp, side_car=encoded))
        return record


def _is_servable(traits: Traits, file_name: str) -> bool:
    # Drafts for speculative decoding say of themselves that they are models; only their names tell them apart.
    return traits.kind == "model" and (is_model(file_name) or not file_name.endswith(SUFFIX))


def _why(error: LlamaMgrError, path: Path) -> str:
    """Return the reason alone; who shows it shows the path, too."""
    return error.message.removeprefix(f"{WHAT} '{printable(path)}': ")
