"""The next-token distributions of a base model over a text: large files, computed once, the oldest of them removed."""

import hashlib
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from llama_mgr.errors import BusyError, StorageError
from llama_mgr.locks import held_lock
from llama_mgr.make.room import require_room
from llama_mgr.make.texts import Text
from llama_mgr.make.workshop import Workshop
from llama_mgr.store import storage_errors

_KEPT_BYTES = 8 * 1024**3
_QUIET_S = 3600.0  # llama-perplexity writes to it after every chunk
# `perplexity` and `process_logits` of tools/perplexity/perplexity.cpp (b11434): mark, context, vocabulary, chunks, then
# all tokens, and for each token of the second half of a chunk two floats and 16 bits for each of the vocabulary.
_HEAD = struct.Struct("<8sIii")
_MARK = b"_logits_"
_LEAST_BYTES_PER_TOKEN = 3  # of text; most tokenizers need fewer tokens for it


@dataclass(frozen=True)
class Logits:
    """The file of one base, text and build, below `home.cache_dir`."""

    workshop: Workshop
    base_sha256: str
    text: Text
    context_tokens: int
    chunks: int

    @property
    def file(self) -> Path:
        """Where it lies, or would lie."""
        facts = (self.workshop.build.digest, self.base_sha256, self.text.sha256, self.context_tokens, self.chunks)
        key = hashlib.sha256(repr(facts).encode()).hexdigest()[:32]
        return self.workshop.home.cache_dir / "logits" / f"{key}.kld"

    @contextmanager
    def held(self, vocabulary: int) -> Iterator[Path]:
        """Lend the file, which the body makes if it is not there; others that want it wait.

        Raises:
            NoSpaceError: it is not there, and would not fit.
        """
        home, file = self.workshop.home, self.file
        with held_lock(home, f"logits-{file.stem}", "measure a base model", self.workshop.reporter):
            with storage_errors("cannot make", file.parent):
                file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if file.exists():
                with suppress(OSError):
                    file.touch()
            else:
                self._make_room(vocabulary)
            yield file

    def _make_room(self, vocabulary: int) -> None:
        self.file.with_suffix(".part").unlink(missing_ok=True)
        for part in self.file.parent.glob("*.part"):
            self._remove_if_left(part)
        needed_bytes = self.size_bytes(vocabulary)
        kept = sorted(self.file.parent.glob("*.kld"), key=lambda one: one.stat().st_mtime)
        while kept and sum(one.stat().st_size for one in kept) + needed_bytes > _KEPT_BYTES:
            kept.pop(0).unlink(missing_ok=True)
        require_room("keep the distributions of", self.text.name, self.file.parent, needed_bytes)

    def _remove_if_left(self, part: Path) -> None:
        """Remove what a killed run left; where locks do nothing, who writes to it is known by the time of it."""
        home, reporter = self.workshop.home, self.workshop.reporter
        with (
            suppress(BusyError, StorageError, OSError),
            held_lock(home, f"logits-{part.stem}", "remove what was left", reporter, timeout_s=0),
        ):
            if time.time() - part.stat().st_mtime > _QUIET_S:
                part.unlink()

    @staticmethod
    def is_whole(file: Path) -> bool:
        """Tell whether `file` is as long as its beginning says: llama-perplexity does not notice a full disk."""
        with storage_errors("cannot read", file), file.open("rb") as content:
            beginning = content.read(_HEAD.size)
            size_bytes = file.stat().st_size
        if len(beginning) < _HEAD.size:
            return False
        mark, context, vocabulary, chunks = _HEAD.unpack(beginning)
        row_bytes = 2 * (2 * ((vocabulary + 1) // 2) + 4)
        rows = chunks * (context - 1 - context // 2)
        return bool(mark == _MARK and size_bytes >= _HEAD.size + 4 * chunks * context + rows * row_bytes)

    def size_bytes(self, vocabulary: int) -> int:
        """Return about how large it is: 16 bits for each token of the vocabulary, for half of the text's tokens."""
        chunks = len(self.text.content) // _LEAST_BYTES_PER_TOKEN // self.context_tokens + 1
        if self.chunks:
            chunks = min(chunks, self.chunks)
        return chunks * (self.context_tokens // 2) * (vocabulary + 4) * 2
