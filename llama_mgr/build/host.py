"""The machine that builds: its cores, memory and processor as this process may use them, and its package manager.

Limits of a container count: affinity, and the CPU quota and memory limit of cgroups (v1 and v2), at every level.
Sources: cgroup-v2.rst and cgroup-v1/memory.rst of the Linux kernel, os-release(5), sysctl(3) of macOS.
"""

import contextlib
import hashlib
import math
import os
import platform
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from llama_mgr.errors import LlamaMgrError
from llama_mgr.process import child_environ, found_program, run

# Flags that the kernel invents (mitigations, virtualisation, timers) change with its version; code does not.
_X86_INSTRUCTIONS = re.compile(
    r"(s?sse\d?|sse4_[12]|avx|amx|fma|f16c|bmi|aes|vaes|gfni|sha|v?pclmul|popcnt|abm|movbe|adx|rdrnd|rdseed|cx16|lahf_lm"
    r"|xop|3dnow|lm$|mmx|fsgsbase|clflushopt|clwb|movdir|serialize|sm[34]$)"
)
_MANAGERS = {
    "debian": "apt", "ubuntu": "apt", "fedora": "dnf", "rhel": "dnf", "centos": "dnf", "arch": "pacman",
    "suse": "zypper", "opensuse": "zypper", "alpine": "apk",
}  # fmt: skip


@dataclass(frozen=True)
class Host:
    """Facts about this machine, as far as this process may use it."""

    os: str
    """`linux`, `darwin`."""
    machine: str
    """`x86_64`, `aarch64`, `arm64`."""
    cpu_model: str
    cpu_flags_digest: str
    """16 hex digits over the instruction sets: equal digests run each other's `-march=native` code."""
    cores: int
    """Cores this process may use, at least 1."""
    memory_bytes: int
    """Memory, or the limit of the innermost cgroup that has one; 0 when unknown."""
    free_memory_bytes: int
    """What can be used without swapping; 0 when unknown."""
    distribution_id: str
    """`ID` of os-release: `debian`; `macos`; empty when unknown."""
    package_manager: str
    """`apt`, `dnf`, `pacman`, `zypper`, `apk`, `brew`, or empty when unknown."""


def detect_host(environ: Mapping[str, str], *, root: Path = Path("/"), system: str = "") -> Host:
    """Return the facts of this machine; what cannot be read becomes empty or 0, never an error.

    Args:
        environ: where PATH is, for `sysctl`.
        root: where `/proc`, `/sys` and `/etc` lie.
        system: `Linux` or `Darwin`; empty asks Python.
    """
    system = (system or platform.system()).lower()
    return _darwin(environ) if system == "darwin" else _linux(root, system)


def host_memory(environ: Mapping[str, str], *, root: Path = Path("/"), system: str = "") -> tuple[int, int]:
    """Return `memory_bytes` and `free_memory_bytes` of a Host alone, which takes a fraction of the time."""
    if (system or platform.system()).lower() != "darwin":
        return _linux_memory(root)
    said = _sysctl(environ, "hw.memsize").get("hw.memsize", "")
    total = int(said) if said.isdigit() else 0
    return total, _darwin_free_bytes(environ) or total // 2


def _linux(root: Path, system: str) -> Host:
    model, flags = _processor(_text(root / "proc/cpuinfo"))
    distribution_id, package_manager = _distribution(root)
    memory_bytes, free_memory_bytes = _linux_memory(root)
    return Host(
        os=system,
        machine=platform.machine(),
        cpu_model=model or platform.machine(),
        cpu_flags_digest=_digest(flags),
        cores=_cores(root),
        memory_bytes=memory_bytes,
        free_memory_bytes=free_memory_bytes,
        distribution_id=distribution_id,
        package_manager=package_manager,
    )


def _text(path: Path) -> str:
    with contextlib.suppress(OSError):
        return path.read_text("utf-8", "replace")
    return ""


def _digest(flags: list[str]) -> str:
    return hashlib.sha256(" ".join(sorted(set(flags))).encode()).hexdigest()[:16]


def _processor(cpuinfo: str) -> tuple[str, list[str]]:
    fields: dict[str, str] = {}
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        fields.setdefault(name.strip().lower(), value.strip())
    words = fields.get("flags", "").split()
    flags = [word for word in words if _X86_INSTRUCTIONS.match(word)] or fields.get("features", "").split()
    part = fields.get("cpu part", "")
    model = fields.get("model name") or fields.get("hardware") or fields.get("cpu") or part
    return model, flags + [part] * bool(part)


def _linux_memory(root: Path) -> tuple[int, int]:
    memory = _meminfo(_text(root / "proc/meminfo"))
    limits = list(_cgroup_memory(root))
    free = memory.get("MemAvailable", memory.get("MemFree", 0))
    return min([memory.get("MemTotal", 0), *(limit for limit, _ in limits)]), min([free, *(left for _, left in limits)])


def _meminfo(meminfo: str) -> dict[str, int]:
    found = re.findall(r"^(\w+):\s+(\d+) kB", meminfo, re.MULTILINE)
    return {name: int(number) * 1024 for name, number in found}


