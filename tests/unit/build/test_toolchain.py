"""Development files and GPUs, and how everything that is missing is named at once."""

import os
import shutil
from pathlib import Path

import pytest

from llama_mgr.build.toolchain import install_line, require_all
from llama_mgr.errors import MissingToolsError
from tests.tools.fake_program import make_program, path_of
from tests.tools.toolchain_search import NVCC, found, missing

# -- development files -------------------------------------------------------------------------------------------------

VULKAN = """
[[file]]
name = "Vulkan headers"
header = "vulkan/vulkan_core.h"
roots = ["{env.VULKAN_SDK}"]
fact = "lib.vulkan"
version-pattern = '^#define VK_HEADER_VERSION (\\d+)'
at-least = "272"
packages = {apt = ["libvulkan-dev"]}
"""


def test_header_version_is_checked(bin_dir: Path, tmp_path: Path) -> None:
    header = tmp_path / "sdk" / "include" / "vulkan" / "vulkan_core.h"
    header.parent.mkdir(parents=True)
    environ = {**path_of(bin_dir), "VULKAN_SDK": str(tmp_path / "sdk")}
    chain = f'inherit-environ = ["VULKAN_SDK"]\n{VULKAN}'
    header.write_text("#define VK_HEADER_VERSION_COMPLETE 1\n#define VK_HEADER_VERSION 239\n")
    old = found(chain, environ)
    assert missing(old)["Vulkan headers"] == f"{header} is 239, and 272 or newer is needed"
    assert "lib.vulkan" not in old.facts
    header.write_text("#define VK_HEADER_VERSION 275\n")
    new = found(chain, environ)
    assert new.missing == []
    assert (new.facts["lib.vulkan"], new.facts["lib.vulkan.version"]) == (str(header), "275")


@pytest.mark.parametrize(
    "place", ["lib/libcublas.so", "lib64/libcublas.so", "targets/x86_64-linux/lib/libcublas.so.13"]
)
def test_library_below_a_root(bin_dir: Path, tmp_path: Path, place: str) -> None:
    library = tmp_path / "kit" / place
    library.parent.mkdir(parents=True)
    chain = f"""
    [[file]]
    name = "cuBLAS"
    library = ["libcublas.so", "libcublas.so.1?"]
    roots = ["{tmp_path}/kit"]
    fact = "lib.cublas"
    """
    assert set(missing(found(chain, path_of(bin_dir)))) == {"cuBLAS"}
    library.touch()
    assert found(chain, path_of(bin_dir)).facts["lib.cublas"] == str(library)


@pytest.mark.parametrize(
    "place",
    [
        "lib/cmake/hipblas/hipblas-config.cmake",
        "lib64/cmake/hipBLAS-2.1/hipblasConfig.cmake",
        "share/hipblas/cmake/hipblas-config.cmake",
    ],
)
def test_cmake_package_below_a_root(bin_dir: Path, tmp_path: Path, place: str) -> None:
    chain = f"""
    [[file]]
    name = "hipBLAS"
    cmake-package = "hipblas"
    roots = ["{tmp_path}/rocm"]
    """
    assert set(missing(found(chain, path_of(bin_dir)))) == {"hipBLAS"}
    (tmp_path / "rocm" / place).parent.mkdir(parents=True)
    (tmp_path / "rocm" / place).touch()
    assert found(chain, path_of(bin_dir)).missing == []


def test_the_compilers_own_directories_are_searched() -> None:
    chain = """
    file = [
      {name = "C library headers", header = "stdio.h", fact = "lib.c"},
      {name = "C library", library = ["libc.so", "libc.tbd"]},
      {name = "nothing", header = "no/such/header.h", library = "libnosuch.so", optional = true, fact = "lib.nothing"},
    ]
    """
    toolchain = found(chain, dict(os.environ))
    assert toolchain.missing == []
    assert toolchain.facts["lib.c"].endswith("/stdio.h")
    assert "lib.nothing" not in toolchain.facts


# -- GPUs --------------------------------------------------------------------------------------------------------------

NVIDIA = """
[gpu]
detect = [{command = ["nvidia-smi", "--query-gpu=compute_cap"], pattern = '(\\d+)\\.(\\d+)'}]
fallback = [
  {value = "61-virtual;86-real", when = {fact = {"tool.nvcc.version" = "<11.8"}}},
  {value = "75-virtual;120a-real"},
]
"""


def test_gpu_architectures_sorted_once(bin_dir: Path) -> None:
    make_program(bin_dir, "nvidia-smi", "12.0\n8.6\n8.6")
    facts = found(NVIDIA, path_of(bin_dir)).facts
    assert (facts["gpu.archs"], facts["gpu.present"]) == ("86;120", "yes")


