"""The shipped recipes against trees of every era: the configure lines that are known to be right.

The excerpts and the lines come from upstream's CMake files; a change here must be meant.
"""

import functools
import itertools
import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from llama_mgr.build.host import Host
from llama_mgr.build.recipe import Recipe, Recipes, schema
from llama_mgr.build.resolve import Resolved, resolve
from llama_mgr.build.tree import declared_options
from llama_mgr.errors import IncompleteSourceError
from llama_mgr.paths import Home
from tests.tools.era_tree import EraTree, era_names

RECIPES = Recipes(Home(Path("/nonexistent")))
RECIPES_DIR = Path(__file__).resolve().parents[2] / "recipes"
SHIPPED = sorted(path.stem for path in RECIPES_DIR.glob("*.toml"))

FACTS = {
    "tool.c": "/usr/bin/cc",
    "tool.c++": "/usr/bin/c++",
    "source.commit-short": "0c1e57098",
}
CUDA = {
    "tool.nvcc": "/cuda/bin/nvcc",
    "tool.nvcc.version": "12.6",
    "cuda.root": "/cuda",
    "cuda.driver": "/libcuda.so.1",
}
ROCM = {"tool.hipconfig.version": "6.4.43482", "rocm.root": "/opt/rocm", "rocm.llvm": "/opt/rocm/lib/llvm/bin"}
ONEAPI = {"tool.icx": "/oneapi/bin/icx", "tool.icpx": "/oneapi/bin/icpx", "oneapi.root": "/oneapi"}
TOOLKITS = {**CUDA, **ROCM, **ONEAPI, "musa.root": "/musa", "tool.python3": "/usr/bin/python3"}

RPATH = "$ORIGIN;$ORIGIN/../lib"
COMPILERS = {"CMAKE_C_COMPILER": "/usr/bin/cc", "CMAKE_CXX_COMPILER": "/usr/bin/c++"}
ALWAYS = {
    "CMAKE_BUILD_TYPE": "Release",
    **COMPILERS,
    "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
    "CMAKE_INSTALL_RPATH": RPATH,
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_SERVER": "ON",
}
IN_2024 = {**ALWAYS, "LLAMA_BUILD_EXAMPLES": "ON", "LLAMA_CURL": "OFF"}
OLD = {**IN_2024, "BUILD_SHARED_LIBS": "OFF", "LLAMA_CCACHE": "OFF", "LLAMA_NATIVE": "ON"}
GGML = {"BUILD_SHARED_LIBS": "ON", "GGML_CCACHE": "OFF", "GGML_NATIVE": "ON"}
IN_2026 = {
    **ALWAYS,
    **GGML,
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_TOOLS": "ON",
    "LLAMA_BUILD_COMMIT": "0c1e57098",
    "LLAMA_OPENSSL": "OFF",
}
BASE = {
    "b2501": OLD,
    "b3091": OLD,
    "b3600": {**IN_2024, **GGML},
    "fork-ik": {**IN_2024, **GGML},
    "b4747": {**IN_2024, **GGML},
    "b9093": {**IN_2026, "LLAMA_BUILD_NUMBER": "9093"},
    "b9190": {
        **IN_2026, "LLAMA_BUILD_NUMBER": "9190", "LLAMA_USE_PREBUILT_WEBUI": "OFF", "LLAMA_BUILD_WEBUI": "OFF",
    },
    "b11434": {
        **IN_2026,
        "LLAMA_BUILD_NUMBER": "11434",
        "LLAMA_BUILD_APP": "OFF",
        "LLAMA_BUILD_UI": "OFF",
        "LLAMA_USE_PREBUILT_UI": "OFF",
    },
}  # fmt: skip