# -- limits of containers ----------------------------------------------------------------------------------------------


def _cores(root: Path) -> int:
    try:
        usable = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        usable = os.cpu_count() or 1
    return max(1, min([usable, *(math.ceil(quota) for quota in _cpu_quotas(root))]))


def _cpu_quotas(root: Path) -> Iterator[float]:
    """Yield the CPU quotas of our cgroups, in cores."""
    for directory in _cgroup_dirs(root, "cpu"):
        quota, _, period = _text(directory / "cpu.max").strip().partition(" ")
        if not quota:
            quota = _text(directory / "cpu.cfs_quota_us").strip()
            period = _text(directory / "cpu.cfs_period_us").strip()
        if quota.isdigit() and period.isdigit() and int(quota) > 0 and int(period) > 0:
            yield int(quota) / int(period)


def _cgroup_memory(root: Path) -> Iterator[tuple[int, int]]:
    """Yield (limit, free) in bytes for each of our cgroups that has a limit; page cache that can go counts as free."""
    for directory in _cgroup_dirs(root, "memory"):
        for limit_name, used_name, cache_name in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit = _text(directory / limit_name).strip()
            if limit.isdigit():  # "max", or in v1 a number beyond any memory, is no limit
                used = int(_text(directory / used_name).strip() or 0)
                found = re.search(rf"^{cache_name} (\d+)$", _text(directory / "memory.stat"), re.MULTILINE)
                yield int(limit), max(0, int(limit) - used + (int(found[1]) if found else 0))


def _cgroup_dirs(root: Path, controller: str) -> Iterator[Path]:
    """Yield our cgroup for `controller` and all its ancestors that are visible here, in every mounted hierarchy."""
    paths = _cgroup_paths(_text(root / "proc/self/cgroup"))
    for line in _text(root / "proc/self/mounts").splitlines():
        _, mount, kind, options, *_ = [*line.split(), "", "", "", ""]
        if kind == "cgroup2":
            own = paths.get("", "/")
        elif kind == "cgroup" and controller in options.split(","):
            own = paths.get(controller, "/")
        else:
            continue
        base = root / mount.lstrip("/")
        directory = base / own.lstrip("/")
        # inside a container the path may be the host's, which is not visible: then the mount itself is ours
        while directory != base and base in directory.parents:
            yield directory
            directory = directory.parent
        yield base


def _cgroup_paths(text: str) -> dict[str, str]:
    paths: dict[str, str] = {}
    for line in text.splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if ".." not in path:
            paths |= dict.fromkeys(controllers.split(","), path)
    return paths


# -- distribution ------------------------------------------------------------------------------------------------------


def _distribution(root: Path) -> tuple[str, str]:
    fields: dict[str, str] = {}
    for line in (_text(root / "etc/os-release") or _text(root / "usr/lib/os-release")).splitlines():
        name, equals, value = line.partition("=")
        with contextlib.suppress(ValueError):
            if equals:
                fields[name.strip()] = " ".join(shlex.split(value))
    own = fields.get("ID", "").lower()
    names = [own, *fields.get("ID_LIKE", "").lower().split()]
    manager = next((_MANAGERS[name.partition("-")[0]] for name in names if name.partition("-")[0] in _MANAGERS), "")
    return own, manager


# -- macOS -------------------------------------------------------------------------------------------------------------


def _darwin(environ: Mapping[str, str]) -> Host:
    values = _sysctl(environ, "-a")
    flags = [name for name, value in values.items() if name.startswith("hw.optional.") and value == "1"]
    words = f"{values.get('machdep.cpu.features', '')} {values.get('machdep.cpu.leaf7_features', '')}"
    cores = values.get("hw.logicalcpu") or values.get("hw.ncpu") or ""
    memory = values.get("hw.memsize", "")
    total = int(memory) if memory.isdigit() else 0
    return Host(
        os="darwin",
        machine=platform.machine(),
        cpu_model=values.get("machdep.cpu.brand_string") or platform.machine(),
        cpu_flags_digest=_digest([*flags, *words.split()]),
        cores=max(1, int(cores) if cores.isdigit() else os.cpu_count() or 1),
        memory_bytes=total,
        free_memory_bytes=_darwin_free_bytes(environ) or total // 2,
        distribution_id="macos",
        package_manager="brew",
    )


def _sysctl(environ: Mapping[str, str], *words: str) -> dict[str, str]:
    lines = _said(environ, "sysctl", "/usr/sbin/sysctl", *words).splitlines()
    return {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _darwin_free_bytes(environ: Mapping[str, str]) -> int:
    said = _said(environ, "vm_stat", "/usr/bin/vm_stat")
    size = re.search(r"page size of (\d+) bytes", said)
    pages = re.findall(r"^Pages (?:free|inactive|speculative|purgeable):\s+(\d+)\.", said, re.MULTILINE)
    return int(size[1]) * sum(map(int, pages)) if size else 0


def _said(environ: Mapping[str, str], name: str, usual: str, *words: str) -> str:
    program = found_program(name, environ) or Path(usual)
    try:
        return run([program, *words], environ=child_environ(environ), timeout_s=10, check=False).stdout
    except LlamaMgrError:
        return ""
