"""The memory of GPUs: NVIDIA's by a program, AMD's by files, Apple's by what Metal may use."""

import os
import re
import time
from pathlib import Path

import pytest

from llama_mgr.build.gpu_memory import GpuMemory, gpu_memory
from llama_mgr.build.host import detect_host, host_memory
from tests.tools.build_examples import GIB
from tests.tools.fake_program import make_program, path_of

MIB = 1024**2


@pytest.fixture
def root(tmp_path: Path) -> Path:
    boot = tmp_path / "root/proc/sys/kernel/random/boot_id"
    boot.parent.mkdir(parents=True)
    boot.write_text("0d4f\n")
    return tmp_path / "root"


def nvidia_smi(directory: Path, *lines: str, status: int = 0) -> Path:
    """Put a program into `directory` that says `lines` and counts how often it is asked."""
    counter = directory / "asked"
    said = "\\n".join(lines)
    script = f"echo >> {counter}\nprintf '{said}\\n'\nexit {status}"
    make_program(directory, "nvidia-smi", script=script)
    return counter


def times_asked(counter: Path) -> int:
    return len(counter.read_text().splitlines()) if counter.exists() else 0


def asked(programs: Path, tmp_path: Path, root: Path, *, fresh: bool = False, system: str = "Linux") -> GpuMemory:
    return gpu_memory(
        path_of(programs),
        tmp_path / "cache",
        memory_bytes=32 * GIB,
        free_memory_bytes=20 * GIB,
        fresh=fresh,
        root=root,
        system=system,
    )


def test_no_gpu(tmp_path: Path, root: Path) -> None:
    assert asked(tmp_path / "nothing", tmp_path, root) == GpuMemory()
    assert not (tmp_path / "cache").exists()


def test_nvidia_is_asked_once_per_boot(tmp_path: Path, root: Path) -> None:
    counter = nvidia_smi(tmp_path / "bin", "24564, 20000", "24564, 24000")
    first = asked(tmp_path / "bin", tmp_path, root)
    assert first == GpuMemory(2 * 24564 * MIB, 44000 * MIB)
    assert asked(tmp_path / "bin", tmp_path, root) == GpuMemory(2 * 24564 * MIB, 2 * 24564 * MIB)
    assert times_asked(counter) == 1
    (root / "proc/sys/kernel/random/boot_id").write_text("77aa\n")
    asked(tmp_path / "bin", tmp_path, root)
    assert times_asked(counter) == 2


def test_fresh_asks_again(tmp_path: Path, root: Path) -> None:
    counter = nvidia_smi(tmp_path / "bin", "8192, 8000")
    asked(tmp_path / "bin", tmp_path, root)
    nvidia_smi(tmp_path / "bin", "8192, 100")
    assert asked(tmp_path / "bin", tmp_path, root, fresh=True) == GpuMemory(8192 * MIB, 100 * MIB)
    assert times_asked(counter) == 2


def test_a_failure_is_remembered_for_a_minute_only(tmp_path: Path, root: Path) -> None:
    counter = nvidia_smi(tmp_path / "bin", "8192, 8000", status=9)
    assert asked(tmp_path / "bin", tmp_path, root) == asked(tmp_path / "bin", tmp_path, root) == GpuMemory()
    assert times_asked(counter) == 1
    kept = tmp_path / "cache/gpu-memory.json"
    kept.write_text(
        re.sub(r'"failed_at_s": ?\d+', lambda found: f"{found[0][:-10]}{time.time() - 61:.0f}", kept.read_text())
    )
    script = tmp_path / "bin/nvidia-smi"
    changed = script.stat().st_mtime_ns
    nvidia_smi(tmp_path / "bin", "8192, 8000")
    os.utime(script, ns=(changed, changed))  # the same driver
    assert asked(tmp_path / "bin", tmp_path, root).total_bytes == 8192 * MIB
    assert times_asked(counter) == 2


def test_a_failure_of_tomorrow_counts_for_nothing(tmp_path: Path, root: Path) -> None:
    """The clock was set back."""
    counter = nvidia_smi(tmp_path / "bin", status=9)
    asked(tmp_path / "bin", tmp_path, root)
    kept = tmp_path / "cache/gpu-memory.json"
    kept.write_text(re.sub(r'"failed_at_s": ?\d+', lambda found: f"{found[0][:-10]}9999999999", kept.read_text()))
    asked(tmp_path / "bin", tmp_path, root)
    assert times_asked(counter) == 2


def test_a_gpu_without_memory_of_its_own_is_an_answer(tmp_path: Path, root: Path) -> None:
    nvidia_smi(tmp_path / "bin", "[N/A], [N/A]")
    asked(tmp_path / "bin", tmp_path, root)
    assert '"failed_at_s":null' in (tmp_path / "cache/gpu-memory.json").read_text().replace(" ", "")


