"""Damaged records that an install moved aside, and the builds that they may still need."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from llama_mgr.errors import LlamaMgrError
from llama_mgr.paths import Home
from llama_mgr.store import DOCUMENT_LIMIT_BYTES, read_bounded

SIGN = ".corrupt-"


def moved_aside(home: Home) -> list[Path]:
    """Return the damaged records of instances that were moved aside, sorted."""
    return sorted(home.instances_dir.glob(f"*{SIGN}*")) if home.instances_dir.is_dir() else []


def builds_in_doubt(home: Home, build_ids: Collection[str]) -> dict[str, Path]:
    """Return those of `build_ids` that a damaged record may need, each with that record.

    A record that still lists its generations needs what it names; of any other nobody knows what it named.
    """
    found: dict[str, Path] = {}
    for file in moved_aside(home):
        text = _generations_of(file)
        found.update({one: file for one in build_ids if text is None or one in text})
    return found


def _generations_of(file: Path) -> str | None:
    try:
        document: Any = json.loads(read_bounded(file, DOCUMENT_LIMIT_BYTES))
        generations = document["generations"]
    except (LlamaMgrError, ValueError, RecursionError, TypeError, KeyError):
        return None
    return json.dumps(generations) if isinstance(generations, list) and generations else None
