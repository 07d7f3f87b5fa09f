"""What in a checkpoint can run code: files, fields of its configuration, pickles."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_mgr.errors import LlamaMgrError, UnsafeCheckpointError
from llama_mgr.make.json_file import read_json
from llama_mgr.text import printable

CODE_SUFFIXES = (".py", ".pyc", ".pyo", ".pyd", ".so", ".dylib", ".dll", ".sh", ".ipynb")
_ENTRIES_LIMIT = 10_000
_LISTED = 5
# Keys that let transformers import or fetch code, wherever in a configuration they stand.
_CODE_KEYS = frozenset(
    {"auto_map", "_attn_implementation_internal", "custom_pipelines", "custom_generate", "trust_remote_code"}
)
_KERNEL_KEYS = frozenset({"attn_implementation", "_attn_implementation", "_attn_implementation_autoset"})


def require_no_code(directory: Path) -> None:
    """Refuse a checkpoint that brings code, or whose configuration names some.

    Raises:
        UnsafeCheckpointError: it does; files and fields are named.
    """
    files = list(_code_files(directory))
    if files:
        more = f" and {len(files) - _LISTED} more" if len(files) > _LISTED else ""
        raise unsafe(directory, f"it brings code: {', '.join(files[:_LISTED])}{more}")
    for file in sorted(directory.glob("*.json")):
        for field, value in _code_fields(file):
            remote = "code of another repository" if "--" in value else "code"
            raise unsafe(directory, f"{file.name} names {remote}: {field} is {value}")


def unsafe(directory: Path, why: str) -> UnsafeCheckpointError:
    """Return the error that refuses a checkpoint, with the flag that allows it."""
    hint = "if you trust its authors as you trust yourself: --trust-remote-code"
    return UnsafeCheckpointError("cannot convert", directory.name, why, hint=hint)


def _code_files(directory: Path) -> Iterator[str]:
    seen = 0
    for place, directories, names in os.walk(directory):
        directories[:] = sorted(name for name in directories if name != ".git")
        for name in sorted(names):
            seen += 1
            if name.lower().endswith(CODE_SUFFIXES):
                yield printable(Path(place, name).relative_to(directory))
        if seen > _ENTRIES_LIMIT:
            raise unsafe(directory, f"it has more than {_ENTRIES_LIMIT:,} files, and no checkpoint has")


def _code_fields(file: Path) -> Iterator[tuple[str, str]]:
    if "config" not in file.name and not file.name.startswith(("tokenizer", "params")):
        return
    if file.name == "tokenizer.json":  # large, and read by a library that knows no code
        return
    try:
        document = read_json(file)
    except LlamaMgrError:  # whoever needs the file says so
        return
    yield from _fields_in(document, 0)


def _fields_in(value: Any, depth: int) -> Iterator[tuple[str, str]]:  # noqa: ANN401 (any JSON)
    if depth > 50:  # noqa: PLR2004 (deeper than any configuration)
        return
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        is_code = key in _CODE_KEYS and part not in (None, False, {}, [], "")
        is_kernel = key in _KERNEL_KEYS and isinstance(part, str) and "/" in part
        if is_code or is_kernel:
            yield str(key), printable(part, 80)
        yield from _fields_in(part, depth + 1)
