"""From a request to a finished build: plan, reuse, or make it in staging and publish it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llama_mgr import locks
from llama_mgr.build import preflight
from llama_mgr.build.host import Host, detect_host
from llama_mgr.build.plan import ALL_TARGETS, Plan
from llama_mgr.build.recipe import Recipes
from llama_mgr.build.record import BuildRecord, Builds
from llama_mgr.build.resolve import Resolved, resolve
from llama_mgr.build.setting_errors import require_usable
from llama_mgr.build.source import Source, Sources, Wanted
from llama_mgr.build.staged import StagedBuild
from llama_mgr.build.toolchain import Toolchain, find_toolchain, require_all
from llama_mgr.paths import Home
from llama_mgr.report import Reporter
from llama_mgr.settings import Origins, Settings, parse_cmake_args

_COMPILERS = ("c", "c++", "nvcc", "hipcc", "hipconfig", "icx", "mcc", "glslc")


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
        overrides = self._settings.build.tool_paths
        defines = {**parse_cmake_args(self._settings.build.cmake_args), **request.defines}
        known = {**source_facts(source), **{f"define.{name}": value for name, value in defines.items()}}
        toolchain = find_toolchain(
            chain, source.tree, host, self._environ, overrides, known=known, build_number=source.build_number
        )
        resolved = resolve(chain, source.tree, {**toolchain.facts, **known}, host, source.build_number, defines)
        targets = _chosen_targets(request.targets or tuple(self._settings.build.targets), resolved.targets)
        return Prepared(_plan_of(source, resolved, toolchain, host, targets), source, resolved, toolchain, host)

    def finished(self, prepared: Prepared, *, by_hash: bool = False) -> BuildRecord | None:
        """Return the build that this plan already has, or None; with `by_hash` only if no file of it was changed."""
        return self.builds.with_digest(prepared.plan.digest, by_hash=by_hash)

    def build(
        self, prepared: Prepared, parallel: int | None = None, *, by_hash: bool = False
    ) -> tuple[BuildRecord, bool]:
        """Return the build of a plan, and whether it was made now; two callers with one plan make it once.

        A damaged build of the plan stays in its place until the new one is whole, and for ever if that fails.

        Args:
            prepared: what `prepare` returned.
            parallel: compile jobs at once, which `preflight.check_jobs` lets pass; None takes the number of the
                settings, else chooses from cores and free memory.
            by_hash: take a finished build for damaged, too, when a file of it has another sha256.

        Raises:
            BadConfigError, BadInputError: a setting that this build uses cannot be used; nothing was checked out.
            MissingToolsError: tools are missing; all are named.
            NoSpaceError: the disk is too full for the whole job.
            UndeclaredDefineError: a define that this tree does not know; nothing was compiled.
            ConfigureFailedError, BuildFailedError: with the classified cause; the log is kept in `logs/`.
            VerificationError: the result does not do what was asked for; it was not published.
            RefusedError: something that llama-mgr did not make lies in the build's place; nothing was compiled.
        """
        lock = locks.held_lock(
            self._home, f"build-{prepared.plan.build_id}", f"build {prepared.plan.flavour}", self._reporter
        )
        with lock:
            found = self.finished(prepared, by_hash=by_hash)
            if found is not None:
                return found, False
            staged = self.staged(prepared, self.jobs(prepared, parallel))
            if staged.cache_dir is not None:
                self._require_usable("build.cache.directory", "build.cache.max-size", "build.cache.remote")
            require_all(prepared.toolchain)
            if os.path.lexists(self.builds.directory(prepared.plan.build_id)):
                self.builds.require_ours(prepared.plan.build_id)
            preflight.check_before_start(
                prepared.resolved, prepared.toolchain, prepared.host, self._home, self._reporter, staged.cache_dir
            )
            return staged.made(), True

    def jobs(self, prepared: Prepared, parallel: int | None) -> int:
        """Return how many compile jobs run at once; `parallel` as for `build`.

        Raises:
            BadInputError: `parallel` is None, and the number of the settings is out of range on this machine.
        """
        if parallel is None:
            self._require_usable("build.parallel")
            parallel = self._settings.build.parallel
        return preflight.jobs(prepared.host, prepared.resolved.job_memory_mib, parallel)

    def _require_usable(self, *keys: str) -> None:
        require_usable(self._settings, Origins(self._home, self._environ), *keys)

    def staged(self, prepared: Prepared, jobs: int) -> StagedBuild:
        """Return the work that makes `prepared` into a build; nothing has happened yet."""
        return StagedBuild(
            self._home,
            self._settings.build.cache,
            self._environ,
            self._reporter,
            self.sources,
            plan=prepared.plan,
            source=prepared.source,
            resolved=prepared.resolved,
            toolchain=prepared.toolchain,
            jobs=jobs,
        )


def source_facts(source: Source) -> dict[str, str]:
    """Return what recipes may know of a source: `source.build`, `source.commit-short`, `source.release`."""
    facts = {"source.build": str(source.build_number), "source.commit-short": source.short_commit}
    if source.is_release:
        facts["source.release"] = source.version
    return facts


def _chosen_targets(asked: Sequence[str], known: Mapping[str, list[str]]) -> dict[str, list[str]]:
    if not asked:
        return dict(known)
    if ALL_TARGETS in asked:
        return {**known, ALL_TARGETS: [ALL_TARGETS]}
    by_target = {target: tool for tool, candidates in known.items() for target in candidates}
    chosen = {}
    for word in asked:
        tool = word if word in known else by_target.get(word, word)
        chosen[tool] = known.get(tool, [word])
    return chosen


def _plan_of(
    source: Source, resolved: Resolved, toolchain: Toolchain, host: Host, targets: dict[str, list[str]]
) -> Plan:
    compilers = {name: toolchain.tools[name].version for name in _COMPILERS if name in toolchain.tools}
    about_host = {"os": host.os, "machine": host.machine}
    if resolved.is_native:
        about_host["cpu"] = host.cpu_flags_digest
    return Plan(
        version=source.version,
        build_number=source.build_number,
        commit=source.commit,
        source_kind=source.kind,
        location=source.location,
        recipe=resolved.recipe,
        parts=list(resolved.parts),
        defines={name: setting.value for name, setting in sorted(resolved.defines.items())},
        environ={name: setting.value for name, setting in sorted(resolved.environ.items())},
        targets=targets,
        omit=list(resolved.omit),
        patch_build_info=resolved.patch_build_info,
        compilers=compilers,
        host=about_host,
    )
