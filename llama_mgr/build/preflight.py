"""What is checked before a build starts: disk and memory for the whole job, and how many compile jobs run at once."""

from pathlib import Path
from typing import TYPE_CHECKING

from llama_mgr import store
from llama_mgr.build.host import Host
from llama_mgr.errors import BadInputError, StorageError
from llama_mgr.paths import Home
from llama_mgr.report import Reporter
from llama_mgr.text import size_words

if TYPE_CHECKING:
    from llama_mgr.build.resolve import Resolved
    from llama_mgr.build.toolchain import Toolchain

JOBS_PER_CORE = 4
_MIB = 1024 * 1024
_CACHED_PART = 4  # ccache keeps the objects alone, compressed: well below a quarter of sources, objects and programs


def check_before_start(
    resolved: "Resolved",
    toolchain: "Toolchain",
    host: Host,
    home: Home,
    reporter: Reporter,
    cache_dir: Path | None,
) -> None:
    """Refuse a build that cannot fit, and say what is worth knowing before it starts. Nothing is changed on disk.

    Args:
        resolved: how much the recipe needs.
        toolchain: what the machine has.
        host: this machine.
        home: where staging and builds lie.
        reporter: hears what is worth knowing.
        cache_dir: where this build's compiler cache lies; None when it has none.

    Raises:
        NoSpaceError: staging, or the compiler cache on a disk of its own, has too little room for the whole build.
        StorageError: `builds/` and `staging/` lie on different file systems, so that nothing could be published.
    """
    needed_bytes = resolved.disk_mib * _MIB
    store.require_free(home.staging_dir, needed_bytes, "build")
    if _device(home.builds_dir) != _device(home.staging_dir):
        raise StorageError(
            "cannot build in",
            home.root,
            "builds/ and staging/ lie on different file systems, and a finished build is renamed from one to the other",
            hint="move the whole home: set LLAMA_MGR_HOME",
        )
    if cache_dir is not None and _device(cache_dir) != _device(home.staging_dir):
        store.require_free(cache_dir, needed_bytes // _CACHED_PART, "keep compiled objects")
    _say(resolved, toolchain, host, reporter)


def _device(path: Path) -> int:
    return next(parent for parent in (path, *path.parents) if parent.exists()).stat().st_dev


def _say(resolved: "Resolved", toolchain: "Toolchain", host: Host, reporter: Reporter) -> None:
    facts = toolchain.facts
    archs = facts.get("gpu.archs")
    used = any(define.value == archs for define in resolved.defines.values())  # unless the user's define replaced it
    if used and "gpu.present" not in facts:
        reporter.note(f"no GPU of this kind is here: building for {archs}")
    if "cuda.host-cxx" in facts:
        reporter.note(f"nvcc uses {facts['cuda.host-cxx']}: it accepts gcc up to {facts.get('cuda.gcc-max', '?')}")
    one_job_bytes = resolved.job_memory_mib * _MIB
    if 0 < host.free_memory_bytes < one_job_bytes:
        reporter.warn(
            f"only {size_words(host.free_memory_bytes)} of memory are free, "
            f"and one compile job may need {size_words(one_job_bytes)}"
        )


def jobs(host: Host, job_memory_mib: int, asked: int | None) -> int:
    """Return how many compile jobs run at once: what was asked for, else as many as cores and free memory allow.

    Args:
        host: this machine.
        job_memory_mib: what one job may need; 0 when unknown.
        asked: the user's number, checked; or None.
    """
    if asked is not None:
        return asked
    by_memory = host.free_memory_bytes // (job_memory_mib * _MIB) if job_memory_mib > 0 else host.cores
    return max(1, min(host.cores, by_memory if host.free_memory_bytes else host.cores))


def most_jobs(host: Host) -> int:
    """Return the largest number of compile jobs that may be asked for."""
    return JOBS_PER_CORE * host.cores


def check_jobs(asked: int, host: Host, refusal: str, hint: str | None = None) -> None:
    """Refuse a number of compile jobs that is not 1 to 4 for each core.

    Args:
        asked: the number.
        host: this machine.
        refusal: how the sentence about a number that cannot be used begins.
        hint: how to change it.

    Raises:
        BadInputError: it cannot be used.
    """
    most = most_jobs(host)
    if not 1 <= asked <= most:
        why = f"1 to {most} are allowed ({JOBS_PER_CORE} for each of the {host.cores} cores here)"
        raise BadInputError(refusal, asked, why, hint=hint)
