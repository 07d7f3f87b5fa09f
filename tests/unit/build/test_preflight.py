"""What is refused or said before the first compiler runs."""

import dataclasses
from pathlib import Path

import pytest

from llama_mgr.build import preflight
from llama_mgr.build.host import Host
from llama_mgr.build.resolve import Resolved, Setting
from llama_mgr.build.toolchain import Toolchain
from llama_mgr.errors import BadInputError, NoSpaceError, StorageError
from llama_mgr.paths import Home
from tests.tools.build_examples import GIB, HOST, RESOLVED
from tests.tools.listener import Listener


@pytest.mark.parametrize(
    ("cores", "free_bytes", "job_memory_mib", "expected"),
    [
        (8, 16 * GIB, 1024, 8),  # cores decide
        (8, 16 * GIB, 3072, 5),  # memory decides
        (8, GIB, 3072, 1),  # never none
        (8, 0, 3072, 8),  # free memory unknown
        (8, GIB, 0, 8),  # need unknown
    ],
)
def test_jobs_by_cores_and_free_memory(cores: int, free_bytes: int, job_memory_mib: int, expected: int) -> None:
    host = dataclasses.replace(HOST, cores=cores, free_memory_bytes=free_bytes)
    assert preflight.jobs(host, job_memory_mib, None) == expected


@pytest.mark.parametrize("asked", [1, 8, 32])
def test_asked_jobs_within_the_cap_are_taken(asked: int) -> None:
    preflight.check_jobs(asked, HOST, "cannot use --parallel")
    assert preflight.jobs(HOST, 3072, asked) == asked


@pytest.mark.parametrize("asked", [0, -3, 33, 10**9])
def test_asked_jobs_beyond_the_cap_are_refused(asked: int) -> None:
    with pytest.raises(BadInputError, match=rf"--parallel '{asked}': 1 to 32 are allowed .* 8 cores"):
        preflight.check_jobs(asked, HOST, "cannot use --parallel")


def check(
    home: Home,
    resolved: Resolved = RESOLVED,
    facts: dict[str, str] | None = None,
    host: Host = HOST,
    cache_dir: Path | None = None,
) -> Listener:
    heard = Listener()
    preflight.check_before_start(resolved, Toolchain(facts=facts or {}), host, home, heard, cache_dir)
    return heard


def test_enough_of_everything_is_silent(home: Home) -> None:
    heard = check(home, facts={"gpu.present": "yes", "gpu.archs": "86"})
    assert (heard.notes, heard.warnings) == ([], [])
    assert list(home.root.iterdir()) == [], "checks change nothing on disk"


def test_full_disk_is_refused_with_both_numbers(home: Home) -> None:
    huge = dataclasses.replace(RESOLVED, disk_mib=1024 * 1024 * 1024)
    with pytest.raises(NoSpaceError, match=r"needs about 1024\.0 TiB, and .* are free"):
        check(home, huge)


def test_what_is_built_without_a_gpu_is_said(home: Home) -> None:
    facts = {"gpu.archs": "75-virtual", "cuda.host-cxx": "/usr/bin/g++-13", "cuda.gcc-max": "13"}
    by_recipe = {"CMAKE_CUDA_ARCHITECTURES": Setting("CMAKE_CUDA_ARCHITECTURES", "75-virtual", "cuda")}
    about_nvcc = "nvcc uses /usr/bin/g++-13: it accepts gcc up to 13"
    notes = check(home, dataclasses.replace(RESOLVED, defines=by_recipe), facts=facts).notes
    assert notes == ["no GPU of this kind is here: building for 75-virtual", about_nvcc]
    by_user = {"CMAKE_CUDA_ARCHITECTURES": Setting("CMAKE_CUDA_ARCHITECTURES", "80", "--define")}
    assert check(home, dataclasses.replace(RESOLVED, defines=by_user), facts=facts).notes == [about_nvcc]


def test_little_memory_is_a_warning(home: Home) -> None:
    warnings = check(home, host=dataclasses.replace(HOST, free_memory_bytes=GIB)).warnings
    assert warnings == ["only 1.0 GiB of memory are free, and one compile job may need 3.0 GiB"]


def other_file_system(home: Home) -> Path:
    device = home.root.stat().st_dev
    for place in map(Path, ("/dev/shm", "/run", "/proc")):  # noqa: S108 (only looked at)
        if place.is_dir() and place.stat().st_dev != device:
            return place
    pytest.skip("there is only one file system here")


def test_builds_on_another_file_system_are_refused_early(home: Home) -> None:
    home.builds_dir.symlink_to(other_file_system(home))
    with pytest.raises(StorageError, match="different file systems"):
        check(home)


def test_compiler_cache_on_another_file_system_needs_room_there(home: Home) -> None:
    place = Path("/proc")  # a file system without any free block
    if not place.is_dir():
        pytest.skip("there is no /proc here")
    home.cache_dir.mkdir()
    home.ccache_dir.symlink_to(place)
    small = dataclasses.replace(RESOLVED, disk_mib=100)
    with pytest.raises(NoSpaceError, match="compiled objects"):
        check(home, small, cache_dir=home.ccache_dir)
    with pytest.raises(NoSpaceError, match="compiled objects"):
        check(home, small, cache_dir=place / "cache")
    check(home, small, cache_dir=None)  # a cache that is not used needs no room
