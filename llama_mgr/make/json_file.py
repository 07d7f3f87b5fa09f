"""JSON files of a checkpoint: bounded, and an object."""

import json
from pathlib import Path
from typing import Any

from llama_mgr.errors import BadCheckpointError, NotFoundError, StorageError
from llama_mgr.store import read_bounded
from llama_mgr.text import printable

_LIMIT_BYTES = 16 * 1024 * 1024


def read_json(file: Path) -> dict[str, Any]:
    """Return the JSON object in `file`.

    Raises:
        BadCheckpointError: it is missing, larger than 16 MiB, no JSON or no object.
    """
    try:
        document = json.loads(read_bounded(file, _LIMIT_BYTES))
    except (NotFoundError, StorageError) as error:
        raise BadCheckpointError("cannot use the checkpoint", file.parent, error.message) from error
    except (ValueError, RecursionError) as error:
        why = f"{file.name} is not JSON ({printable(error, 80)})"
        raise BadCheckpointError("cannot use the checkpoint", file.parent, why) from error
    if not isinstance(document, dict):
        raise BadCheckpointError("cannot use the checkpoint", file.parent, f"{file.name} is not a JSON object")
    return document
