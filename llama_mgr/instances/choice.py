"""Which instance a command means: flag > LLAMA_MGR_INSTANCE > nearest llama-mgr.toml > default > the only one."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from llama_mgr import locks, store
from llama_mgr.errors import CorruptStateError, LlamaMgrError, NotFoundError, UnknownInstanceError
from llama_mgr.instances.instance import Instance, Instances
from llama_mgr.paths import Home
from llama_mgr.report import Reporter, SilentReporter
from llama_mgr.toml_file import read_toml

PROJECT_FILE_NAME = "llama-mgr.toml"
INSTANCE_VARIABLE = "LLAMA_MGR_INSTANCE"


class ProjectFile(msgspec.Struct, rename="kebab", forbid_unknown_fields=True):
    """`llama-mgr.toml` in a project: which instance its people use."""

    instance: str
    schema: int = 1


class _Default(msgspec.Struct):
    instance: str


@dataclass(frozen=True)
class Choice:
    """The instance that was chosen, and the reason in words."""

    instance: Instance
    why: str


def choose(home: Home, flag: str | None, environ: Mapping[str, str], working_dir: Path) -> Choice:
    """Return the instance a command means.

    Raises:
        UnknownInstanceError: the named one does not exist, or nothing names one and there is not exactly one.
        BadConfigError: the nearest llama-mgr.toml is malformed.
        CorruptStateError: only the default could tell, and its record is damaged.
    """
    instances = Instances(home)
    name, why = _named(home, flag, environ, working_dir)
    if name is not None:
        return Choice(instances.find(name), why)
    names = instances.names()
    if len(names) == 1:
        return Choice(instances.find(names[0]), "it is the only instance")
    if not names:
        raise UnknownInstanceError("there is no instance yet", hint="make one with `llama-mgr install`")
    raise UnknownInstanceError(
        "several instances exist, and none is the default",
        None,
        ", ".join(names),
        hint="choose one with `llama-mgr use NAME` or `-i NAME`",
    )


def _named(home: Home, flag: str | None, environ: Mapping[str, str], working_dir: Path) -> tuple[str | None, str]:
    if flag is not None:
        return flag, "it was named by --instance"
    variable = environ.get(INSTANCE_VARIABLE, "").strip()
    if variable:
        return variable, f"{INSTANCE_VARIABLE} names it"
    for directory in (working_dir, *working_dir.parents):
        file = directory / PROJECT_FILE_NAME
        if file.is_file():
            return read_toml(file, ProjectFile).instance, f"{file} names it"
    default = default_name(home)
    return (default, "it is the default (`llama-mgr use`)") if default else (None, "")


def default_name(home: Home) -> str | None:
    """Return the name of the default instance, or None when there is none.

    Raises:
        CorruptStateError: its record is damaged.
        NewerStateError, StorageError: it is a newer llama-mgr's, or cannot be read.
    """
    try:
        return store.read_document(_default_file(home), "default-instance", _Default).instance
    except NotFoundError:
        return None
    except CorruptStateError as error:
        error.hint = "choose the default again with `llama-mgr use NAME`"
        raise


def set_default(home: Home, name: str) -> None:
    """Make the existing instance `name` the default."""
    with _locked_default(home):
        _write_default(home, Instances(home).find(name).name)


def offer_default(home: Home, name: str, reporter: Reporter) -> bool:
    """Make the existing instance `name` the default if there is none; tell whether it became the default.

    A damaged record of the default is replaced, and one that cannot be read stays; both are said on the reporter.

    Raises:
        StorageError: the disk failed.
    """
    with _locked_default(home):
        try:
            if default_name(home) is not None:
                return False
        except CorruptStateError as error:
            reporter.warn(f"{error.message}; so '{name}' is the default now; `llama-mgr use` chooses another")
        except LlamaMgrError as error:
            reporter.warn(f"{error.message}; so '{name}' does not become the default")
            return False
        _write_default(home, name)
        return True


def forget_default(home: Home, name: str, reporter: Reporter) -> None:
    """Let no instance be the default, durably, if `name` is it; or if a damaged record does not tell, which is said.

    Raises:
        NewerStateError: a newer llama-mgr chose the default.
        StorageError: the disk failed.
    """
    with _locked_default(home):
        try:
            if default_name(home) != name:
                return
        except CorruptStateError as error:
            reporter.warn(f"{error.message}; so no instance is the default now; `llama-mgr use` chooses one")
        with store.storage_errors("cannot remove", _default_file(home)):
            _default_file(home).unlink(missing_ok=True)
            store.sync_dir(home.root)


def _write_default(home: Home, name: str) -> None:
    store.write_document(_default_file(home), "default-instance", _Default(name))


def _locked_default(home: Home) -> AbstractContextManager[None]:
    """Keep a `use` of another instance from being undone between a look at the default and its removal."""
    return locks.held_lock(home, "default-instance", "change the default instance", SilentReporter())


def _default_file(home: Home) -> Path:
    return home.root / "default-instance.json"
