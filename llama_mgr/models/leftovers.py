"""What interrupted downloads and imports left among the models."""

import contextlib
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from llama_mgr.models.import_staging import remove_stale_import, stale_imports
from llama_mgr.partial import Unfinished, remove_unfinished, unfinished
from llama_mgr.paths import Home


@dataclass(frozen=True)
class Leftover:
    """A partial file, or the directory of an import; nobody works on it."""

    path: Path
    size_bytes: int
    modified_at: str
    partial: Unfinished | None = None


def leftovers(home: Home) -> list[Leftover]:
    """Return what is left of interrupted work, partial downloads first."""
    partials = unfinished(home.models_dir)
    return [
        *(Leftover(one.path, one.size_bytes, one.modified_at, one) for one in partials),
        *(_of_import(path) for path in stale_imports(home)),
    ]


def remove_leftover(home: Home, one: Leftover) -> bool:
    """Remove it; False when somebody works on it again, or it is gone.

    Raises:
        StorageError: it cannot be removed.
    """
    return remove_stale_import(home, one.path) if one.partial is None else remove_unfinished(one.partial)


def _of_import(path: Path) -> Leftover:
    size_bytes, newest = 0, 0.0
    for file in path.rglob("*"):
        with contextlib.suppress(OSError):
            found = file.lstat()
            newest = max(newest, found.st_mtime)
            if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:  # another name keeps the bytes
                size_bytes += found.st_size
    return Leftover(path, size_bytes, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(newest)))
