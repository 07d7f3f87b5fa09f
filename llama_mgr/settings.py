"""The user's settings: `config.toml`, overridden by `LLAMA_MGR_*` variables. Command-line flags override both.

A key has one spelling by rule: `[build.cache] max-size` is the variable `LLAMA_MGR_BUILD_CACHE_MAX_SIZE`.
"""

import os
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec

from llama_mgr.errors import BadConfigError, BadInputError, RefusedError
from llama_mgr.names import checked_define_name
from llama_mgr.paths import Home
from llama_mgr.text import printable
from llama_mgr.toml_file import parsed_toml, read_toml

_DEFINE = re.compile(r"-D(?P<name>[^=:\s]+)(?::(?P<type>[A-Za-z]+))?=(?P<value>.*)", re.DOTALL)
_SYSTEM_DIRS = (
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/var",
    "/home",
)

Positive = Annotated[int, msgspec.Meta(ge=1)]


class _Section(msgspec.Struct, rename="kebab", forbid_unknown_fields=True, frozen=True):
    """Base of the sections of config.toml: kebab-case keys, unknown keys refused."""


class SourceSettings(_Section, frozen=True):
    """`[source]`: where llama.cpp comes from."""

    repo_url: str = ""
    """Default repository; empty is upstream's."""
    package_index: str = ""
    """Simple-API URL of the package index for snapshots; empty is the client's default."""


class CacheSettings(_Section, frozen=True):
    """`[build.cache]`: the compiler cache."""

    enabled: bool = True
    """Whether compiled objects are kept and used again."""
    directory: str = ""
    """Where it lies; empty is `cache/ccache` in the home."""
    max_size: str = "10G"
    """ccache's size limit, in its own notation."""
    remote: str = ""
    """ccache's remote storage for teams: `redis://host:6379`, `http://host/cache`."""


class BuildSettings(_Section, frozen=True):
    """`[build]`: how builds are made."""

    parallel: Positive | None = None
    """Compile jobs at once; unset is chosen from cores and free memory."""
    cmake_args: list[str] = []
    """More defines for every build, each `-DNAME=VALUE`."""
    targets: list[str] = []
    """Tools to build; empty is the recipe's list."""
    tools: dict[str, str] = {}
    """Absolute paths of tools to use instead of those found: `cmake = "/usr/bin/cmake"`."""
    cache: CacheSettings = CacheSettings()


class Settings(_Section, frozen=True):
    """All of config.toml."""

    schema: int = 1
    default_arch: str = "auto"
    """The `--arch` of `install` when none is given."""
    models_dir: str = ""
    """Where models lie; empty is `models/` in the home."""
    source: SourceSettings = SourceSettings()
    build: BuildSettings = BuildSettings()


def load_settings(home: Home, environ: Mapping[str, str], config_file: Path | None = None) -> Settings:
    """Return the settings of `config_file` (else the home's; a missing one is empty), overridden by `environ`.

    Raises:
        BadConfigError: the file or a variable does not parse or validate.
        NewerStateError: the file has a newer schema.
        RefusedError: `models-dir` is a place that is not safe to write models to.
    """
    path = config_file or home.config_file
    if config_file and not config_file.exists():
        raise BadConfigError(
            "cannot read", config_file, "there is no such file", hint="make one with `llama-mgr config init`"
        )
    settings = read_toml(path, Settings) if path.exists() or path.is_symlink() else Settings()
    return _checked(_with_variables(settings, environ), path, home)


def parsed_settings(content: bytes, path: Path, home: Home) -> Settings:
    """Return the settings that a config file with this `content` has, variables aside. Raises as `load_settings`."""
    return _checked(parsed_toml(content, path, Settings), path, home)


def _checked(settings: Settings, path: Path, home: Home) -> Settings:
    for argument in settings.build.cmake_args:
        parse_define_argument(argument, origin=f"{path}: build.cmake-args")
    _check_models_dir(settings.models_dir, home)
    return settings