@pytest.mark.parametrize("says", ["No devices were found", ""])
def test_no_gpu_takes_the_first_fallback_that_holds(bin_dir: Path, says: str) -> None:
    make_program(bin_dir, "nvidia-smi", says, status=6)
    facts = found(NVIDIA, path_of(bin_dir)).facts
    assert facts["gpu.archs"] == "75-virtual;120a-real"
    assert "gpu.present" not in facts
    make_program(bin_dir, "nvcc", "release 11.5")
    assert found(NVCC + NVIDIA, path_of(bin_dir)).facts["gpu.archs"] == "61-virtual;86-real"


def test_amd_probes_in_order_with_drop_list(bin_dir: Path, tmp_path: Path) -> None:
    make_program(tmp_path / "rocm" / "bin", "rocm_agent_enumerator", "gfx000\ngfx1036\ngfx1100\ngfx90a")
    make_program(bin_dir, "hipconfig", str(tmp_path / "rocm"))
    make_program(bin_dir, "rocminfo", "  Name:      gfx906\n  Name:   amdgcn-amd-amdhsa--gfx906:sramecc+:xnack-")
    chain = """
    [[tool]]
    name = "hipconfig"
    find = ["path:hipconfig"]
    version-command = []
    facts = [{name = "rocm.root", command = ["{path}", "-R"]}]
    [gpu]
    detect = [
      {command = ["{rocm.root}/bin/rocm_agent_enumerator", "-t", "GPU"], pattern = '^(gfx[0-9a-f]+)', drop = DROP},
      {command = ["rocminfo"], pattern = '^\\s*Name:\\s+(gfx[0-9a-f]+)'},
    ]
    """
    chain = chain.replace("DROP", '["gfx000", "gfx1036"]')
    assert found(chain, path_of(bin_dir)).facts["gpu.archs"] == "gfx90a;gfx1100"
    shutil.rmtree(tmp_path / "rocm" / "bin")
    assert found(chain, path_of(bin_dir)).facts["gpu.archs"] == "gfx906"


# -- saying what is missing --------------------------------------------------------------------------------------------


def test_everything_missing_is_named_in_one_error(tmp_path: Path) -> None:
    chain = f"""
    tool = [
      {{name = "glslc", find = ["path:glslc"], packages = {{apt = ["glslc"], pacman = ["shaderc"]}}}},
      {{name = "icpx", find = ["path:icpx"], hint = "oneAPI for {{tool.cmake.version}}, not {{unknown.version}}"}},
      {{name = "cmake", find = ["bundled:cmake"], version-pattern = '(\\d)'}},
    ]
    {VULKAN}
    """
    toolchain = found(chain, path_of(tmp_path))
    with pytest.raises(MissingToolsError) as raised:
        require_all(toolchain)
    error = raised.value
    assert error.exit_status == 8
    for name in ("glslc", "icpx", "c++", "Vulkan headers"):
        assert f"{name}: " in error.message
    assert "cmake" not in error.message
    assert error.hint is not None
    line, _, words = error.hint.partition("; ")
    assert line.startswith("apt install ")
    assert set(line.split()[2:]) == {"glslc", "gcc", "g++", "libvulkan-dev"}
    assert words == f"oneAPI for {toolchain.facts['tool.cmake.version']}, not version"


@pytest.mark.parametrize("name", ["glslc", "c"])
def test_a_chosen_tool_that_is_no_program_is_mended_by_another_choice(bin_dir: Path, name: str) -> None:
    chain = 'tool = [{name = "glslc", find = ["path:glslc"], packages = {apt = ["glslc"]}, optional = OPTIONAL}]'
    toolchain = found(
        chain.replace("OPTIONAL", "false" if name == "glslc" else "true"), path_of(bin_dir), **{name: "/nonexistent"}
    )
    with pytest.raises(MissingToolsError, match=f"build.tools.{name} names /nonexistent") as raised:
        require_all(toolchain)
    assert (
        raised.value.hint == f"llama-mgr config set build.tools.{name} /PATH/OF/{name}, or remove it from config.toml"
    )


def test_nothing_missing_is_silent(bin_dir: Path) -> None:
    toolchain = found('tool = [{name = "cmake", find = ["bundled:cmake"]}]', path_of(bin_dir))
    assert set(toolchain.tools) == {"cmake", "c", "c++"}
    require_all(toolchain)


def test_hint_for_unknown_package_manager_is_words() -> None:
    chain = 'tool = [{name = "icpx", find = ["path:icpx"], hint = "install oneAPI", packages = {apt = ["icpx"]}}]'
    toolchain = found(chain, {"PATH": os.environ["PATH"]})
    assert install_line(toolchain.missing, "") == "install oneAPI"
    assert install_line(toolchain.missing, "apt") == "apt install icpx"
