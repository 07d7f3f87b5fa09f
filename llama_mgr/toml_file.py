"""Files that people write (config, recipes, manifests): TOML read into typed shapes, with errors that point."""

import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from llama_mgr.errors import BadConfigError, NewerStateError
from llama_mgr.store import read_bounded
from llama_mgr.text import did_you_mean, printable, without_secrets

SCHEMA = 1
LIMIT_BYTES = 1024 * 1024

Shape = TypeVar("Shape", bound=msgspec.Struct)
_UNKNOWN_FIELD = re.compile(
    r"Object contains unknown field `(?P<field>.*?)`(?: - at `\$?\.?(?P<path>.*)`)?$", re.DOTALL
)
_POSITION = re.compile(r"\(at line (?P<line>\d+), column (?P<column>\d+)\)")


def read_toml(path: Path, shape: type[Shape]) -> Shape:
    """Return the TOML file `path` as a `shape` (keys in kebab-case, unknown keys refused).

    Raises:
        BadConfigError: not UTF-8, a syntax error (file:line:column), an unknown key, a wrong type.
        NewerStateError: its `schema` is newer than this llama-mgr knows.
        NotFoundError: there is no such file.
        StorageError: it is not a regular file, too large or unreadable.
    """
    return parsed_toml(read_bounded(path, LIMIT_BYTES), path, shape)


def parsed_toml(content: bytes, origin: object, shape: type[Shape]) -> Shape:
    """Return TOML `content` as a `shape`; `origin` names the file in errors. Raises as `read_toml` does."""
    text = _utf8(content, origin)
    try:
        raw = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        message = str(error).replace("(at end of document)", _end_words(text))
        raise BadConfigError("cannot read", _place(origin, message), _syntax_words(message, text)) from error
    schema = raw.get("schema", SCHEMA)
    if isinstance(schema, int) and not isinstance(schema, bool) and schema > SCHEMA:
        raise NewerStateError(
            "cannot read",
            origin,
            f"it has schema {schema}, and this llama-mgr knows up to {SCHEMA}",
            hint="upgrade llama-mgr",
        )
    if schema != SCHEMA or isinstance(schema, bool):
        raise BadConfigError("cannot read", origin, f"schema must be {SCHEMA}, not {printable(schema)!r}")
    try:
        return msgspec.convert(raw, shape)
    except msgspec.ValidationError as error:
        raise _validation_error(str(error), origin, raw, shape) from error


def _utf8(content: bytes, origin: object) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff", b"\xef\xbb\xbf")) or b"\0" in content:
        raise BadConfigError("cannot read", origin, "it must be UTF-8 text without a byte order mark or NUL bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadConfigError("cannot read", origin, f"it must be UTF-8 text (byte {error.start} is not)") from error


def _end_words(text: str) -> str:
    last = text.splitlines()[-1:] or [""]
    return f"(at line {max(len(text.splitlines()), 1)}, column {len(last[0]) + 1})"


def _place(origin: object, message: str) -> str:
    position = _POSITION.search(message)
    return f"{origin}:{position['line']}:{position['column']}" if position else str(origin)


def _syntax_words(message: str, text: str) -> str:
    position = _POSITION.search(message)
    if not position:
        return printable(message)
    lines = text.splitlines()
    number = int(position["line"])
    line = printable(without_secrets(lines[number - 1].strip()), 80) if number <= len(lines) else ""
    return f"{printable(message[: position.start()].strip())} in `{line}`"


def _validation_error(message: str, origin: object, raw: dict[str, Any], shape: type[msgspec.Struct]) -> BadConfigError:
    unknown = _UNKNOWN_FIELD.match(message)
    if unknown:
        path = unknown["path"] or ""
        key = f"{path}.{unknown['field']}" if path else unknown["field"]
        return BadConfigError(
            "cannot read",
            origin,
            f"unknown key '{printable(key)}'",
            hint=did_you_mean(unknown["field"], _all_keys(shape)),
        )
    words, _, place = message.partition(" - at `$")
    key = place.rstrip("`").removeprefix(".") or "the file"
    return BadConfigError(
        "cannot read", origin, f"{printable(key)}: {printable(words[:1].lower() + words[1:])}{_found(raw, key)}"
    )


def _found(raw: Any, key: str) -> str:  # noqa: ANN401 (any TOML value)
    value = raw
    for part in key.replace("[", ".[").split("."):
        try:
            value = value[int(part[1:-1])] if part.startswith("[") else value[part]
        except (KeyError, IndexError, TypeError, ValueError):
            return ""
    return f" (found {printable(without_secrets(repr(value)), 60)})"


def _all_keys(shape: type[msgspec.Struct]) -> set[str]:
    schema = msgspec.json.schema(shape)
    keys: set[str] = set()
    for definition in schema.get("$defs", {}).values():
        keys |= set(definition.get("properties", {}))
    return keys
