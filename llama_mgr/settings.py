"""The user's settings: `config.toml`, overridden by `LLAMA_MGR_*` variables. Command-line flags override both.

A key has one spelling by rule: `[build.cache] max-size` is the variable `LLAMA_MGR_BUILD_CACHE_MAX_SIZE`.
"""

import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args

import msgspec

from llama_mgr.errors import BadConfigError, BadInputError, LlamaMgrError, RefusedError
from llama_mgr.names import checked_define_name
from llama_mgr.paths import Home
from llama_mgr.toml_file import read_toml

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

TOOLS = "build.tools"
"""The section whose keys are the names of tools."""

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

    @property
    def tool_paths(self) -> dict[str, Path]:
        """`tools` as paths; nothing has been checked."""
        return {name: Path(path) for name, path in self.tools.items()}


class HubSettings(_Section, frozen=True):
    """`[hub]`: where models come from."""

    endpoint: str = ""
    """URL of a Hugging Face hub or mirror; empty is the public one. HF_ENDPOINT overrides it."""
    token_file: str = ""
    """Absolute path of a file with a token, if neither HF_TOKEN nor the token file of `hf auth login` is there."""


class Settings(_Section, frozen=True):
    """All of config.toml."""

    schema: int = 1
    default_arch: str = "auto"
    """The `--arch` of `install` when none is given."""
    models_dir: str = ""
    """Where models lie; empty is `models/` in the home."""
    source: SourceSettings = SourceSettings()
    build: BuildSettings = BuildSettings()
    hub: HubSettings = HubSettings()


@dataclass(frozen=True)
class Origins:
    """Where the values of settings come from, for messages about them."""

    home: Home
    environ: Mapping[str, str]
    set_now: str = ""
    """The key that `config set` is about to write."""

    @property
    def file(self) -> Path:
        """The config.toml."""
        return self.home.config_file

    def variable(self, key: str) -> str | None:
        """Return the environment variable that overrides the dotted TOML `key` now."""
        variable = variable_of(key)
        is_set = self.environ.get(variable, "").strip() and not key.startswith(f"{TOOLS}.")
        return variable if is_set else None

    def place(self, key: str) -> str:
        """Return where the value of `key` stands: a variable, or the file."""
        return self.variable(key) or str(self.file)

    def words(self, key: str) -> str:
        """Return how a sentence about a bad value of `key` begins; the value follows."""
        if key == self.set_now:
            return f"cannot set {key} to"
        variable = self.variable(key)
        return f"cannot use {variable}" if variable else f"cannot use in {self.file}: {key}"

    def mend(self, key: str, good: str) -> str:
        """Return the command that gives `key` the value `good`, or takes the bad one away."""
        variable = self.variable(key)
        if variable:
            return f"unset {variable}"
        chosen = f"--config {shlex.quote(str(self.home.config))} " if self.home.config else ""
        return f"llama-mgr {chosen}config set {key} {shlex.quote(good)}"


SettingErrors = Iterator[tuple[str, LlamaMgrError]]
"""What is wrong with settings: the dotted TOML key, and the error that using its value would be."""

SettingCheck = Callable[[Settings, Origins], None]
"""Raises what is wrong with the value of one setting."""


def load_settings(home: Home, environ: Mapping[str, str]) -> Settings:
    """Return the settings of the home's config file (a missing one is empty), overridden by `environ`.

    Values that only some commands use are checked where they are used: `build.setting_errors`.

    Raises:
        BadConfigError: the file or a variable does not parse or validate.
        NewerStateError: the file has a newer schema.
        RefusedError: `models-dir` is a place that is not safe to write models to.
    """
    settings = read_settings(home, environ)
    raise_first(unsafe_values(settings, Origins(home, environ)))
    return settings


def read_settings(home: Home, environ: Mapping[str, str]) -> Settings:
    """Return what `load_settings` does, with values that have the right types and may be unsafe.

    Raises:
        BadConfigError: the file does not parse, or has an unknown key or a wrong type; or a variable has one.
        NewerStateError: the file has a newer schema.
    """
    path = home.config_file
    if home.config and not path.exists():
        raise BadConfigError("cannot read", path, "there is no such file", hint="make one with `llama-mgr config init`")
    settings = read_toml(path, Settings) if path.exists() or path.is_symlink() else Settings()
    return _with_variables(settings, environ)


def raise_first(errors: SettingErrors) -> None:
    """Raise the first of `errors`, if there is one."""
    for _, error in errors:
        raise error