def settings_keys(shape: type[msgspec.Struct] = Settings, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every scalar or list key as (dotted TOML key, its type)."""
    for field in msgspec.structs.fields(shape):
        key = f"{prefix}{field.encode_name}"
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from settings_keys(field.type, f"{key}.")
        elif key not in {"schema", "build.tools"}:
            yield key, field.type


def variable_of(key: str) -> str:
    """Return the environment variable that overrides the dotted TOML `key`."""
    return "LLAMA_MGR_" + key.replace(".", "_").replace("-", "_").upper()


def _with_variables(settings: Settings, environ: Mapping[str, str]) -> Settings:
    document = msgspec.to_builtins(settings)
    for key, kind in settings_keys():
        text = environ.get(variable_of(key), "")
        if text.strip():
            *sections, last = key.split(".")
            section = document
            for name in sections:
                section = section[name]
            section[last] = shlex.split(text) if kind == list[str] else text
    try:
        return msgspec.convert(document, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise BadConfigError(
            "cannot use the environment", None, printable(error), hint="unset the LLAMA_MGR_* variable"
        ) from error


def parse_define_argument(argument: str, origin: str = "--cmake-args") -> tuple[str, str]:
    """Return (NAME or NAME:TYPE, VALUE) of `-DNAME=VALUE`; every other CMake switch is refused.

    Raises:
        BadInputError: it is not a define.
    """
    found = _DEFINE.fullmatch(argument)
    if not found or "\0" in argument or "\n" in argument:
        raise BadInputError(
            f"cannot use in {origin}",
            argument,
            "only -DNAME=VALUE is allowed",
            hint="other CMake switches can run code; they are not passed on",
        )
    return parse_define(argument[2:])


def parse_define(text: str) -> tuple[str, str]:
    """Return (NAME, VALUE) of `NAME=VALUE` or `NAME:TYPE=VALUE`.

    Raises:
        BadInputError: it has another form.
    """
    name, equals, value = text.partition("=")
    if not equals or "\n" in value or "\0" in value:
        raise BadInputError("cannot use the define", text, "the form is NAME=VALUE")
    return checked_define_name(name.partition(":")[0]), value


def parse_cmake_args(texts: Sequence[str]) -> dict[str, str]:
    """Return the defines in `--cmake-args` strings, each split as a shell would.

    Raises:
        BadInputError: a word is not a define, or quotes do not match.
    """
    defines: dict[str, str] = {}
    for text in texts:
        try:
            words = shlex.split(text)
        except ValueError as error:
            raise BadInputError("cannot read --cmake-args", text, str(error)) from error
        defines |= dict(parse_define_argument(word) for word in words)
    return defines


def _check_models_dir(chosen: str, home: Home) -> None:
    if not chosen:
        return
    hint = "choose a directory of your own, such as ~/models written as an absolute path"
    if not chosen.startswith("/"):
        raise RefusedError("cannot use models-dir", chosen, "it must be an absolute path", hint=hint)
    path = Path(chosen).resolve()
    if str(path) in _SYSTEM_DIRS:
        raise RefusedError("cannot use models-dir", chosen, "it is a system directory", hint=hint)
    if (
        path == home.root
        or path.is_relative_to(home.builds_dir)
        or path.is_relative_to(home.source_dir)
        or home.root.is_relative_to(path)
    ):
        raise RefusedError("cannot use models-dir", chosen, "it overlaps with builds and sources", hint=hint)
    if path.exists():
        _check_ownership(path)


def _check_ownership(path: Path) -> None:
    found = path.stat()
    if found.st_uid != os.geteuid():
        raise RefusedError(
            "cannot use models-dir",
            path,
            f"it belongs to uid {found.st_uid}",
            hint=f"chown it to yourself: chown {os.geteuid()} {path}",
        )
    if found.st_mode & 0o002:
        raise RefusedError("cannot use models-dir", path, "everybody may write to it", hint=f"chmod o-w {path}")
