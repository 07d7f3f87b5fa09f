"""One build being made in a staging directory: check out, configure, compile, collect, prove, publish."""

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from llama_mgr import staging, store
from llama_mgr.build import build_info
from llama_mgr.build.artifacts import Collected, collect
from llama_mgr.build.cache import CompilerCache
from llama_mgr.build.capability import read_capabilities
from llama_mgr.build.cmake import CMake
from llama_mgr.build.plan import ALL_TARGETS, Plan
from llama_mgr.build.record import LOG_NAME, RECORD_NAME, BuildRecord, Builds, recorded_files
from llama_mgr.build.resolve import Resolved
from llama_mgr.build.source import Source, Sources
from llama_mgr.build.toolchain import Toolchain
from llama_mgr.build.verify import prove
from llama_mgr.errors import BadInputError, IncompleteSourceError, LlamaMgrError
from llama_mgr.paths import Home, join_below
from llama_mgr.process import child_environ
from llama_mgr.report import Reporter
from llama_mgr.settings import CacheSettings
from llama_mgr.text import did_you_mean


class StagedBuild:
    """The work between a plan and a published build."""

    def __init__(
        self,
        home: Home,
        cache_settings: CacheSettings,
        environ: Mapping[str, str],
        reporter: Reporter,
        sources: Sources,
        *,
        plan: Plan,
        source: Source,
        resolved: Resolved,
        toolchain: Toolchain,
        jobs: int,
    ) -> None:
        self._home = home
        self._cache_settings = cache_settings
        self._environ = environ
        self._reporter = reporter
        self._sources = sources
        self._plan = plan
        self._source = source
        self._resolved = resolved
        self._toolchain = toolchain
        self._jobs = jobs

    def made(self) -> BuildRecord:
        """Make the build and return its record.

        On disk afterwards: the whole build in `builds/<id>/`; or, on failure, only its log in `logs/`.

        Raises:
            LlamaMgrError: as `Builder.build`.
        """
        with staging.staging(self._home, self._plan.flavour) as staged:
            log_file = staged / LOG_NAME
            prefix = staged / "prefix"
            source_dir = staged / "source"
            try:
                with store.storage_errors("cannot build in", staged), log_file.open("wb") as log:
                    prefix.mkdir()
                    self._sources.check_out(self._source, source_dir)
                    record = self._made_in(staged, log)
                staging.mark(prefix, of=record.build_id)
                self._reporter.step("publish")
                with store.storage_errors("cannot finish", prefix):
                    log_file.rename(prefix / LOG_NAME)
                    record.files = recorded_files(prefix)
                    store.write_document(prefix / RECORD_NAME, "build", record)
                self._publish(prefix, record.build_id)
            except LlamaMgrError as error:
                error.log_file = str(self._kept_log(log_file) or "") or None
                raise
            finally:
                self._release(source_dir)
        return record

    def _made_in(self, staged: Path, log: BinaryIO) -> BuildRecord:
        started = time.monotonic()
        source_dir, build_dir, prefix = staged / "source", staged / "build", staged / "prefix"
        if self._plan.patch_build_info is not None:
            build_info.write(source_dir / self._plan.patch_build_info, self._plan)
        cache = self._cache(staged)
        scratch = staged / "tmp"  # a killed compiler leaves its temporary files where gc finds them
        scratch.mkdir()
        environ = child_environ(self._environ, TMPDIR=str(scratch), **cache.environ(), **self._plan.environ)
        cmake = self._cmake(source_dir, build_dir, environ, log)
        defines = self._defines(cache)
        self._reporter.step(f"configure {self._plan.flavour}")
        said = cmake.configure(defines)
        cmake.check_declared(self._plan.defines)
        targets = _existing_targets(self._plan.targets, cmake.targets(), asked=self._resolved.targets)
        self._reporter.step(f"build {', '.join(sorted(targets))} with {self._jobs} jobs")
        cmake.build(sorted(set(targets.values())), self._jobs)
        collected = self._collected(build_dir, source_dir, prefix, targets)
        self._reporter.step("verify")
        unchecked = prove(
            prefix, self._resolved, self._source.build_number, said, self._environ,
            gpu_present="gpu.present" in self._toolchain.facts,
        )  # fmt: skip
        for remark in unchecked:
            self._reporter.warn(remark)
        counts = cache.counts()
        return BuildRecord(
            build_id=self._plan.build_id,
            digest=self._plan.digest,
            plan=self._plan,
            made_at=store.now_at(),
            took_s=round(time.monotonic() - started, 3),
            configure_argv=cmake.configure_argv(defines),
            tools={name: tool.version for name, tool in sorted(self._toolchain.tools.items())},
            cache_hits=counts.hits,
            cache_misses=counts.misses,
            programs=collected.programs,
            converter=collected.converter,
            converter_requirements=collected.requirements,
            capabilities=read_capabilities(prefix, source_dir, self._environ, said),
            files={},
        )

    def commands(self) -> list[list[str]]:
        """Return the command lines that `made` would run for configure and build, with staging shown as STAGING."""
        staged = Path("STAGING")
        cache = self._cache(staged)
        with (Path("/dev/null")).open("wb") as log:
            cmake = self._cmake(staged / "source", staged / "build", {}, log)
        defines = self._defines(cache)
        targets = sorted({candidates[0] for candidates in self._plan.targets.values()})
        return [cmake.configure_argv(defines), cmake.build_argv(targets, self._jobs)]

    def _collected(self, build_dir: Path, source_dir: Path, prefix: Path, targets: Mapping[str, str]) -> Collected:
        tools = {tool: target for tool, target in targets.items() if tool != ALL_TARGETS}
        everything = ALL_TARGETS in targets
        convert, omit = self._resolved.convert, self._plan.omit
        return collect(build_dir, source_dir, prefix, tools, convert, everything=everything, omit=omit)

    def _cmake(self, source_dir: Path, build_dir: Path, environ: Mapping[str, str], log: BinaryIO) -> CMake:
        tools = self._toolchain.tools
        cmake = tools["cmake"].path if "cmake" in tools else Path("cmake")
        ninja = tools["ninja"].path if "ninja" in tools else Path("ninja")
        return CMake(
            cmake, ninja, source_dir, build_dir, environ, log, self._reporter,
            label=self._plan.flavour, failures=self._resolved.failures,
        )  # fmt: skip

    @property
    def cache_dir(self) -> Path | None:
        """Where the compiler cache of this build lies; None when it has none."""
        settings = self._cache_settings
        if not settings.enabled or "ccache" not in self._toolchain.tools:
            return None
        return Path(settings.directory) if settings.directory else self._home.ccache_dir

    def _defines(self, cache: CompilerCache) -> dict[str, str]:
        return {**cache.defines(self._languages()), **self._plan.defines}  # the user's launcher wins

    def _cache(self, staged: Path) -> CompilerCache:
        settings = self._cache_settings
        directory = self.cache_dir
        return CompilerCache(
            self._toolchain.tools["ccache"].path if directory else None,
            directory or self._home.ccache_dir,
            base_dir=staged,
            max_size=settings.max_size,
            remote=settings.remote,
        )

    def _languages(self) -> list[str]:
        extra = {"nvcc": "CUDA", "hipconfig": "HIP"}
        return ["C", "CXX", *(language for tool, language in extra.items() if tool in self._toolchain.tools)]

    def _publish(self, prefix: Path, build_id: str) -> None:
        """Put the finished build in its place; a damaged one of the same plan is there until that moment."""
        final = Builds(self._home).directory(build_id)
        with store.storage_errors("cannot finish", final):
            store.sync_tree(prefix)  # the slow part, while the old one can still be used
        with staging.out_of_the_way(self._home, final, of=build_id):
            store.publish(prefix, final)

    def _release(self, source_dir: Path) -> None:
        """Give the work tree back; a failure hides neither the build nor the error that ended it."""
        try:
            self._sources.release(source_dir)
        except (LlamaMgrError, OSError) as error:
            self._reporter.warn(f"git's notes about {source_dir.parent.name} stay until the next check-out: {error}")

    def _kept_log(self, log_file: Path) -> Path | None:
        kept = join_below(self._home.logs_dir, f"{self._plan.build_id}.log")
        with contextlib.suppress(OSError):
            kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            log_file.replace(kept)
            return kept
        return None


def _existing_targets(
    wanted: Mapping[str, list[str]], existing: frozenset[str], asked: Mapping[str, list[str]]
) -> dict[str, str]:
    """Return tool to the target that is built for it; recipe tools that this tree does not have are left out.

    Raises:
        BadInputError: a target that only the user named does not exist.
        IncompleteSourceError: none of the recipe's tools exists.
    """
    chosen: dict[str, str] = {}
    for tool, candidates in wanted.items():
        found = next((target for target in candidates if target in existing or target == ALL_TARGETS), None)
        if found is not None:
            chosen[tool] = found
        elif tool not in asked:
            raise BadInputError(
                "cannot build the target", tool, "this llama.cpp has none", hint=did_you_mean(tool, existing)
            )
    if not chosen:
        raise IncompleteSourceError("cannot build", None, "the tree has none of the programs of llama.cpp")
    return chosen
