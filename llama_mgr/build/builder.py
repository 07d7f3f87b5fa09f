"""From a request to a finished build: plan, reuse or stage, configure, compile, collect, prove, publish."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from llama_mgr import store
from llama_mgr.build import preflight
from llama_mgr.build.artifacts import Collected, collect
from llama_mgr.build.cache import CacheCounts, CompilerCache
from llama_mgr.build.capability import read_capabilities
from llama_mgr.build.cmake import CMake
from llama_mgr.build.host import Host, detect_host
from llama_mgr.build.plan import Plan
from llama_mgr.build.recipe import Recipes
from llama_mgr.build.record import LOG_NAME, RECORD_NAME, BuildRecord, Builds, recorded_files
from llama_mgr.build.resolve import Resolved, resolve
from llama_mgr.build.source import Source, Sources, Wanted
from llama_mgr.build.toolchain import Toolchain, find_toolchain, require_all
from llama_mgr.build.verify import prove
from llama_mgr.errors import BadInputError, IncompleteSourceError, LlamaMgrError
from llama_mgr.paths import Home, join_below
from llama_mgr.process import child_environ
from llama_mgr.report import Reporter
from llama_mgr.settings import Settings, parse_cmake_args
from llama_mgr.text import did_you_mean, duration_words

ALL_TARGETS = "all"


@dataclass(frozen=True)
class Request:
    """What somebody wants built."""

    wanted: Wanted = field(default_factory=Wanted)
    recipe: str = "cpu"
    parts: tuple[str, ...] = ()
    defines: Mapping[str, str] = field(default_factory=dict)
    targets: tuple[str, ...] = ()
    """Canonical tool names or CMake targets; empty is the recipe's list, `all` is everything."""


@dataclass(frozen=True)
class Prepared:
    """A request that has met the world: its source was found, its recipe resolved, its tools looked for."""

    plan: Plan
    source: Source
    resolved: Resolved
    toolchain: Toolchain
    host: Host


class Builder:
    """Makes builds in a home. Nothing is on disk below `builds/` until a build is whole."""

    def __init__(self, home: Home, settings: Settings, environ: Mapping[str, str], reporter: Reporter) -> None:
        self._home = home
        self._settings = settings
        self._environ = environ
        self._reporter = reporter
        self.sources = Sources(home, environ, reporter, settings)
        self.builds = Builds(home)

    def prepare(self, request: Request) -> Prepared:
        """Find the source, resolve the recipe for it and look for the tools; nothing is built, missing tools are fine.

        Raises:
            UnknownVersionError, RemoteError, RefusedError: the source cannot be had.
            UnknownRecipeError, BadConfigError: the recipe cannot be used.
        """
        chain = Recipes(self._home).chain(request.recipe, list(request.parts))
        host = detect_host(self._environ)
        source = self.sources.locate(request.wanted)
        overrides = {name: Path(path) for name, path in self._settings.build.tools.items()}
        toolchain = find_toolchain(chain, source.tree, host, self._environ, overrides, build_number=source.build_number)
        facts = {**toolchain.facts, **source_facts(source)}
        defines = {**parse_cmake_args(self._settings.build.cmake_args), **request.defines}
        resolved = resolve(chain, source.tree, facts, host, source.build_number, defines)
        targets = _chosen_targets(request.targets or tuple(self._settings.build.targets), resolved)
        return Prepared(_plan_of(source, resolved, toolchain, host, targets), source, resolved, toolchain, host)

    def finished(self, prepared: Prepared) -> BuildRecord | None:
        """Return the build that this plan already has, or None."""
        return self.builds.with_digest(prepared.plan.digest)

    def build(self, prepared: Prepared, parallel: int | None = None) -> BuildRecord:
        """Return the build of a plan, made now unless it exists. Two callers with one plan build it once.

        Args:
            prepared: what `prepare` returned.
            parallel: compile jobs at once; None chooses from cores and free memory.

        Raises:
            MissingToolsError: tools are missing; all are named.
            NoSpaceError: the disk is too full for the whole job.
            UndeclaredDefineError: a define that this tree does not know; nothing was compiled.
            ConfigureFailedError, BuildFailedError: with the classified cause; the log is kept in `logs/`.
            VerificationError: the result does not do what was asked for; it was not published.
        """
        jobs = preflight.jobs(
            prepared.host, prepared.resolved.job_memory_mib, parallel or self._settings.build.parallel
        )
        with store.held_lock(
            self._home, f"build-{prepared.plan.build_id}", f"build {prepared.plan.flavour}", self._reporter
        ):
            found = self.finished(prepared)
            if found is not None:
                return found
            require_all(prepared.toolchain)
            preflight.check_before_start(
                prepared.resolved, prepared.toolchain, prepared.host, self._home, self._reporter
            )
            return _Run(self, prepared, jobs).record()

    def cache(self, base_dir: Path, stats_log: Path, ccache: Path | None) -> CompilerCache:
        """Return the compiler cache as configured, for a build whose trees lie below `base_dir`."""
        settings = self._settings.build.cache
        directory = Path(settings.directory) if settings.directory else self._home.ccache_dir
        return CompilerCache(
            ccache if settings.enabled else None,
            directory,
            base_dir=base_dir,
            stats_log=stats_log,
            max_size=settings.max_size,
            remote=settings.remote,
        )


class _Run:
    """One build in its staging directory."""

    def __init__(self, builder: Builder, prepared: Prepared, jobs: int) -> None:
        self._builder = builder
        self._prepared = prepared
        self._jobs = jobs
        self._plan = prepared.plan

    def record(self) -> BuildRecord:
        home = self._builder._home
        log_file = join_below(home.logs_dir, f"{self._plan.build_id}.log")
        with store.staging(home, self._plan.flavour) as staged:
            prefix = staged / "prefix"
            source_dir = staged / "source"
            try:
                with store.storage_errors("cannot build in", staged):
                    prefix.mkdir()
                    with (prefix / LOG_NAME).open("wb") as log:
                        self._builder.sources.check_out(self._prepared.source, source_dir)
                        record = self._made(staged, log)
            except BaseException as error:
                _keep_log(prefix / LOG_NAME, log_file, error)
                raise
            finally:
                self._builder.sources.release(source_dir)
            store.mark(prefix, of=record.build_id)
            store.write_document(prefix / RECORD_NAME, "build", record)
            store.publish(prefix, self._builder.builds.directory(record.build_id))
        return record
