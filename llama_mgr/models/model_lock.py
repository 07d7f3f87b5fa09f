"""The locks under which the files of one model are written or removed."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from llama_mgr.locks import held_lock
from llama_mgr.names import canonical
from llama_mgr.paths import Home
from llama_mgr.report import Reporter


def lock_name(model: str) -> str:
    """Return the name of the lock of the model `owner/repo`, for all of its quants together."""
    return f"model-{model.replace('/', '--')}"


@contextmanager
def held_model(home: Home, model: str, directory: Path | None, purpose: str, reporter: Reporter) -> Iterator[None]:
    """Hold the lock of `model` while the body runs, and that of the `directory` of the user's that it is written to.

    Other models may be written to the same directory; who waits is told for whom.

    Raises:
        StorageError: a lock's file cannot be made.
    """
    of_directory = held_lock(home, _directory_lock(directory), purpose, reporter) if directory else nullcontext()
    with held_lock(home, lock_name(model), purpose, reporter), of_directory:
        yield


def _directory_lock(directory: Path) -> str:
    place = canonical(os.path.realpath(directory))  # one name on disks that do not tell case or Unicode forms apart
    return f"directory-{hashlib.sha256(os.fsencode(place)).hexdigest()[:16]}"
