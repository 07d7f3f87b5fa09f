"""Where things lie: the user's home of llama-mgr, and the data that ships with the package."""

import os
import stat
from dataclasses import dataclass, replace
from pathlib import Path

from llama_mgr.errors import BadInputError, RefusedError, StorageError

HOME_VARIABLE = "LLAMA_MGR_HOME"
_PACKAGE_DIR = Path(__file__).resolve().parent


def shipped_dir(kind: str) -> Path:
    """Return the directory of shipped data files of `kind` (`recipes` or `instances`).

    A wheel has them inside the package (`llama_mgr/data/<kind>`, placed by hatchling's force-include); in a checkout
    or an editable install they lie at the top level beside the package.

    Raises:
        StorageError: neither place exists: the installation is damaged.
    """
    for candidate in (_PACKAGE_DIR / "data" / kind, _PACKAGE_DIR.parent / kind):
        if candidate.is_dir():
            return candidate
    raise StorageError(
        "cannot find the shipped", kind, "the installation of llama-mgr is incomplete", hint="reinstall llama-mgr"
    )


@dataclass(frozen=True)
class Home:
    """The directory tree that llama-mgr owns (design: docs/architecture.md, "State on disk")."""

    root: Path
    models: Path | None = None
    """Where models lie instead of `models/`; the setting `models-dir`."""
    config: Path | None = None
    """The settings to use instead of `config.toml`; the flag `--config`."""

    def with_models(self, directory: str) -> "Home":
        """Return this home with its models in `directory`; empty leaves them in the home."""
        return replace(self, models=Path(directory)) if directory else self

    @property
    def config_file(self) -> Path:
        """The user's settings; only the `config` commands write it."""
        return self.config or self.root / "config.toml"

    @property
    def source_dir(self) -> Path:
        """Bare mirrors and package-index snapshots."""
        return self.root / "source"

    @property
    def snapshots_dir(self) -> Path:
        """Downloaded source distributions, each checked against its sha256."""
        return self.source_dir / "snapshots"

    @property
    def builds_dir(self) -> Path:
        """Immutable builds, one directory each."""
        return self.root / "builds"

    @property
    def instances_dir(self) -> Path:
        """`<name>.json` records and `<name>/current` links."""
        return self.root / "instances"

    @property
    def recipes_dir(self) -> Path:
        """The user's own recipes."""
        return self.root / "recipes"

    @property
    def models_dir(self) -> Path:
        """Downloaded and made models."""
        return self.models or self.root / "models"

    @property
    def ledger_dir(self) -> Path:
        """What was measured of models, one document for each measurement."""
        return self.root / "ledger"

    @property
    def runs_dir(self) -> Path:
        """What `make` did, one document for each run."""
        return self.root / "runs"

    @property
    def environments_dir(self) -> Path:
        """Python environments of converters, shared by equal requirement sets."""
        return self.root / "environments"

    @property
    def servers_dir(self) -> Path:
        """One private directory for each server that was started."""
        return self.root / "servers"

    @property
    def launchers_dir(self) -> Path:
        """Launchers that follow the current instance; users put it on PATH."""
        return self.root / "bin"

    @property
    def ccache_dir(self) -> Path:
        """The compiler cache that all builds share, unless config names another."""
        return self.root / "cache" / "ccache"

    @property
    def cache_dir(self) -> Path:
        """Things that can be made again."""
        return self.root / "cache"

    @property
    def locks_dir(self) -> Path:
        """Lock files, never unlinked."""
        return self.root / "locks"

    @property
    def staging_dir(self) -> Path:
        """Unfinished results, one directory for each running operation."""
        return self.root / "staging"

    @property
    def trash_dir(self) -> Path:
        """What is about to be deleted."""
        return self.root / "trash"

    @property
    def logs_dir(self) -> Path:
        """Logs of builds that failed, and tracebacks of bugs."""
        return self.root / "logs"

    def prepare(self) -> None:
        """Make the home if it is missing, and refuse a home that is not safely ours.

        Raises:
            RefusedError: the directory belongs to another user, or others may write to it.
            StorageError: it cannot be made.
        """
        self._refuse_to_make_in_foreign_directory()
        try:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = self.root.stat()
        except OSError as error:
            raise StorageError(
                "cannot make the home directory",
                self.root,
                error.strerror or "",
                hint=f"set {HOME_VARIABLE} to a directory you can write to",
            ) from error
        if not stat.S_ISDIR(found.st_mode):
            raise StorageError("cannot use the home directory", self.root, "it is not a directory")
        if found.st_uid != os.geteuid():
            raise RefusedError(
                "cannot use the home directory",
                self.root,
                f"it belongs to uid {found.st_uid}, and this is uid {os.geteuid()}",
                hint="use `sudo -H`, or set LLAMA_MGR_HOME to a directory of your own",
            )
        if found.st_mode & 0o022:
            raise RefusedError(
                "cannot use the home directory", self.root, "others may write to it", hint=f"chmod go-w {self.root}"
            )

    def _refuse_to_make_in_foreign_directory(self) -> None:
        """Keep root from leaving files of root in another user's home (`sudo` without -H)."""
        if os.geteuid() != 0 or self.root.exists():
            return
        owner = _nearest_existing(self.root).stat().st_uid
        if owner != 0:
            raise RefusedError(
                "cannot make the home directory",
                self.root,
                f"the directory above belongs to uid {owner}, and this is root",
                hint=f"use `sudo -H`, or set {HOME_VARIABLE} to a directory of your own",
            )


