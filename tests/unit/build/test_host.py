"""The machine as this process may use it: limits of containers, distributions, processors, macOS."""

import dataclasses
import os
import platform
from pathlib import Path

import pytest

from llama_mgr.build.host import Host, detect_host
from tests.tools.build_examples import GIB
from tests.tools.fake_program import make_program, path_of

NO_PROGRAMS = path_of()
MEMINFO = "MemTotal:       33554432 kB\nMemFree:         1048576 kB\nMemAvailable:   25165824 kB\n"
CPUINFO = """processor\t: 0
model name\t: Example(R) CPU @ 3.00GHz
flags\t\t: fpu sse2 ssse3 avx avx2 fma f16c bmi2 md_clear arch_capabilities

processor\t: 1
model name\t: Another
"""


def machine(root: Path, **files: str) -> Path:
    """Make a root with these files, by path, besides the memory and the processor of an example."""
    written = {"proc/meminfo": MEMINFO, "proc/cpuinfo": CPUINFO, **files}
    for name, text in written.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def found(root: Path, **files: str) -> Host:
    return detect_host(NO_PROGRAMS, root=machine(root, **files), system="Linux")


def test_this_machine() -> None:
    host = detect_host(os.environ)
    assert host.os == platform.system().lower()
    assert host.machine == platform.machine()
    assert 1 <= host.cores <= (os.cpu_count() or 1)
    assert 0 < host.free_memory_bytes <= host.memory_bytes
    assert len(host.cpu_flags_digest) == 16
    assert host.cpu_model


def test_memory_without_limits(tmp_path: Path) -> None:
    host = found(tmp_path)
    assert (host.memory_bytes, host.free_memory_bytes) == (32 * GIB, 24 * GIB)


def test_nothing_readable_is_no_error(tmp_path: Path) -> None:
    host = detect_host(NO_PROGRAMS, root=tmp_path, system="Linux")
    assert (host.memory_bytes, host.free_memory_bytes, host.package_manager) == (0, 0, "")
    assert host.cores >= 1


V2 = {
    "proc/self/mounts": "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\nproc /proc proc rw 0 0\n",
    "proc/self/cgroup": "0::/box/inner\n",
}
V1 = {
    "proc/self/mounts": "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n"
    "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0\n",
    "proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n",
}


def test_cgroup_v2_limits_of_every_level_count(tmp_path: Path) -> None:
    host = found(
        tmp_path,
        **V2,
        **{
            "sys/fs/cgroup/box/cpu.max": "100000 100000\n",
            "sys/fs/cgroup/box/inner/cpu.max": "max 100000\n",
            "sys/fs/cgroup/box/inner/memory.max": str(4 * GIB),
            "sys/fs/cgroup/box/inner/memory.current": str(3 * GIB),
            "sys/fs/cgroup/box/inner/memory.stat": f"anon 1\ninactive_file {GIB}\n",
        },
    )
    assert host.cores == 1
    assert (host.memory_bytes, host.free_memory_bytes) == (4 * GIB, 2 * GIB)


def test_cgroup_v1_limits_at_the_mount_of_a_container(tmp_path: Path) -> None:
    host = found(
        tmp_path,
        **V1,
        **{  # /docker/abc is the path outside: inside only the mount itself exists
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "50000",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": str(2 * GIB),
            "sys/fs/cgroup/memory/memory.usage_in_bytes": str(GIB),
            "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 0\n",
        },
    )
    assert host.cores == 1
    assert (host.memory_bytes, host.free_memory_bytes) == (2 * GIB, GIB)


def test_unlimited_cgroups_limit_nothing(tmp_path: Path) -> None:
    host = found(
        tmp_path,
        **V1,
        **{
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            "sys/fs/cgroup/memory/memory.usage_in_bytes": str(GIB),
        },
    )
    assert host.cores == len(os.sched_getaffinity(0))
    assert (host.memory_bytes, host.free_memory_bytes) == (32 * GIB, 24 * GIB)


@pytest.mark.parametrize(
    ("os_release", "distribution", "manager"),
    [
        ('ID=debian\nVERSION_ID="12"\n', "debian", "apt"),
        ("ID=linuxmint\nID_LIKE='ubuntu debian'\n", "linuxmint", "apt"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"\n', "rocky", "dnf"),
        ("ID=manjaro\nID_LIKE=arch\n", "manjaro", "pacman"),
        ('ID="opensuse-tumbleweed"\nID_LIKE="opensuse suse"\n', "opensuse-tumbleweed", "zypper"),
        ("ID=alpine\n", "alpine", "apk"),
        ("ID=nixos\n", "nixos", ""),
        ('ID="unclosed\n', "", ""),
    ],
)
def test_package_manager(tmp_path: Path, os_release: str, distribution: str, manager: str) -> None:
    host = found(tmp_path, **{"etc/os-release": os_release})
    assert (host.distribution_id, host.package_manager) == (distribution, manager)


def test_cpu_digest_follows_instructions_not_kernel_inventions(tmp_path: Path) -> None:
    before = found(tmp_path / "a")
    newer_kernel = found(
        tmp_path / "b", **{"proc/cpuinfo": CPUINFO.replace("md_clear", "its_no rrsba_ctrl tsc_adjust")}
    )
    without_avx2 = found(tmp_path / "c", **{"proc/cpuinfo": CPUINFO.replace(" avx2", "")})
    assert before.cpu_model == "Example(R) CPU @ 3.00GHz"
    assert newer_kernel.cpu_flags_digest == before.cpu_flags_digest
    assert without_avx2.cpu_flags_digest != before.cpu_flags_digest


def test_arm_features_count(tmp_path: Path) -> None:
    arm = "processor\t: 0\nFeatures\t: fp asimd sve\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n"
    one = found(tmp_path / "a", **{"proc/cpuinfo": arm})
    other = found(tmp_path / "b", **{"proc/cpuinfo": arm.replace(" sve", "")})
    assert one.cpu_flags_digest != other.cpu_flags_digest


def test_mac(tmp_path: Path) -> None:
    make_program(
        tmp_path,
        "sysctl",
        "hw.memsize: 17179869184\nhw.logicalcpu: 10\nmachdep.cpu.brand_string: Apple M9\nhw.optional.neon: 1",
    )
    make_program(
        tmp_path,
        "vm_stat",
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\n"
        "Pages free:   100.\nPages active: 7.\nPages inactive: 28.",
    )
    host = detect_host(path_of(tmp_path), system="Darwin")
    expected = Host(
        os="darwin",
        machine=platform.machine(),
        cpu_model="Apple M9",
        cpu_flags_digest=host.cpu_flags_digest,
        cores=10,
        memory_bytes=16 * GIB,
        free_memory_bytes=128 * 16384,
        distribution_id="macos",
        package_manager="brew",
    )
    assert host == expected
    make_program(tmp_path, "sysctl", "hw.logicalcpu: 10\nhw.optional.neon: 0")
    assert detect_host(path_of(tmp_path), system="Darwin").cpu_flags_digest != host.cpu_flags_digest


def test_host_is_a_value() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        detect_host(os.environ).cores = 3  # type: ignore[misc]
