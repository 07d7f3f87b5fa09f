"""What ccache is told, and its counts; with the real ccache and the real compiler."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from llama_mgr.build.cache import CacheCounts, CompilerCache, counts_of, is_size
from llama_mgr.errors import StorageError
from llama_mgr.process import child_environ
from tests.tools.tiny_build import program

CCACHE = program("ccache")
needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
STATS = """# ../source/a.c
cache_miss
direct_cache_miss
local_storage_write
# ../source/b.c
direct_cache_hit
local_storage_hit
# ../source/c d.c
direct_cache_miss
preprocessed_cache_hit
# /x/link
called_for_link
"""


def staged(place: Path, name: str) -> Path:
    source = place / name / "source" / "a.c"
    source.parent.mkdir(parents=True)
    (place / name / "build").mkdir()
    source.write_text("const char * where(void) { return __FILE__; }\n")
    return place / name


def compile_in(directory: Path, cache: CompilerCache, *flags: str) -> None:
    environ = child_environ(os.environ, **cache.environ())
    source = directory / "source" / "a.c"
    argv = [str(CCACHE), "cc", "-g", *flags, "-c", str(source), "-o", "a.o"]
    subprocess.run(argv, check=True, env=environ, cwd=directory / "build")


def test_hits_of_both_kinds_and_misses_are_counted(tmp_path: Path) -> None:
    log = tmp_path / "stats"
    log.write_text(STATS)
    assert counts_of(log) == CacheCounts(hits=2, misses=1)


def test_a_build_without_compilation_counts_nothing(tmp_path: Path) -> None:
    assert counts_of(tmp_path / "none") == CacheCounts()


def test_no_ccache_no_change(tmp_path: Path) -> None:
    cache = CompilerCache(None, tmp_path / "ccache", base_dir=tmp_path)
    assert cache.environ() == {}
    assert cache.defines(["C", "CXX"]) == {}
    assert not (tmp_path / "ccache").exists()


def test_launchers_only_for_the_languages_in_use(tmp_path: Path) -> None:
    cache = CompilerCache(Path("/opt/ccache"), tmp_path, base_dir=tmp_path)
    assert cache.defines(["C", "CUDA"]) == {
        "CMAKE_C_COMPILER_LAUNCHER": "/opt/ccache",
        "CMAKE_CUDA_COMPILER_LAUNCHER": "/opt/ccache",
        "CMAKE_UNITY_BUILD_RELOCATABLE": "ON",
    }


def test_a_remote_is_used_only_when_asked_for(tmp_path: Path) -> None:
    here = CompilerCache(Path("/c"), tmp_path, base_dir=tmp_path).environ()
    shared = CompilerCache(
        Path("/c"), tmp_path, base_dir=tmp_path, remote="redis://cache:6379", max_size="3G"
    ).environ()
    assert "CCACHE_REMOTE_STORAGE" not in here
    assert shared["CCACHE_REMOTE_STORAGE"] == "redis://cache:6379"
    assert shared["CCACHE_COMPILERCHECK"] == "content"
    assert shared["CCACHE_MAXSIZE"] == "3G"


def test_a_cache_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot make the compiler cache"):
        CompilerCache(Path("/c"), tmp_path / "file" / "ccache", base_dir=tmp_path).environ()


@pytest.mark.parametrize("size", ["", "abc", "10 Gigs", "-1G", "10G\n"])
def test_a_size_that_ccache_would_refuse(size: str) -> None:
    assert not is_size(size)


@needs_compiler
@pytest.mark.parametrize("size", ["0", "10G", "500M", "1.5T", "5GiB", "5 GB", "100k"])
def test_a_size_that_passes_is_one_that_ccache_takes(tmp_path: Path, size: str) -> None:
    assert is_size(size)
    directory = staged(tmp_path, "op")
    cache = CompilerCache(CCACHE, tmp_path / "ccache", base_dir=directory, max_size=size)
    compile_in(directory, cache)
    assert cache.counts() == CacheCounts(hits=0, misses=1)


@needs_compiler
def test_the_same_tree_in_another_directory_hits(tmp_path: Path) -> None:
    counts = []
    for name in ("op1", "op2"):
        directory = staged(tmp_path, name)
        cache = CompilerCache(CCACHE, tmp_path / "ccache", base_dir=directory)
        compile_in(directory, cache)
        counts.append(cache.counts())
    assert counts == [CacheCounts(hits=0, misses=1), CacheCounts(hits=1, misses=0)]


@needs_compiler
def test_the_users_ccache_configuration_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "user"
    (home / ".config" / "ccache").mkdir(parents=True)
    (home / ".config" / "ccache" / "ccache.conf").write_text("disable = true\nprefix_command = /nonexistent\n")
    (home / ".ccache").mkdir()
    (home / ".ccache" / "ccache.conf").write_text("disable = true\n")
    monkeypatch.setenv("HOME", str(home))
    directory = staged(tmp_path, "op")
    cache = CompilerCache(CCACHE, tmp_path / "ccache", base_dir=directory)
    compile_in(directory, cache)
    assert cache.counts() == CacheCounts(hits=0, misses=1)


@needs_compiler
def test_another_flag_misses(tmp_path: Path) -> None:
    directory = staged(tmp_path, "op")
    cache = CompilerCache(CCACHE, tmp_path / "ccache", base_dir=directory)
    compile_in(directory, cache, "-O1")
    compile_in(directory, cache, "-O2")
    assert cache.counts() == CacheCounts(hits=0, misses=2)