CUDA_LINES = {
    "CMAKE_CUDA_COMPILER": "/cuda/bin/nvcc",
    "CUDAToolkit_ROOT": "/cuda",
    "CMAKE_CUDA_ARCHITECTURES": "61-virtual;70-virtual;75-virtual;80-virtual;86-real;89-real;90-virtual",
    "CMAKE_INSTALL_RPATH": f"{RPATH};/cuda/lib64;/cuda/lib",
}
GFX = "gfx908;gfx90a;gfx942;gfx1030;gfx1100;gfx1101;gfx1102;gfx1150;gfx1151;gfx1200;gfx1201"
ROCM_PLACES = {"CMAKE_PREFIX_PATH": "/opt/rocm", "CMAKE_INSTALL_RPATH": f"{RPATH};/opt/rocm/lib"}
ROCM_LINES = {**ROCM_PLACES, "CMAKE_HIP_ARCHITECTURES": GFX, "GPU_TARGETS": GFX, "AMDGPU_TARGETS": GFX}
METAL_EMBEDDED = {"GGML_METAL": "ON", "GGML_METAL_EMBED_LIBRARY": "ON"}

GOLDEN: dict[tuple[str, str], dict[str, str]] = {
    ("b2501", "cuda"): {**CUDA_LINES, "LLAMA_CUBLAS": "ON"},
    ("b3091", "cuda"): {**CUDA_LINES, "LLAMA_CUDA": "ON"},
    ("b3600", "cuda"): {**CUDA_LINES, "GGML_CUDA": "ON"},
    ("b4747", "cuda"): {**CUDA_LINES, "GGML_CUDA": "ON"},
    ("b9093", "cuda"): {**CUDA_LINES, "GGML_CUDA": "ON", "GGML_CUDA_NCCL": "OFF"},
    ("b11434", "cuda"): {**CUDA_LINES, "GGML_CUDA": "ON", "GGML_CUDA_NCCL": "OFF"},
    ("fork-ik", "cuda"): {**CUDA_LINES, "GGML_CUDA": "ON", "GGML_NCCL": "OFF"},
    ("b2501", "rocm"): {
        **ROCM_PLACES,
        "LLAMA_HIPBLAS": "ON",
        "AMDGPU_TARGETS": GFX,
        "CMAKE_C_COMPILER": "/opt/rocm/lib/llvm/bin/clang",
        "CMAKE_CXX_COMPILER": "/opt/rocm/lib/llvm/bin/clang++",
    },
    ("b3091", "rocm"): {**ROCM_LINES, "LLAMA_HIPBLAS": "ON"},
    ("b3600", "rocm"): {**ROCM_LINES, "GGML_HIPBLAS": "ON"},
    ("fork-ik", "rocm"): {**ROCM_LINES, "GGML_HIPBLAS": "ON"},
    ("b4747", "rocm"): {**ROCM_LINES, "GGML_HIP": "ON"},
    ("b9093", "rocm"): {**ROCM_LINES, "GGML_HIP": "ON", "GGML_HIP_RCCL": "OFF"},
    ("b11434", "rocm"): {**ROCM_LINES, "GGML_HIP": "ON", "GGML_HIP_RCCL": "OFF"},
    ("b2501", "vulkan"): {"LLAMA_VULKAN": "ON"},
    ("b3091", "vulkan"): {"LLAMA_VULKAN": "ON"},
    **{(era, "vulkan"): {"GGML_VULKAN": "ON"} for era in ("b3600", "fork-ik", "b4747", "b9093", "b11434")},
    ("b2501", "metal"): {"LLAMA_METAL": "ON", "LLAMA_METAL_EMBED_LIBRARY": "ON"},
    ("b3600", "metal"): METAL_EMBEDDED,
    ("b4747", "metal"): METAL_EMBEDDED,
    ("b9093", "metal"): METAL_EMBEDDED,
    ("b11434", "metal"): METAL_EMBEDDED,
    **{(era, "cpu"): {} for era in BASE},
    ("b2501", "cpu-portable"): {"LLAMA_NATIVE": "OFF"},
    ("b3600", "cpu-portable"): {"GGML_NATIVE": "OFF"},
    **{
        (era, "cpu-portable"): {"GGML_NATIVE": "OFF", "GGML_BACKEND_DL": "ON", "GGML_CPU_ALL_VARIANTS": "ON"}
        for era in ("b4747", "b9093", "b11434")
    },
    ("b3091", "cpu+rpc"): {"LLAMA_RPC": "ON"},
    ("b4747", "cpu+rpc"): {"GGML_RPC": "ON"},
    ("b11434", "cpu+rpc"): {"GGML_RPC": "ON", "GGML_RPC_RDMA": "OFF"},
    ("b2501", "blas"): {"LLAMA_BLAS": "ON", "LLAMA_BLAS_VENDOR": "OpenBLAS"},
    ("b11434", "vulkan+blas"): {"GGML_VULKAN": "ON", "GGML_BLAS": "ON", "GGML_BLAS_VENDOR": "OpenBLAS"},
    ("b11434", "opencl"): {
        "GGML_OPENCL": "ON",
        "GGML_OPENCL_EMBED_KERNELS": "ON",
        "GGML_OPENCL_USE_ADRENO_KERNELS": "OFF",
        "Python3_EXECUTABLE": "/usr/bin/python3",
    },
    ("b4747", "musa"): {
        "GGML_MUSA": "ON", "MUSA_ARCHITECTURES": "21;22;31", "CMAKE_INSTALL_RPATH": f"{RPATH};/musa/lib",
    },
    ("b11434", "cann"): {"GGML_CANN": "ON", "SOC_TYPE": "Ascend910b", "USE_ACL_GRAPH": "OFF"},
}  # fmt: skip


