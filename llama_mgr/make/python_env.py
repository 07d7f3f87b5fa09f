"""Converter environments: one Python virtual environment for each requirement set, made by uv and shared.

Torch is always a CPU build: converting needs no GPU, and the GPU builds bring gigabytes.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from llama_mgr.build.record import Builds
from llama_mgr.errors import (
    BusyError,
    CorruptStateError,
    LlamaMgrError,
    NewerStateError,
    NotFoundError,
    RefusedError,
    RemoteError,
)
from llama_mgr.locks import held_lock
from llama_mgr.make.requirements import Requirements, read_requirements
from llama_mgr.make.resolution import Resolution, Uv, resolve
from llama_mgr.paths import Home
from llama_mgr.report import Reporter
from llama_mgr.staging import discard, mark, staging
from llama_mgr.store import now_at, publish, read_document, require_free, write_document

__all__ = ["Environment", "Environments", "Requirements", "digests_in_use", "read_requirements"]

_KIND = "environment"
_NAME_DIGITS = 16
_TORCH_SPACE_BYTES = 1536 * 1024**2  # measured: 900 MB installed, and uv unpacks into its cache first


class EnvironmentRecord(msgspec.Struct):
    """`environment.json`: what an environment was asked to hold, and what it holds."""

    digest: str
    python_tag: str
    requirements: list[str]
    torch_from: str
    relaxed: list[str]
    installed: list[str]
    made_at: str


@dataclass(frozen=True)
class Environment:
    """A finished environment.

    `torch_from` says where torch came from (`""` when none is needed), `relaxed` holds the pins that could not be met
    as `torch==2.11.0 -> torch==2.13.0`, `installed` what is there as `name==version`.
    """

    path: Path
    python: Path
    digest: str
    torch_from: str
    relaxed: tuple[str, ...]
    installed: tuple[str, ...]


class Environments:
    """The environments below `home.environments_dir`.

    A build on disk is what keeps an environment: there is no other note of who uses it. So `ensure` is called for
    builds that are on disk, and looks for the environment under its lock; `discard_unused` looks at the builds under
    the same lock. Whoever comes second sees what the first one did, and no environment that was just handed out goes.

    Args:
        home: whose environments.
        uv: the uv program.
        environ: index, proxy and wheel-folder settings (`UV_FIND_LINKS`, `UV_DEFAULT_INDEX`, …) are taken from it.
        reporter: hears of downloads, fallbacks and relaxed pins.
    """

    def __init__(self, home: Home, uv: Path, environ: Mapping[str, str], reporter: Reporter) -> None:
        self._home = home
        self._uv = Uv(uv, environ)
        self._reporter = reporter

    def path_of(self, wanted: Requirements) -> Path:
        """Return where the environment of `wanted` lies, or would lie."""
        return self._home.environments_dir / wanted.digest[:_NAME_DIGITS]

    def find(self, wanted: Requirements) -> Environment | None:
        """Return the finished environment of `wanted`, or None when there is none that works."""
        path = self.path_of(wanted)
        try:
            record = read_document(path / "environment.json", _KIND, EnvironmentRecord)
        except (NotFoundError, CorruptStateError):
            return None
        python = path / "bin" / "python"
        if record.digest != wanted.digest or not python.exists():  # its interpreter may have been uninstalled
            return None
        return Environment(
            path, python, record.digest, record.torch_from, tuple(record.relaxed), tuple(record.installed)
        )

    def ensure(self, wanted: Requirements) -> Environment:
        """Return the environment of `wanted`, and make it first if it is missing.

        It stays for as long as a build needs it; the build for which this is called must be on disk already.

        On disk afterwards: the whole environment below `home.environments_dir`, or, after an error, nothing new.

        Raises:
            RemoteError: the package index cannot be reached, or no CPU build of torch can be had.
            ChildFailedError: uv cannot satisfy the requirements, not even with relaxed pins.
            MissingToolsError: uv or the running interpreter cannot be used.
            StorageError: the disk is full or failing.
        """
        name = wanted.digest[:_NAME_DIGITS]
        with held_lock(self._home, f"environment-{name}", "make a converter environment", self._reporter):
            return self.find(wanted) or self._made(wanted)

    def unused(self, used_digests: Collection[str]) -> list[Path]:
        """Return the directories below `home.environments_dir` that none of `used_digests` stands for, sorted."""
        used = {digest[:_NAME_DIGITS] for digest in used_digests}
        return sorted(path for path in self._home.environments_dir.glob("*") if path.name not in used)

    def discard_unused(self, path: Path, used_digests: Callable[[], Collection[str]]) -> bool:
        """Delete an environment unless it is used or somebody makes it just now; tell whether it was deleted.

        Directories that are not ours are left alone, too.

        Args:
            path: one of `unused`.
            used_digests: returns what the builds on disk need at that moment; asked under the environment's lock.
        """
        try:
            with held_lock(self._home, f"environment-{path.name}", "delete it", self._reporter, timeout_s=0):
                if path not in self.unused(used_digests()):
                    return False
                discard(self._home, path, path.name)
        except (BusyError, RefusedError, NewerStateError) as error:
            self._reporter.warn(f"kept {path}: {error}")
            return False
        return True

    def _made(self, wanted: Requirements) -> Environment:
        self._reporter.step("make the converter's Python environment")
        if "torch" in wanted.names:
            require_free(self._home.environments_dir, _TORCH_SPACE_BYTES, "make a converter environment")
        log_file = self._home.logs_dir / f"environment-{wanted.digest[:_NAME_DIGITS]}.log"
        with staging(self._home, "environment") as operation:
            resolution = resolve(wanted, self._uv, operation, log_file, self._reporter)
            staged = operation / "environment"
            self._install(resolution, staged, log_file)
            record = EnvironmentRecord(
                digest=wanted.digest, python_tag=wanted.python_tag, requirements=[item.line for item in wanted.items],
                torch_from=resolution.torch_from, relaxed=list(resolution.relaxed),
                installed=self._uv.installed(staged / "bin" / "python"), made_at=now_at(),
            )  # fmt: skip
            write_document(staged / "environment.json", _KIND, record)
            final = self.path_of(wanted)
            mark(staged, final.name)
            if final.exists():
                discard(self._home, final, final.name)
            publish(staged, final)
        made = self.find(wanted)
        if made is None:
            raise CorruptStateError("cannot use", final, "it vanished right after it was made")
        return made

    def _install(self, resolution: Resolution, staged: Path, log_file: Path) -> None:
        if resolution.gpu_packages:
            raise RemoteError(
                "cannot find a CPU build of torch", None,
                f"only one that needs {len(resolution.gpu_packages)} GPU packages is offered",
                hint="put a CPU wheel of torch into a directory and set UV_FIND_LINKS to it",
            )  # fmt: skip
        for line in resolution.relaxed:
            self._reporter.note(f"the converter's pin cannot be met here: {line}")
        self._uv.make_environment(staged, log_file, self._reporter)
        self._uv.install(
            staged / "bin" / "python", resolution.file, resolution.torch_arguments, log_file, self._reporter
        )


def digests_in_use(builds: Builds, without: Collection[str] = ()) -> set[str]:
    """Return the digests of what the converters of all builds on disk require, but those of `without`.

    Raises:
        CorruptStateError: a build is damaged, so that nobody can tell.
    """
    used = set()
    for build_id in builds.ids():
        if build_id in without:
            continue
        try:
            record = builds.find(build_id)
            if record.converter_requirements is not None:
                convert_dir = builds.directory(build_id) / "convert"
                used.add(read_requirements(convert_dir, record.converter_requirements).digest)
        except LlamaMgrError as error:
            why = f"of {build_id} one cannot tell: {error.message}"
            raise CorruptStateError("cannot find the unused converter environments", None, why) from error
    return used
