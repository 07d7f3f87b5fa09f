"""How much memory the GPUs of this machine have, and how much of that is free.

NVIDIA: `nvidia-smi`, which takes from 20 ms to seconds; totals are therefore kept until the next boot. That it failed
or hung is kept for a minute, so that commands in a row do not all wait for it, and a driver may recover. AMD:
/sys/class/drm/card*/device/mem_info_vram_* (Documentation/gpu/amdgpu of the Linux kernel); of a GPU that shares the
memory of the machine, only what the firmware set apart counts. Apple silicon: what Metal may use.
"""

import contextlib
import platform
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from llama_mgr.errors import LlamaMgrError
from llama_mgr.process import child_environ, found_program, run
from llama_mgr.store import read_document, write_document

_MIB = 1024 * 1024
_GIB = 1024 * _MIB
_ASK_LIMIT_S = 10.0
_FAILURE_KEPT_S = 60.0
_CACHE_NAME, _CACHE_KIND = "gpu-memory.json", "gpu-memory"
_NO_NUMBER = "[N/A]"  # of a GPU that shares the memory of the machine
_QUERY = ("--query-gpu=memory.total,memory.free", "--format=csv,noheader,nounits")

# What Metal may use (recommendedMaxWorkingSetSize) unless `iogpu.wired_limit_mb` says otherwise is not documented.
# Reports agree on two thirds of up to 36 GiB and three quarters of more; macOS 26 gives more.
_SMALL_MAC_BYTES = 36 * _GIB
_SMALL_SHARE, _LARGE_SHARE = 2 / 3, 3 / 4


@dataclass(frozen=True)
class GpuMemory:
    """Of all GPUs together; 0 when there is none, or none that tells."""

    total_bytes: int = 0
    free_bytes: int = 0
    is_ram: bool = False
    """Whether it is the memory of the machine itself."""


class _Answer(msgspec.Struct):
    """What nvidia-smi said."""

    state: str
    """Of which boot and driver that was."""
    total_bytes: int
    failed_at_s: float | None = None
    """When it gave none; None for a good answer."""


def gpu_memory(
    environ: Mapping[str, str],
    cache_dir: Path,
    *,
    memory_bytes: int,
    free_memory_bytes: int,
    fresh: bool = False,
    root: Path = Path("/"),
    system: str = "",
) -> GpuMemory:
    """Return the memory of the GPUs; what cannot be learned is 0, never an error.

    A machine with GPUs of two makers counts with those of the one that has more: a build of llama.cpp uses one.

    Args:
        environ: where PATH is.
        cache_dir: where what nvidia-smi said is kept.
        memory_bytes: of the machine.
        free_memory_bytes: of the machine.
        fresh: ask how much is free now; otherwise all counts as free on a GPU that is slow to ask.
        root: where `/proc` and `/sys` lie.
        system: `Linux` or `Darwin`; empty asks Python.
    """
    if (system or platform.system()) == "Darwin":
        return _apple(environ, memory_bytes, free_memory_bytes)
    nvidia = _nvidia(environ, cache_dir, root, fresh=fresh)
    return max(nvidia, _amd(root), key=lambda one: one.total_bytes)


# -- NVIDIA ------------------------------------------------------------------------------------------------------------


def _nvidia(environ: Mapping[str, str], cache_dir: Path, root: Path, *, fresh: bool) -> GpuMemory:
    program = found_program("nvidia-smi", environ)
    if program is None:
        return GpuMemory()
    state = _state(program, root)
    kept = None if fresh else _kept(cache_dir, state)
    if kept is not None:
        return GpuMemory(kept, kept)
    found = _asked(program, environ)
    if found is None:
        _keep(cache_dir, _Answer(state, 0, time.time()))
        return GpuMemory()
    _keep(cache_dir, _Answer(state, found.total_bytes))
    return found


def _asked(program: Path, environ: Mapping[str, str]) -> GpuMemory | None:
    """Return what nvidia-smi says, nothing for GPUs without memory of their own; None when it fails."""
    try:
        said = run([program, *_QUERY], environ=child_environ(environ), timeout_s=_ASK_LIMIT_S, check=False)
    except LlamaMgrError:
        return None
    pairs = re.findall(r"^\s*(\d{1,9})\s*,\s*(\d{1,9})\s*$", said.stdout, re.MULTILINE)
    if said.status or not (pairs or _NO_NUMBER in said.stdout):
        return None
    return GpuMemory(_MIB * sum(int(total) for total, _ in pairs), _MIB * sum(int(free) for _, free in pairs))


def _state(program: Path, root: Path) -> str:
    """Return what must stay the same for an answer to stay true: this boot, and this driver."""
    with contextlib.suppress(OSError):
        boot = (root / "proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        return f"{boot} {program} {program.stat().st_mtime_ns}"
    return ""


def _kept(cache_dir: Path, state: str) -> int | None:
    """Return the total of an earlier answer, 0 when there was no GPU; None when there is no answer of this state."""
    try:
        kept = read_document(cache_dir / _CACHE_NAME, _CACHE_KIND, _Answer)
    except LlamaMgrError:
        return None
    if not state or kept.state != state:
        return None
    failed_at_s = kept.failed_at_s
    is_old = failed_at_s is not None and not 0 <= time.time() - failed_at_s < _FAILURE_KEPT_S
    return None if is_old else kept.total_bytes


def _keep(cache_dir: Path, answer: _Answer) -> None:
    """Write an answer down; when that fails, the next caller asks again."""
    with contextlib.suppress(LlamaMgrError):
        write_document(cache_dir / _CACHE_NAME, _CACHE_KIND, answer)


# -- AMD and Apple -----------------------------------------------------------------------------------------------------


def _amd(root: Path) -> GpuMemory:
    total = free = 0
    for file in sorted(root.glob("sys/class/drm/card*/device/mem_info_vram_total")):
        here = _number(file)
        total += here
        free += max(0, here - _number(file.with_name("mem_info_vram_used")))
    return GpuMemory(total, free)


def _number(file: Path) -> int:
    try:
        return int(file.read_text("ascii").strip())
    except (OSError, ValueError):
        return 0


def _apple(environ: Mapping[str, str], memory_bytes: int, free_memory_bytes: int) -> GpuMemory:
    program = found_program("sysctl", environ) or Path("/usr/sbin/sysctl")
    try:
        said = run([program, "hw.optional.arm64", "iogpu.wired_limit_mb"], environ=child_environ(environ), check=False)
    except LlamaMgrError:
        return GpuMemory()
    values = dict(re.findall(r"^(\S+): (\d+)$", said.stdout, re.MULTILINE))
    if values.get("hw.optional.arm64") != "1":
        return GpuMemory()  # GPUs of Intel Macs are slower than their processors
    share = _SMALL_SHARE if memory_bytes <= _SMALL_MAC_BYTES else _LARGE_SHARE
    total = int(values.get("iogpu.wired_limit_mb", 0)) * _MIB or int(memory_bytes * share)
    return GpuMemory(min(total, memory_bytes), min(total, free_memory_bytes), is_ram=True)