def _nearest_existing(path: Path) -> Path:
    return next(parent for parent in (path, *path.parents) if parent.exists())


def home_from(environ: dict[str, str]) -> Home:
    """Return the home that `environ` asks for: LLAMA_MGR_HOME, else `~/.llama-mgr`.

    Nothing is made on disk.

    Raises:
        BadInputError: the variable (or HOME, when that is used) is not a usable absolute path.
    """
    chosen = environ.get(HOME_VARIABLE, "")
    if chosen.strip():
        return Home(_checked_absolute(HOME_VARIABLE, chosen))
    user_home = environ.get("HOME", "")
    if not user_home.strip() or user_home == "/":
        raise BadInputError(
            "cannot find a home directory: HOME is", user_home, "not a user's directory", hint=f"set {HOME_VARIABLE}"
        )
    directory = _checked_absolute("HOME", user_home)
    if not directory.is_dir():  # a service account's /nonexistent; root could make it, and would surprise everybody
        raise StorageError("cannot use HOME", directory, "there is no such directory", hint=f"set {HOME_VARIABLE}")
    return Home(directory / ".llama-mgr")


def _checked_absolute(variable: str, value: str) -> Path:
    if any(ord(character) < ord(" ") for character in value) or not value.startswith("/"):
        raise BadInputError(
            f"cannot use {variable}",
            value,
            "an absolute path without control characters is needed",
            hint=f"set {HOME_VARIABLE}",
        )
    if len(os.fsencode(value)) > 4000:  # noqa: PLR2004 (PATH_MAX less room for what we append)
        raise BadInputError(f"cannot use {variable}", value, "the path is too long", hint=f"set {HOME_VARIABLE}")
    path = Path(os.path.normpath(value))
    if path == Path("/"):
        raise BadInputError(
            f"cannot use {variable}", value, "the root of the file system is not a home", hint=f"set {HOME_VARIABLE}"
        )
    return path


def join_below(root: Path, *parts: str) -> Path:
    """Return `root/part/…`, or refuse when the parts would leave `root`.

    Raises:
        RefusedError: a part is empty, absolute, `.` or `..`, or holds a separator or a control character.
    """
    for part in parts:
        if (
            part in {"", ".", ".."}
            or "/" in part
            or "\\" in part
            or any(ord(character) < ord(" ") for character in part)
        ):
            raise RefusedError("cannot use the path part", part, f"it would leave {root}")
    return root.joinpath(*parts)