def failed_checks(checks: Mapping[str, SettingCheck], settings: Settings, origins: Origins) -> SettingErrors:
    """Yield the errors of `checks`, which raise what is wrong with the value of their key."""
    for key, check in checks.items():
        try:
            check(settings, origins)
        except LlamaMgrError as error:
            yield key, error


def variable_errors(environ: Mapping[str, str]) -> SettingErrors:
    """Yield what is wrong with the types of `LLAMA_MGR_*` variables."""
    for key, kind in settings_keys():
        variable = variable_of(key)
        text = environ.get(variable, "")
        if text.strip():
            try:
                value_in(text, kind)
            except ValueError as error:
                yield key, BadConfigError(f"cannot use {variable}", text, str(error), hint=f"unset {variable}")


def unsafe_values(settings: Settings, origins: Origins) -> SettingErrors:
    """Yield the values that could run code or write to a place that is not the user's: no command goes on with them."""
    for argument in settings.build.cmake_args:
        try:
            parse_define_argument(argument)
        except BadInputError as error:
            key, why = "build.cmake-args", "only -DNAME=VALUE is allowed, with letters, digits and _ in the NAME"
            yield key, BadConfigError(origins.words(key), argument, why, hint=error.hint)
    trouble = _models_dir_trouble(settings.models_dir, origins.home) if settings.models_dir else None
    if trouble:
        why, hint = trouble
        yield "models-dir", RefusedError(origins.words("models-dir"), settings.models_dir, why, hint=hint)


def settings_keys(shape: type[msgspec.Struct] = Settings, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every scalar or list key as (dotted TOML key, its type)."""
    for field in msgspec.structs.fields(shape):
        key = f"{prefix}{field.encode_name}"
        if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct):
            yield from settings_keys(field.type, f"{key}.")
        elif key not in {"schema", TOOLS}:
            yield key, field.type


def variable_of(key: str) -> str:
    """Return the environment variable that overrides the dotted TOML `key`."""
    return "LLAMA_MGR_" + key.replace(".", "_").replace("-", "_").upper()


def value_in(text: str, kind: Any) -> Any:  # noqa: ANN401 (the type of any setting)
    """Return the value of type `kind` that `text` spells on a command line or in a variable; lists are shell words.

    Raises:
        ValueError: it has another form; the message says which one is needed.
    """
    if kind == list[str]:
        return shlex.split(text)
    (kind,) = [one for one in get_args(kind) if one is not NoneType] if NoneType in get_args(kind) else [kind]
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        message = str(error).removesuffix(", got `str`")
        raise ValueError(message[:1].lower() + message[1:]) from error


def _with_variables(settings: Settings, environ: Mapping[str, str]) -> Settings:
    raise_first(variable_errors(environ))
    document = msgspec.to_builtins(settings)
    for key, kind in settings_keys():
        text = environ.get(variable_of(key), "")
        if text.strip():
            *sections, last = key.split(".")
            section = document
            for name in sections:
                section = section[name]
            section[last] = value_in(text, kind)
    return msgspec.convert(document, Settings)


def parse_define_argument(argument: str) -> tuple[str, str]:
    """Return (NAME or NAME:TYPE, VALUE) of `-DNAME=VALUE`; every other CMake switch is refused.

    Raises:
        BadInputError: it is not a define.
    """
    found = _DEFINE.fullmatch(argument)
    if not found or "\0" in argument or "\n" in argument:
        raise BadInputError(
            "cannot use in --cmake-args",
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


def is_absolute(path: str) -> bool:
    """Tell whether `path` is an absolute path without control characters."""
    return path.startswith("/") and not any(ord(character) < ord(" ") for character in path)


def _models_dir_trouble(chosen: str, home: Home) -> tuple[str, str] | None:
    """Return why models may not lie in `chosen`, and what to do about it."""
    hint = "choose a directory of your own, such as ~/models written as an absolute path"
    if not is_absolute(chosen):
        return "an absolute path is needed", hint
    path = Path(chosen).resolve()
    if str(path) in _SYSTEM_DIRS:
        return "it is a system directory", hint
    if (
        path == home.root
        or path.is_relative_to(home.builds_dir)
        or path.is_relative_to(home.source_dir)
        or home.root.is_relative_to(path)
    ):
        return "it overlaps with builds and sources", hint
    return _ownership_trouble(path) if path.exists() else None


def _ownership_trouble(path: Path) -> tuple[str, str] | None:
    found = path.stat()
    if found.st_uid != os.geteuid():
        return f"it belongs to uid {found.st_uid}", f"chown it to yourself: chown {os.geteuid()} {path}"
    if found.st_mode & 0o002:
        return "everybody may write to it", f"chmod o-w {path}"
    return None
