"""What models on this disk are called when nobody says it: names of two parts, from directories and file names."""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from llama_mgr.models.quants import is_projector, stem_of

LOCAL_OWNER = "local"
"""The owner of models that were imported, and of files that somebody put into the models directory."""
_PART_LIMIT_BYTES = 96  # two of them and a few words are the name of a lock file
_PROJECTOR = re.compile(r"mmproj(?:ector)?", re.IGNORECASE)
_UNNAMED = "model"


@lru_cache(maxsize=4096)
def name_part(text: str) -> str:
    """Return `text` as one part of a name: letters, digits, `.`, `_` and `-` stay, all the rest becomes `-`.

    So a name can be typed after a command, and holds no `/`, `:` or `@`, which mean something in references.
    """
    kept = "".join(
        character if character.isalnum() or character in "._-" else "-"
        for character in unicodedata.normalize("NFC", text)
    )
    part = re.sub(r"-{2,}", "-", re.sub(r"\.{2,}", ".", kept)).strip("-.")
    return part.encode()[:_PART_LIMIT_BYTES].decode("utf-8", "ignore").rstrip("-.") or _UNNAMED


def model_part(file_name: str) -> str:
    """Return what the file name calls the model, as one part of a name: without quant tag, shard suffix and `.gguf`."""
    return name_part(stem_of(_with_plain_suffix(file_name)))


def projector_part(file_name: str) -> str:
    """Return which model a projector's file name speaks of; empty when it names none (`mmproj-F16.gguf`)."""
    words = _PROJECTOR.sub("", stem_of(_with_plain_suffix(file_name))).strip("-._ ")
    return name_part(words) if words and words.upper() not in {"F16", "BF16", "F32", "Q8_0", "MODEL"} else ""


def repository_name(directories: Sequence[str], file_name: str) -> str:
    """Return the name of a file below `owner/repo`, or as much of that as `directories` have."""
    if len(directories) > 1:
        return f"{name_part(directories[0])}/{name_part(directories[1])}"
    return f"{name_part(directories[0]) if directories else LOCAL_OWNER}/{_own_part(file_name)}"


def folder_name(directory: str, file_name: str) -> str:
    """Return the name of a file in a plain folder: that of the folder, and what the file is called."""
    return f"{name_part(directory.rpartition('/')[2])}/{_own_part(file_name)}"


def _own_part(file_name: str) -> str:
    return projector_part(file_name) if is_projector(file_name) else model_part(file_name)


def _with_plain_suffix(file_name: str) -> str:
    return f"{file_name[:-5]}.gguf" if file_name.lower().endswith(".gguf") else file_name
