"""What in a checkpoint could run code: files of code, and fields that have a library import or fetch some.

The converter of llama.cpp (`conversion/`, b11434) loads tokenizers with `trust_remote_code=True`, and transformers
4.57, which it pins, can be made to fetch code by a field of config.json even without (CVE-2026-4372).
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from llama_mgr.errors import UnsafeCheckpointError
from llama_mgr.make.json_file import read_any_json
from llama_mgr.text import printable

_SUFFIXES = (".py", ".pyw", ".pyc", ".pyo", ".pyd", ".so", ".dylib", ".dll")
_FIELDS = frozenset(
    {"auto_map", "_attn_implementation_internal", "trust_remote_code", "custom_pipelines", "custom_generate"}
)
_KERNEL_SUFFIX = "_implementation"  # of attention, of experts: a word of transformers, or a repository with kernels
_ELSEWHERE = "--"  # owner/repo--module.Class
_NAMED = 5
_SHOWN_CHARACTERS = 80


def code_in(directory: Path, names: Iterable[str], configurations: Iterable[str]) -> tuple[str, ...]:
    """Return what could run code, each as a person can find it: `modeling.py`, `auto_map in config.json`.

    Args:
        directory: of the checkpoint.
        names: all that lies below it, relative; links count by their names.
        configurations: the JSON files among them that a library may read.

    Raises:
        BadCheckpointError: a configuration is not JSON, or larger than 16 MiB: another reader may find more in it.
        StorageError: one cannot be read.
    """
    files = [printable(name, _SHOWN_CHARACTERS) for name in names if name.casefold().endswith(_SUFFIXES)]
    fields = [
        f"{field} in {printable(name, _SHOWN_CHARACTERS)}"
        for name in configurations
        for field in _fields_in(read_any_json(directory / name))
    ]
    return tuple(dict.fromkeys([*files, *fields]))


def is_configuration(name: str) -> bool:
    """Tell whether transformers may take a file of this path for a configuration: `config.4.50.json` is one, too."""
    file = PurePosixPath(name).name.casefold()
    return "config" in file and file.endswith(".json")


def unsafe(directory: Path, why: str, found: Sequence[str]) -> UnsafeCheckpointError:
    """Return the error that refuses a checkpoint because of what was `found`, with the flag that allows it."""
    more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    hint = "--trust-remote-code allows it, if you trust its authors as you trust yourself"
    return UnsafeCheckpointError("cannot convert", directory, f"{why}: {', '.join(found[:_NAMED])}{more}", hint=hint)


def _fields_in(document: Any) -> Iterator[str]:  # noqa: ANN401 (any JSON)
    """Yield the fields that name code, at any depth; sub-configurations are passed on to other classes."""
    pending = [document]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield from (field for key, part in value.items() if (field := _named_code(key, part)))
            pending += value.values()
        elif isinstance(value, list):
            pending += value


def _named_code(key: str, value: Any) -> str | None:  # noqa: ANN401 (any JSON)
    """Return how to call the field if it names code, and where that lies if it is elsewhere."""
    if key.endswith(_KERNEL_SUFFIX):
        repository = next((text for text in _texts_in(value) if "/" in text), None)
        return f"{key} (kernels of {printable(repository, _SHOWN_CHARACTERS)})" if repository else None
    if key not in _FIELDS or not value:
        return None
    remote = next((text for text in _texts_in(value) if _ELSEWHERE in text), None)
    if remote is None:
        return key
    return f"{key} (remote, of {printable(remote.partition(_ELSEWHERE)[0], _SHOWN_CHARACTERS)})"


def _texts_in(value: Any) -> Iterator[str]:  # noqa: ANN401 (any JSON)
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, str):
            yield part
        elif isinstance(part, dict | list):
            pending += part.values() if isinstance(part, dict) else part
