"""JSON that came with a checkpoint: read within bounds, and by the parser that its readers use."""

import json
from pathlib import Path
from typing import Any

from llama_mgr.errors import BadCheckpointError, NotFoundError, StorageError
from llama_mgr.store import read_bounded
from llama_mgr.text import printable, size_words

_LIMIT_BYTES = 16 * 1024 * 1024


def read_json(file: Path) -> dict[str, Any]:
    """Return the JSON object in `file`.

    Raises:
        BadCheckpointError: it is missing, larger than 16 MiB, not JSON or not an object.
        StorageError: it cannot be read.
    """
    document = read_any_json(file)
    if not isinstance(document, dict):
        raise _unusable(file, f"{file.name} is not a JSON object")
    return document


def read_any_json(file: Path) -> Any:  # noqa: ANN401 (any JSON)
    """Return what is in `file`; `NaN` and `Infinity` are allowed, as transformers reads and writes them.

    Raises: as `read_json`, but for the object.
    """
    content = read_part(file, _LIMIT_BYTES)
    try:
        return json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise _unusable(file, f"{file.name} is not JSON ({printable(error, 80)})") from None


def read_part(file: Path, limit_bytes: int) -> bytes:
    """Return the content of a file that a checkpoint must have.

    Raises:
        BadCheckpointError: it is missing, or larger than `limit_bytes`.
        StorageError: it is no regular file, or cannot be read.
    """
    try:
        if file.stat().st_size > limit_bytes:
            raise _unusable(file, f"{file.name} is larger than {size_words(limit_bytes)}")
        return read_bounded(file, limit_bytes)
    except (FileNotFoundError, NotFoundError):
        raise _unusable(file, f"it has no {file.name}") from None
    except OSError as error:
        raise StorageError("cannot read", file, error.strerror or str(error)) from error


def _unusable(file: Path, why: str) -> BadCheckpointError:
    return BadCheckpointError("cannot use the checkpoint", file.parent, why)
