"""What the `config` commands show and write: rows, the commented template, and edits that keep comments."""

import ast
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from llama_mgr import settings as settings_module
from llama_mgr.errors import BadInputError, NotFoundError
from llama_mgr.settings import TOOLS, Origins, Settings, settings_keys, value_in
from llama_mgr.store import read_bounded
from llama_mgr.text import did_you_mean, without_secrets
from llama_mgr.toml_file import LIMIT_BYTES


def setting_rows(settings: Settings, origins: Origins) -> list[dict[str, Any]]:
    """Return `{"key", "value", "origin"}` for every setting; the origin is a variable, the file or `default`.

    What may be secret in URLs is left out of values: `text.without_secrets`.
    """
    file = origins.file
    written = tomllib.loads(read_bounded(file, LIMIT_BYTES).decode()) if file.exists() else {}
    rows = []
    for key in [*(key for key, _ in settings_keys()), *_tool_keys(settings)]:
        is_set = origins.variable(key) or _is_written(written, key)
        value = without_secrets_in(value_of(settings, key))
        rows.append({"key": key, "value": value, "origin": origins.place(key) if is_set else "default"})
    return rows


def without_secrets_in(value: Any) -> Any:  # noqa: ANN401 (any setting)
    """Return the value of a setting as it may be shown to others."""
    if isinstance(value, list):
        return [without_secrets_in(one) for one in value]
    return without_secrets(value) if isinstance(value, str) else value


def value_of(settings: Settings, key: str) -> Any:  # noqa: ANN401 (any setting)
    """Return the value of the dotted TOML `key`.

    Raises:
        NotFoundError: there is no such setting; the nearest is named.
    """
    if key not in {known for known, _ in settings_keys()} and key not in _tool_keys(settings):
        raise _unknown(key)
    value = msgspec.to_builtins(settings)
    for part in key.split("."):
        value = value[part]
    return value


def template() -> str:
    """Return a config.toml that explains every setting and sets none."""
    documents = _documents()
    defaults = Settings()
    lines = ["# Settings of llama-mgr. Nothing is set yet: the lines that are commented out show the defaults."]
    lines += ["# A variable overrides a setting: [build.cache] max-size is LLAMA_MGR_BUILD_CACHE_MAX_SIZE.", ""]
    section = ""
    for key, _ in settings_keys():
        here, _, name = key.rpartition(".")
        if here != section:
            section = here
            lines += [f"[{section}]", f"# {documents[section]}", ""]
        lines += [f"# {line}" for line in documents[key].splitlines()]
        lines += [f"# {name} = {_toml(value_of(defaults, key))}", ""]
    lines += [f"[{TOOLS}]", f"# {documents[TOOLS]}", '# cmake = "/usr/bin/cmake"', ""]
    return "\n".join(lines)


def edited(text: str, key: str, value: str) -> tuple[bytes, Any]:
    """Return the config file `text` with `key` set to `value`, comments and order kept; and the value as written.

    Raises:
        NotFoundError: there is no such setting.
        BadInputError: the value has another type.
    """
    import tomlkit

    typed = _typed(key, value)
    document = tomlkit.parse(text)
    *sections, name = key.split(".")
    table: Any = document
    for section in sections:
        if section not in table:
            table[section] = tomlkit.table()
        table = table[section]
    table[name] = typed
    return tomlkit.dumps(document).encode(), typed


def _typed(key: str, value: str) -> Any:  # noqa: ANN401 (any setting)
    if any("\ud800" <= character <= "\udfff" for character in value):  # how Python keeps bytes that it cannot decode
        why = f"it is not text in the encoding of this locale ({sys.getfilesystemencoding()})"
        raise BadInputError(f"cannot set {key} to", value, why, hint="use a UTF-8 locale, such as LC_ALL=C.UTF-8")
    if key.startswith(f"{TOOLS}.") and key.count(".") == 2:  # noqa: PLR2004
        return value
    kinds = dict(settings_keys())
    if key not in kinds:
        raise _unknown(key)
    try:
        return value_in(value, kinds[key])
    except ValueError as error:
        raise BadInputError(f"cannot set {key} to", value, str(error)) from error


def _unknown(key: str) -> NotFoundError:
    known = [known for known, _ in settings_keys()]
    return NotFoundError("there is no setting", key, "see `llama-mgr config show`", hint=did_you_mean(key, known))


def _tool_keys(settings: Settings) -> list[str]:
    return [f"{TOOLS}.{name}" for name in sorted(settings.build.tools)]


def _is_written(document: Any, key: str) -> bool:  # noqa: ANN401 (any TOML table)
    for part in key.split("."):
        if not isinstance(document, dict) or part not in document:
            return False
        document = document[part]
    return True


def _toml(value: Any) -> str:  # noqa: ANN401 (any setting)
    import tomlkit

    return "8" if value is None else tomlkit.item(value).as_string()


def _documents() -> dict[str, str]:
    """Return dotted key (or section) to what its docstring in `settings.py` says: the docs are written once."""
    source = Path(str(settings_module.__file__)).read_text("utf-8")
    classes = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}
    documents = dict(_fields(classes, "Settings", ""))
    return {key: " ".join(text.split()) for key, text in documents.items()}


def _fields(classes: Mapping[str, ast.ClassDef], name: str, prefix: str) -> Iterator[tuple[str, str]]:
    body = classes[name].body
    for statement, following in zip(body, [*body[1:], None], strict=True):
        if not isinstance(statement, ast.AnnAssign):
            continue
        key = prefix + ast.unparse(statement.target).replace("_", "-")
        kind = ast.unparse(statement.annotation)
        if kind in classes:
            document = (ast.get_docstring(classes[kind]) or "").partition(":")[2]
            yield key, document.strip()
            yield from _fields(classes, kind, f"{key}.")
        elif isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant):
            yield key, str(following.value.value)