def host(system: str = "linux", machine: str = "x86_64") -> Host:
    return Host(system, machine, "cpu", "0" * 16, 4, 1 << 34, 1 << 33, "debian", "apt")


@functools.cache
def chain_of(recipe: str) -> tuple[Recipe, ...]:
    name, *parts = recipe.split("+")
    return tuple(RECIPES.chain(name, parts))


@functools.cache
def tree_of(era: str) -> EraTree:
    return EraTree(era)


def resolved(
    era: str,
    recipe: str,
    facts: dict[str, str] | None = None,
    on: Host | None = None,
    **settings: Any,  # noqa: ANN401
) -> Resolved:
    tree, chain = tree_of(era), [*chain_of(recipe)]
    if settings:
        chain.append(Recipe(name="changed", title="", settings=settings))
    known = {**FACTS, "source.build": str(tree.build_number), **(TOOLKITS if facts is None else facts)}
    return resolve(chain, tree, known, on or host(), tree.build_number, {})


@pytest.mark.parametrize(("era", "recipe"), GOLDEN)
def test_configure_line(era: str, recipe: str) -> None:
    on = host("darwin", "arm64") if recipe == "metal" else host()
    expected = {**BASE[era], **GOLDEN[era, recipe]}
    if on.os == "darwin":
        expected["CMAKE_INSTALL_RPATH"] = "@loader_path;@loader_path/../lib"
    defines = resolved(era, recipe, on=on).defines
    assert {name: one.value for name, one in defines.items()} == expected


def test_environment_of_rocm() -> None:
    places = {"HIP_PATH": "/opt/rocm", "ROCM_PATH": "/opt/rocm", "HIP_PLATFORM": "amd"}
    environ = resolved("b4747", "rocm").environ
    assert {name: one.value for name, one in environ.items()} == {**places, "HIPCXX": "/opt/rocm/lib/llvm/bin/clang"}
    assert "HIPCXX" not in resolved("b2501", "rocm").environ


def test_gpus_that_are_here_are_the_only_ones_built_for() -> None:
    facts = {**TOOLKITS, "gpu.present": "yes", "gpu.archs": "86;120"}
    assert resolved("b11434", "cuda", facts).defines["CMAKE_CUDA_ARCHITECTURES"].value == "86-real;120-real"


@pytest.mark.parametrize(
    ("toolkit", "newest"),
    [("11.4", "86-real"), ("11.8", "90-virtual"), ("12.6", "90-virtual"), ("12.8", "120a-real"), ("13.0", "120a-real")],
)
def test_architectures_without_a_gpu_fit_the_toolkit(toolkit: str, newest: str) -> None:
    facts = {**CUDA, "tool.nvcc.version": toolkit}
    archs = resolved("b3600", "cuda", facts).defines["CMAKE_CUDA_ARCHITECTURES"].value.split(";")
    assert archs[-1] == newest
    assert ("61-virtual" in archs) == (not toolkit.startswith("13"))


