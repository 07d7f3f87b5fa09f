"""Tools, compilers, development files and GPUs: found where recipes say, or named as missing all at once."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from llama_mgr.build.discovery import is_at_least, version_key
from llama_mgr.build.host import Host
from llama_mgr.build.recipe import Recipe
from llama_mgr.build.toolchain import Toolchain, find_toolchain, install_line, require_all, tool
from llama_mgr.build.tree import DirectoryTree
from llama_mgr.errors import BadInputError, MissingToolsError
from llama_mgr.toml_file import parsed_toml
from tests.tools.fake_program import make_compiler, make_program, path_of

HOST = Host("linux", "x86_64", "cpu", "0" * 16, 4, 1 << 34, 1 << 33, "debian", "apt")
GCC_12 = "g++ (Debian 12.2.0-14+deb12u1) 12.2.0"


@pytest.fixture
def bin_dir(tmp_path: Path) -> Path:
    """A PATH entry with a C and a C++ compiler and nothing else."""
    directory = tmp_path / "bin"
    make_compiler(directory, "cc", GCC_12)
    make_compiler(directory, "c++", GCC_12)
    make_compiler(directory, "g++", GCC_12)
    return directory


def recipe(toml: str) -> Recipe:
    return parsed_toml(f'name = "example"\ntitle = "Example"\n{toml}'.encode(), "example.toml", Recipe)


def found(toml: str, environ: dict[str, str], **options: object) -> Toolchain:
    overrides = {name: Path(str(path)) for name, path in options.items()}
    return find_toolchain([recipe(toml)], None, HOST, environ, overrides)


def missing(toolchain: Toolchain) -> dict[str, str]:
    return {one.name: one.why for one in toolchain.missing}


# -- where tools are found -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["cmake", "ninja", "uv", "ccache"])
def test_bundled_tools_are_real_programs_of_our_environment(name: str) -> None:
    path = tool(name, path_of(), {})
    assert path.is_relative_to(sys.prefix)
    assert path.read_bytes()[:4] in {b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe"}, "a script, not the program"


def test_bundled_cmake_and_its_version(bin_dir: Path) -> None:
    chain = 'tool = [{name = "cmake", find = ["bundled:cmake", "path:cmake"], at-least = "3.14"}]'
    toolchain = found(chain, path_of(bin_dir))
    assert toolchain.missing == []
    assert toolchain.facts["tool.cmake"] == str(toolchain.tools["cmake"].path)
    assert is_at_least(toolchain.facts["tool.cmake.version"], "3.14")


def test_program_in_the_working_directory_is_never_taken(
    tmp_path: Path, bin_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_program(tmp_path, "thing", "thing 9.9")
    monkeypatch.chdir(tmp_path)
    chain = 'tool = [{name = "thing", find = ["path:thing", "env:THING", "glob:thing"]}]'
    for path in (".", "", f".:{bin_dir}", f"{bin_dir}::"):
        toolchain = found(chain, {"PATH": path, "THING": "./thing"})
        assert "thing" in missing(toolchain)


def test_variable_names_a_program_a_root_or_a_word_on_path(bin_dir: Path, tmp_path: Path) -> None:
    make_program(tmp_path / "kit" / "bin", "nvcc", "nvcc 2.0")
    make_program(bin_dir, "nvcc-1", "nvcc 1.0")
    chain = 'tool = [{name = "nvcc", find = ["env:CUDACXX", "env:CUDA_HOME/bin/nvcc"]}]'

    def version(**variables: str) -> str:
        return found(chain, {**path_of(bin_dir), **variables}).facts["tool.nvcc.version"]

    assert version(CUDACXX=str(tmp_path / "kit/bin/nvcc")) == "2.0"
    assert version(CUDA_HOME=str(tmp_path / "kit")) == "2.0"
    assert version(CUDACXX="nvcc-1", CUDA_HOME=str(tmp_path / "kit")) == "1.0"


def test_glob_takes_the_newest_version_first(bin_dir: Path, tmp_path: Path) -> None:
    for version in ("9.2", "12.10", "12.4"):
        make_program(tmp_path / f"cuda-{version}", "nvcc", f"release {version}")
    toolchain = found(f'tool = [{{name = "nvcc", find = ["glob:{tmp_path}/cuda-*/nvcc"]}}]', path_of(bin_dir))
    assert toolchain.facts["tool.nvcc.version"] == "12.10"


def test_too_old_and_broken_places_are_passed_over(bin_dir: Path, tmp_path: Path) -> None:
    make_program(tmp_path / "broken", "thing", "thing 9.0", status=1)
    make_program(tmp_path / "old", "thing", "thing 1.9")
    good = make_program(tmp_path / "good", "thing", "thing 1.10")
    places = '["env:BROKEN/thing", "env:OLD/thing", "env:GOOD/thing"]'
    chain = f'tool = [{{name = "thing", find = {places}, at-least = "1.10"}}]'
    environ = {**path_of(bin_dir), "BROKEN": f"{tmp_path}/broken", "OLD": f"{tmp_path}/old", "GOOD": f"{tmp_path}/good"}
    assert found(chain, environ).tools["thing"].path == good
    del environ["GOOD"]
    why = missing(found(chain, environ))["thing"]
    assert why == f"{tmp_path}/old/thing is 1.9, and 1.10 or newer is needed"


def test_configured_tool_wins_or_is_an_error(bin_dir: Path, tmp_path: Path) -> None:
    own = make_program(tmp_path, "own-cmake", "cmake version 3.30.1")
    chain = 'tool = [{name = "cmake", find = ["bundled:cmake"]}]'
    assert found(chain, path_of(bin_dir), cmake=own).tools["cmake"].version == "3.30.1"
    why = missing(found(chain, path_of(bin_dir), cmake="relative/cmake"))["cmake"]
    assert "build.tools.cmake names relative/cmake" in why


def test_optional_tool_and_condition(bin_dir: Path) -> None:
    chain = """
    tool = [
      {name = "absent", find = ["path:absent"], optional = true},
      {name = "elsewhere", find = ["path:elsewhere"], when = {os = "darwin"}},
      {name = "needed-by-kind", find = ["path:kind"], when = {setting = {kind = true}}},
    ]
    settings = {kind = true}
    """
    assert set(missing(found(chain, path_of(bin_dir)))) == {"needed-by-kind"}


def test_condition_on_the_tree_counts_only_with_a_tree(bin_dir: Path, tmp_path: Path) -> None:
    chain = [recipe('tool = [{name = "glslc", find = ["path:glslc"], when = {file = "ggml/vulkan"}}]')]
    tree = DirectoryTree(tmp_path)
    assert find_toolchain(chain, tree, HOST, path_of(bin_dir), {}).missing == []
    (tmp_path / "ggml" / "vulkan").mkdir(parents=True)
    assert set(missing(find_toolchain(chain, tree, HOST, path_of(bin_dir), {}))) == {"glslc"}
    assert set(missing(find_toolchain(chain, None, HOST, path_of(bin_dir), {}))) == {"glslc"}


def test_later_entry_replaces_earlier_one(bin_dir: Path) -> None:
    make_program(bin_dir, "hip", "5.7")
    one = recipe('tool = [{name = "hip", find = ["path:hip"], at-least = "5.5"}]')
    two = recipe('tool = [{name = "hip", find = ["path:hip"], at-least = "6.1"}]')
    toolchain = find_toolchain([one, two], None, HOST, path_of(bin_dir), {})
    assert set(missing(toolchain)) == {"hip"}
    assert "tool.hip" not in toolchain.facts


# -- what is learned from tools ------------------------------------------------------------------------------------


def test_facts_from_parent_command_and_file(bin_dir: Path, tmp_path: Path) -> None:
    kit = tmp_path / "kit-1.2"
    make_program(kit / "bin", "tool", script='[ "$1" = -l ] && echo "/usr/../usr/bin" || echo tool 1.2')
    (kit / "include").mkdir()
    (kit / "include" / "limits.h").write_text("#error later than 13 are not supported\n")
    (tmp_path / "kit").symlink_to(kit)
    chain = f"""
    [[tool]]
    name = "tool"
    find = ["glob:{tmp_path}/kit/bin/tool"]
    facts = [
      {{name = "kit.root", parent = 2}},
      {{name = "kit.bin", command = ["{{path}}", "-l"]}},
      {{name = "kit.max", file = "{{kit.root}}/inc*/limits.h", pattern = 'later than (\\d+) are'}},
      {{name = "kit.none", file = "{{kit.unknown}}/limits.h"}},
    ]
    """
    facts = found(chain, path_of(bin_dir)).facts
    assert facts["kit.root"] == str(kit)
    assert facts["kit.bin"] == str(Path("/usr/bin").resolve())
    assert facts["kit.max"] == "13"
    assert "kit.none" not in facts


def test_parent_looks_through_a_wrapper_script(bin_dir: Path, tmp_path: Path) -> None:
    make_program(tmp_path / "cuda" / "bin", "nvcc", "release 13.0")
    make_program(bin_dir, "nvcc", script=f'exec {tmp_path}/cuda/bin/nvcc "$@"')
    chain = 'tool = [{name = "nvcc", find = ["path:nvcc"], facts = [{name = "cuda.root", parent = 2}]}]'
    assert found(chain, path_of(bin_dir)).facts["cuda.root"] == str(tmp_path / "cuda")


def test_inherited_variables_are_facts(bin_dir: Path) -> None:
    chain = 'inherit-environ = ["ONEAPI_ROOT", "UNSET"]'
    facts = found(chain, {**path_of(bin_dir), "ONEAPI_ROOT": "/opt/intel", "LD_PRELOAD": "x"}).facts
    assert {name: value for name, value in facts.items() if name.startswith("env.")} == {
        "env.ONEAPI_ROOT": "/opt/intel"
    }


# -- compilers -----------------------------------------------------------------------------------------------------


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


# -- nvcc and the g++ that it accepts ------------------------------------------------------------------------------

NVCC = """
[[tool]]
name = "nvcc"
find = ["path:nvcc"]
version-pattern = 'release (\\d+\\.\\d+)'
[[tool.facts]]
name = "cuda.root"
parent = 2
[[tool.facts]]
name = "cuda.gcc-max"
file = "{cuda.root}/include/crt/host_config.h"
pattern = 'gcc versions later than (\\d+) are not supported'
"""


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


# -- development files ---------------------------------------------------------------------------------------------

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


# -- GPUs ----------------------------------------------------------------------------------------------------------

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


def test_a_hostile_environment_changes_nothing(bin_dir: Path, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    make_program(bin_dir, "thing", script=f'/usr/bin/env > {seen}; echo "thing 1.0"')
    poison = dict.fromkeys(
        ("LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "GIT_DIR", "CMAKE_PREFIX_PATH", "CMAKE_GENERATOR",
         "CPATH", "LIBRARY_PATH", "CFLAGS", "SOURCE_DATE_EPOCH", "BASH_ENV", "ENV", "LLAMA_ARG_HOST",
         "NVCC_APPEND_FLAGS"),
        "poison",
    )  # fmt: skip
    toolchain = found('tool = [{name = "thing", find = ["path:thing"]}]', {**poison, **path_of(bin_dir)})
    assert toolchain.tools["thing"].version == "1.0"
    assert "PATH=" in seen.read_text()
    assert "poison" not in seen.read_text()


# -- saying what is missing ----------------------------------------------------------------------------------------


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


def test_nothing_missing_is_silent() -> None:
    require_all(Toolchain())


def test_hint_for_unknown_package_manager_is_words() -> None:
    chain = 'tool = [{name = "icpx", find = ["path:icpx"], hint = "install oneAPI", packages = {apt = ["icpx"]}}]'
    toolchain = found(chain, {"PATH": os.environ["PATH"]})
    assert install_line(toolchain.missing, "") == "install oneAPI"
    assert install_line(toolchain.missing, "apt") == "apt install icpx"


def test_tool_that_is_nowhere(tmp_path: Path) -> None:
    with pytest.raises(MissingToolsError, match="git"):
        tool("git", path_of(tmp_path), {})
    with pytest.raises(MissingToolsError, match=r"build\.tools\.uv"):
        tool("uv", path_of(tmp_path), {"uv": Path("uv")})
