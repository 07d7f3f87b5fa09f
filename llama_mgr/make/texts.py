"""Texts that models are measured with: our own two, or the user's."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from llama_mgr.errors import BadInputError, NotFoundError
from llama_mgr.models.naming import name_part
from llama_mgr.store import read_bounded, storage_errors

_LIMIT_BYTES = 256 * 1024 * 1024
_FILES_LIMIT = 10_000


@dataclass(frozen=True)
class Text:
    """A text: what it is called, and its UTF-8 bytes."""

    name: str
    """A file name without a directory, for headers and records."""
    content: bytes

    @property
    def sha256(self) -> str:
        """Of the content."""
        return hashlib.sha256(self.content).hexdigest()


def calibration_text() -> Text:
    """Return the text that comes with llama-mgr for importance matrices: prose, dialogue, code, many languages."""
    return _shipped("calibration")


def evaluation_text() -> Text:
    """Return the text that comes with llama-mgr for measuring: it has nothing in common with the other one."""
    return _shipped("evaluation")


def _shipped(name: str) -> Text:
    file = Path(__file__).with_name(f"{name}.txt")
    return Text(f"llama-mgr-{name}.txt", read_bounded(file, _LIMIT_BYTES))


def text_at(path: Path) -> Text:
    """Return the text of a file, or of all `*.txt` and `*.md` files of a folder, one after the other by name.

    Raises:
        NotFoundError: there is nothing, or no text in the folder.
        BadInputError: it is not UTF-8, or empty.
        StorageError: it cannot be read, or is larger than 256 MiB.
    """
    files = [path]
    if path.is_dir():
        with storage_errors("cannot read", path):
            found = [one for one in sorted(path.rglob("*")) if one.suffix in {".txt", ".md"} and one.is_file()]
        files = found[:_FILES_LIMIT]
        if not files:
            raise NotFoundError("cannot find a text in", path, "it has no .txt and no .md file")
    content = b"\n".join(read_bounded(file, _LIMIT_BYTES) for file in files)
    try:
        words = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadInputError("cannot use as a text", path, f"it is not UTF-8 (byte {error.start} is not)") from error
    if not words.strip() or "\0" in words:
        raise BadInputError("cannot use as a text", path, "it is empty" if not words.strip() else "it has NUL bytes")
    return Text(f"{name_part(path.stem)}.txt", content)