@pytest.mark.parametrize("recipe", ["cuda", "rocm", "musa"])
def test_architectures_are_never_native(recipe: str) -> None:
    for era in era_names():
        for value in _values(era, recipe):
            assert "native" not in value


def _values(era: str, recipe: str) -> list[str]:
    try:
        return [one.value for one in resolved(era, recipe).defines.values()]
    except IncompleteSourceError:
        return []


def test_host_without_driver_gets_programs_that_start_without_it() -> None:
    facts = {name: value for name, value in CUDA.items() if name != "cuda.driver"}
    assert resolved("b11434", "cuda", facts).defines["GGML_CUDA_NO_VMM"].value == "ON"
    assert resolved("b3091", "cuda", facts).defines["LLAMA_CUDA_NO_VMM"].value == "ON"


@pytest.mark.parametrize(
    ("era", "log"),
    [
        ("b3600", "-- cuBLAS found"),
        ("b4747", "-- Including CUDA backend"),
        ("b9093", "-- Including CUDA backend"),
        ("b11434", "-- Including CUDA backend"),
    ],
)
def test_build_for_the_cpu_in_silence_is_noticed(era: str, log: str) -> None:
    checks = resolved(era, "cuda").verify.configure_log
    assert checks
    assert all(re.search(check.must, log) for check in checks)
    assert not all(re.search(check.must, "-- Including CPU backend") for check in checks)


def test_artifacts_are_not_asked_for_when_the_user_links_statically() -> None:
    tree = EraTree("b11434")
    static = resolve(RECIPES.chain("cuda"), tree, {**FACTS, **CUDA}, host(), 0, {"BUILD_SHARED_LIBS": "OFF"})
    assert static.verify.artifacts == []
    assert [one.glob for one in resolved("b11434", "cuda").verify.artifacts] == [
        "bin/libggml-cpu*",
        "bin/libggml-cuda.*",
    ]


def test_tree_without_the_backend_is_refused() -> None:
    with pytest.raises(IncompleteSourceError, match="no OpenCL backend"):
        resolved("b3600", "opencl")
    with pytest.raises(IncompleteSourceError, match="no CUDA backend"):
        resolved("b9190", "cuda")


def test_release_does_not_call_itself_dev() -> None:
    facts = {"source.release": "v0.6.0"}
    assert resolved("b11434", "cpu", facts).defines["LLAMA_BUILD_IS_DEV"].value == "OFF"


@pytest.mark.parametrize(
    ("era", "file"),
    [
        ("b2501", "scripts/build-info.cmake"),
        ("b3600", "cmake/build-info.cmake"),
        ("fork-ik", "cmake/build-info.cmake"),
        ("b11434", None),
    ],
)
def test_old_trees_are_told_their_number(era: str, file: str | None) -> None:
    assert resolved(era, "cpu").patch_build_info == file


@pytest.mark.parametrize(
    ("gcc", "wrong"),
    [("11.4", True), ("11.5", False), ("12.2", True), ("12.4", False), ("13.2", True), ("14.1", False)],
)
def test_gcc_that_gets_amx_wrong_does_not_use_it(gcc: str, wrong: bool) -> None:
    defines = resolved("b11434", "cpu", {"c++.gcc": gcc}).defines
    for name in ("CMAKE_C_FLAGS", "CMAKE_CXX_FLAGS"):
        assert (name in defines and "-mno-amx-tile" in defines[name].value) is wrong
    assert "CMAKE_CXX_FLAGS" not in resolved("b3600", "cpu", {"c++.gcc": gcc}).defines
    assert resolved("b11434", "cpu-portable", {"c++.gcc": gcc}).omit == (
        ("libggml-cpu-sapphirerapids.*",) if wrong else ()
    )


def test_libraries_are_used_when_found() -> None:
    found = {"lib.curl": "/usr/include/curl/curl.h", "lib.openssl": "/usr/include/openssl/opensslv.h"}
    assert resolved("b4747", "cpu", found).defines["LLAMA_CURL"].value == "ON"
    assert resolved("b11434", "cpu", found).defines["LLAMA_OPENSSL"].value == "ON"