def test_another_driver_is_asked(tmp_path: Path, root: Path) -> None:
    counter = nvidia_smi(tmp_path / "bin", status=9)
    assert asked(tmp_path / "bin", tmp_path, root) == GpuMemory()
    assert asked(tmp_path / "bin", tmp_path, root) == GpuMemory()
    assert times_asked(counter) == 1
    (tmp_path / "bin/nvidia-smi").unlink()
    time.sleep(0.01)  # another time of change
    nvidia_smi(tmp_path / "bin", "8192, 8000")
    assert asked(tmp_path / "bin", tmp_path, root).total_bytes == 8192 * MIB


@pytest.mark.parametrize("said", ["[N/A], [N/A]", "NVIDIA-SMI has failed because", "", "99999999999999, 1", "1.5, 2"])
def test_answers_without_numbers_are_none(said: str, tmp_path: Path, root: Path) -> None:
    nvidia_smi(tmp_path / "bin", said)
    assert asked(tmp_path / "bin", tmp_path, root) == GpuMemory()


@pytest.mark.parametrize("damaged", ["", "{", '{"schema": 1, "kind": "other"}', '{"schema": 99}'])
def test_a_damaged_cache_is_written_again(damaged: str, tmp_path: Path, root: Path) -> None:
    counter = nvidia_smi(tmp_path / "bin", "8192, 8000")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/gpu-memory.json").write_text(damaged)
    asked(tmp_path / "bin", tmp_path, root)
    assert asked(tmp_path / "bin", tmp_path, root).total_bytes == 8192 * MIB
    assert times_asked(counter) == 1


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path, root: Path) -> None:
    nvidia_smi(tmp_path / "bin", "8192, 8000")
    (tmp_path / "cache").write_text("a file is in the way")
    assert asked(tmp_path / "bin", tmp_path, root).total_bytes == 8192 * MIB


def amd_card(root: Path, number: int, total: object, used: object) -> None:
    device = root / f"sys/class/drm/card{number}/device"
    device.mkdir(parents=True)
    (device / "mem_info_vram_total").write_text(f"{total}\n")
    (device / "mem_info_vram_used").write_text(f"{used}\n")


def test_amd(tmp_path: Path, root: Path) -> None:
    amd_card(root, 0, 16 * GIB, GIB)
    amd_card(root, 1, 8 * GIB, 0)
    (root / "sys/class/drm/card0-DP-1").mkdir()
    assert asked(tmp_path, tmp_path, root) == GpuMemory(24 * GIB, 23 * GIB)


def test_amd_that_says_nonsense(tmp_path: Path, root: Path) -> None:
    amd_card(root, 0, "many", 5)
    amd_card(root, 1, 8 * GIB, 9 * GIB)
    assert asked(tmp_path, tmp_path, root) == GpuMemory(8 * GIB, 0)


def test_of_two_makers_the_one_with_more(tmp_path: Path, root: Path) -> None:
    nvidia_smi(tmp_path / "bin", "24564, 20000")
    amd_card(root, 0, 512 * MIB, 0)
    assert asked(tmp_path / "bin", tmp_path, root).total_bytes == 24564 * MIB


def sysctl(directory: Path, **values: object) -> Path:
    lines = [f"{name.replace('__', '.')}: {value}" for name, value in values.items()]
    make_program(directory, "sysctl", "\n".join(lines))
    return directory


@pytest.mark.parametrize(
    ("memory", "limit", "expected"),
    [(16, 0, 16 * 2 / 3), (32, 0, 32 * 2 / 3), (64, 0, 48), (128, 0, 96), (32, 28 * 1024, 28), (32, 99 * 1024, 32)],
)
def test_what_metal_may_use(memory: int, limit: int, expected: float, tmp_path: Path) -> None:
    programs = sysctl(tmp_path / "bin", hw__optional__arm64=1, iogpu__wired_limit_mb=limit)
    found = gpu_memory(
        path_of(programs),
        tmp_path,
        memory_bytes=memory * GIB,
        free_memory_bytes=10 * GIB,
        system="Darwin",
    )
    assert found == GpuMemory(int(expected * GIB), 10 * GIB, is_ram=True)


def test_an_intel_mac_counts_without_gpu(tmp_path: Path, root: Path) -> None:
    programs = sysctl(tmp_path / "bin", hw__memsize=1)
    assert asked(programs, tmp_path, root, system="Darwin") == GpuMemory()


def test_the_memory_alone_is_that_of_the_host(tmp_path: Path, root: Path) -> None:
    (root / "proc/meminfo").write_text("MemTotal: 1048576 kB\nMemAvailable: 524288 kB\n")
    host = detect_host({}, root=root, system="Linux")
    assert host_memory({}, root=root, system="Linux") == (host.memory_bytes, host.free_memory_bytes) == (GIB, GIB // 2)
    programs = sysctl(tmp_path / "bin", hw__memsize=8 * GIB)
    said = "Mach Virtual Memory Statistics: (page size of 16384 bytes)\nPages free: 100.\nPages inactive: 28."
    make_program(programs, "vm_stat", said)
    environ = path_of(programs)
    assert host_memory(environ, system="Darwin") == (8 * GIB, 128 * 16384)
