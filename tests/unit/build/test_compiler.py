"""The C and C++ compilers, and the g++ that nvcc accepts."""

import os
import shutil
from pathlib import Path

import pytest

from llama_mgr.build.discovery import version_key
from llama_mgr.build.toolchain import find_toolchain, install_line
from llama_mgr.errors import BadInputError
from tests.tools.build_examples import HOST, recipe
from tests.tools.fake_program import GCC_12, make_compiler, make_program, path_of
from tests.tools.toolchain_search import NVCC, found, missing

# -- the C and C++ compilers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first_line", "family", "version"),
    [
        (GCC_12, "Free Software Foundation", "gcc 12.2.0 x86_64-linux-gnu"),
        ("gcc (GCC) 14.2.1 20240912 (Red Hat 14.2.1-3)", "Free Software Foundation", "gcc 14.2.1 x86_64-linux-gnu"),
        ("Ubuntu clang version 18.1.3 (1ubuntu1)", "Target: x", "clang 18.1.3 x86_64-linux-gnu"),
        ("Apple clang version 15.0.0 (clang-1500.3.9.4)", "Target: x", "apple-clang 15.0.0 x86_64-linux-gnu"),
        ("Intel(R) oneAPI DPC++/C++ Compiler 2025.0.4 (2025)", "Target: x", "icx 2025.0.4 x86_64-linux-gnu"),
    ],
)
def test_compiler_family_version_and_target(tmp_path: Path, first_line: str, family: str, version: str) -> None:
    for name in ("cc", "c++"):
        make_compiler(tmp_path, name, first_line, family=family)
    toolchain = found("", path_of(tmp_path))
    assert toolchain.tools["c++"].version == version
    assert toolchain.facts["tool.c"] == str(tmp_path / "cc")


def test_real_compilers() -> None:
    toolchain = found("", dict(os.environ))
    assert toolchain.missing == []
    family, version, target = toolchain.tools["c++"].version.split()
    assert family in {"gcc", "clang", "apple-clang"}
    assert version_key(version)[0] >= 4
    assert "-" in target


def test_cc_and_cxx_choose(bin_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = make_compiler(bin_dir, "g++-11", "g++-11 (Debian) 11.3.0")
    toolchain = found("", {**path_of(bin_dir), "CXX": "ccache g++-11", "CC": str(bin_dir / "cc")})
    assert toolchain.tools["c++"].path == chosen
    assert toolchain.tools["c"].path == bin_dir / "cc"
    monkeypatch.chdir(bin_dir)
    why = missing(found("", {**path_of(bin_dir), "CXX": "./g++-11"}))["c++"]
    assert why == "CXX names ./g++-11, which is no working compiler"


@pytest.mark.parametrize("value", ["g++ -m32", "g++ '"])
def test_cxx_with_more_than_a_program_is_refused(bin_dir: Path, value: str) -> None:
    with pytest.raises(BadInputError, match="CXX"):
        found("", {**path_of(bin_dir), "CXX": value})


def test_no_compiler(tmp_path: Path) -> None:
    toolchain = found("", path_of(tmp_path))
    assert set(missing(toolchain)) == {"c", "c++"}
    assert install_line(toolchain.missing, "apt") == "apt install gcc g++"
    assert install_line(toolchain.missing, "dnf") == "dnf install gcc gcc-c++"


# -- nvcc and the g++ that it accepts ----------------------------------------------------------------------------------


@pytest.fixture
def cuda(tmp_path: Path) -> Path:
    """A toolkit's bin/ with an nvcc 12.4 that accepts gcc up to 13."""
    make_program(tmp_path / "cuda" / "bin", "nvcc", "Cuda compilation tools, release 12.4, V12.4.131")
    header = tmp_path / "cuda" / "include" / "crt" / "host_config.h"
    header.parent.mkdir(parents=True)
    header.write_text(
        "#if __GNUC__ > 13\n#error -- unsupported GNU version! gcc versions later than 13 are not supported!\n"
    )
    return tmp_path / "cuda" / "bin"


def gcc(directory: Path, name: str, major: int) -> Path:
    return make_compiler(directory, name, f"{name} (Debian {major}.1.0-1) {major}.1.0")


def test_default_gcc_that_nvcc_accepts_needs_no_choice(bin_dir: Path, cuda: Path) -> None:
    toolchain = found(NVCC, path_of(bin_dir, cuda))
    assert toolchain.missing == []
    assert toolchain.facts["cuda.gcc-max"] == "13"
    assert toolchain.tools["nvcc"].version == "12.4"
    assert "cuda.host-cxx" not in toolchain.facts


def test_newest_older_gcc_is_chosen(bin_dir: Path, cuda: Path) -> None:
    gcc(bin_dir, "g++", 14)
    gcc(bin_dir, "c++", 14)
    gcc(bin_dir, "g++-11", 11)
    thirteen = gcc(bin_dir, "g++-13", 13)
    gcc(bin_dir, "g++-14", 14)
    assert found(NVCC, path_of(bin_dir, cuda)).facts["cuda.host-cxx"] == str(thirteen)


def test_cxx_that_nvcc_accepts_is_chosen(bin_dir: Path, cuda: Path) -> None:
    gcc(bin_dir, "g++", 14)
    twelve = gcc(bin_dir, "my-g++", 12)
    toolchain = found(NVCC, {**path_of(bin_dir, cuda), "CXX": "my-g++"})
    assert toolchain.facts["cuda.host-cxx"] == str(twelve)


def test_cudahostcxx_chooses(bin_dir: Path, cuda: Path) -> None:
    gcc(bin_dir, "g++", 14)
    twelve = gcc(bin_dir, "my-g++", 12)
    environ = {**path_of(bin_dir, cuda), "CUDAHOSTCXX": str(twelve)}
    assert found(NVCC, environ).facts["cuda.host-cxx"] == str(twelve)
    assert "CUDAHOSTCXX" in missing(found(NVCC, {**environ, "CUDAHOSTCXX": "nowhere"}))


def test_defined_host_compiler_is_the_users_business(bin_dir: Path, cuda: Path) -> None:
    gcc(bin_dir, "g++", 14)
    gcc(bin_dir, "c++", 14)
    known = {"define.CMAKE_CUDA_HOST_COMPILER": "/opt/gcc/bin/g++"}
    toolchain = find_toolchain([recipe(NVCC)], None, HOST, path_of(bin_dir, cuda), {}, known=known)
    assert toolchain.missing == []
    assert "cuda.host-cxx" not in toolchain.facts


def test_no_gcc_that_nvcc_accepts(bin_dir: Path, cuda: Path) -> None:
    gcc(bin_dir, "g++", 14)
    gcc(bin_dir, "c++", 14)
    toolchain = found(NVCC, path_of(bin_dir, cuda))
    assert missing(toolchain) == {"g++-13": f"nvcc 12.4 accepts gcc up to 13, and {bin_dir}/g++ is 14"}
    assert install_line(toolchain.missing, "apt") == "apt install g++-13"
    assert "g++-13 or older, or a newer CUDA toolkit" in install_line(toolchain.missing, "pacman")


@pytest.mark.skipif(not shutil.which("nvcc"), reason="no CUDA toolkit here")
def test_real_nvcc() -> None:
    toolchain = found(NVCC, dict(os.environ))
    assert version_key(toolchain.tools["nvcc"].version) >= (10, 0)
    assert Path(toolchain.facts["cuda.root"], "include", "crt", "host_config.h").is_file()
    assert int(toolchain.facts["cuda.gcc-max"]) >= 8