# -- all recipes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_recipe_validates_against_the_published_schema(name: str) -> None:
    published = json.loads((RECIPES_DIR / "recipe.schema.json").read_text())
    jsonschema.validate(tomllib.loads((RECIPES_DIR / f"{name}.toml").read_text()), published)


def test_published_schema_is_the_generated_one() -> None:
    published = json.loads((RECIPES_DIR / "recipe.schema.json").read_text())
    assert published == json.loads(json.dumps(schema())), "write it again: python -m tests.tools.recipe_schema"


def test_table_of_recipes_names_all() -> None:
    table = (RECIPES_DIR / "README.md").read_text()
    listed = re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)
    assert sorted(listed) == sorted(set(SHIPPED) - {"base"})
    for name in listed:
        assert RECIPES.find(name).title in table


@pytest.mark.parametrize("name", sorted(set(SHIPPED) - {"base"}))
def test_recipe_says_how_much_it_needs(name: str) -> None:
    result = resolved("b11434", f"cpu+{name}" if RECIPES.find(name).part else name)
    assert result.job_memory_mib >= 1024
    assert result.disk_mib >= 2000
    assert {"server", "quantize", "imatrix", "cli"} <= set(result.targets)
    assert result.convert.scripts


def _all_cases() -> Iterator[Resolved]:
    """Every recipe on every tree, on several machines, with every setting turned on and off."""
    facts = [
        {},
        TOOLKITS,
        {**TOOLKITS, "gpu.present": "yes", "gpu.archs": "86", "source.release": "v0.6.0", "cuda.host-cxx": "/g++-13",
         "define.CMAKE_HIP_ARCHITECTURES": "gfx90a", "vulkan.prefix": "/sdk", "lib.curl": "/c", "lib.openssl": "/s",
         "lib.dnnl": "/d", "lib.level-zero": "/z"},
        {name: value for name, value in TOOLKITS.items() if name != "cuda.driver"},
    ]  # fmt: skip
    hosts = [host(), host("linux", "aarch64"), host("darwin", "arm64")]
    changed: list[dict[str, Any]] = [
        {},
        {"ui": True, "cpu": "portable", "fa-all-quants": True, "nccl": True, "vmm": "off", "rccl": True,
         "rocwmma": True, "uma": True, "f16": True, "acl-graph": True},
        {"vmm": "on"},
    ]  # fmt: skip
    recipes = [f"cpu+{name}" if name in RECIPES.part_names() else name for name in SHIPPED if name != "base"]
    for era, recipe, known, on, settings in itertools.product(era_names(), recipes, facts, hosts, changed):
        try:
            yield resolved(era, recipe, known, on, **settings)
        except IncompleteSourceError:
            continue
    for recipe in ("cpu", "cpu-portable"):
        yield from (resolved("b11434", recipe, {"c++.gcc": version}) for version in ("11.4", "12.2", "13.2", "14.1"))


NEVER_REACHED: set[tuple[str, int]] = set()
"""Rules that no excerpt reaches, each with a reason."""


def test_every_rule_is_reached_by_some_tree() -> None:
    reached = set().union(*(case.fired for case in _all_cases()))
    known = {(name, number) for name in SHIPPED for number, _ in enumerate(RECIPES.find(name).rules, 1)}
    assert known - reached == NEVER_REACHED


def test_no_tree_is_passed_an_option_it_does_not_declare() -> None:
    read_without_declaring = {
        "AMDGPU_TARGETS", "BUILD_SHARED_LIBS", "CUDAToolkit_ROOT", "GGML_CANN", "GPU_TARGETS", "LLAMA_BUILD_COMMIT",
        "LLAMA_BUILD_NUMBER", "MUSA_ARCHITECTURES", "Python3_EXECUTABLE", "SOC_TYPE",
        "GGML_BLAS_VENDOR", "LLAMA_BLAS_VENDOR", "GGML_BACKEND_DL", "LLAMA_BUILD_UI",  # declared beside their condition
    }  # fmt: skip
    for (era, recipe), lines in GOLDEN.items():
        declared = declared_options(EraTree(era)) | read_without_declaring
        unknown = {name for name in {**BASE[era], **lines} if not name.startswith("CMAKE_")} - declared
        assert not unknown, (era, recipe)
