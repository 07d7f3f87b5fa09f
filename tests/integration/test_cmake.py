"""CMake as an object, on the tiny projects with the real cmake and ninja."""

from pathlib import Path

import pytest

from llama_mgr.build.cache import CompilerCache
from llama_mgr.build.cmake import CMake
from llama_mgr.build.recipe_file import Failure
from llama_mgr.errors import BuildFailedError, ConfigureFailedError, MissingToolsError, UndeclaredDefineError
from llama_mgr.process import child_environ
from llama_mgr.report import SilentReporter
from tests.tools.tiny_build import TinyBuild, program
from tests.tools.tiny_repository import TINY_2024_DIR, TINY_DIR

CUDA = Failure(match="(CUDA) Toolkit not found", cause="no {1} toolkit was found", fix="install the {1} toolkit")


@pytest.fixture(scope="module")
def configured(tmp_path_factory: pytest.TempPathFactory) -> TinyBuild:
    """Tiny, configured with one define of every kind that the check must tell apart."""
    tiny = TinyBuild(tmp_path_factory.mktemp("cmake"), TINY_DIR)
    with tiny.cmake() as cmake:
        cmake.configure(ASKED)
    return tiny


ASKED = {
    "GGML_CUDAA": "ON",  # a typo; CMake itself is silent, ggml reads every GGML_ variable
    "GGML_HIPBLAS:BOOL": "ON",  # of another era, and typed
    "LLAMA_CURL": "OFF",  # the tree only says that it is ignored
    "GGML_BLAS": "OFF",
    "GGML_LTO:BOOL": "OFF",
    "GGML_BLAS_VENDOR:STRING": "a;b c",  # set(CACHE) leaves no trace of a typed define
    "LLAMA_BUILD_NUMBER": "11434",  # read, never declared
    "AMDGPU_TARGETS": "gfx1100",  # read by another backend's file
    "CMAKE_SOME_THING": "1",
}
UNITY = """cmake_minimum_required(VERSION 3.14)
project(x C)
add_library(x STATIC a.c b.c)
set_target_properties(x PROPERTIES UNITY_BUILD ON)
"""
UNKNOWN = ["GGML_CUDAA", "GGML_HIPBLAS", "LLAMA_CURL"]


def test_the_cache_has_what_was_asked(configured: TinyBuild) -> None:
    with configured.cmake() as cmake:
        cache = cmake.cache()
    assert (cache["GGML_BLAS_VENDOR"].type, cache["GGML_BLAS_VENDOR"].value) == ("STRING", "a;b c")
    assert cache["GGML_BLAS"].help == "ggml: use BLAS"
    assert cache["GGML_CUDAA"].type == "UNINITIALIZED"


def test_targets_and_options_of_the_tree(configured: TinyBuild) -> None:
    with configured.cmake() as cmake:
        targets, declared = cmake.targets(), cmake.declared()
    assert {"llama-server", "llama-quantize", "ggml-cpu", "llama-app"} <= targets
    assert "ggml-rpc-server" not in targets
    assert {"GGML_CUDA", "GGML_BLAS_VENDOR", "LLAMA_BUILD_SERVER"} <= declared
    assert not declared & {"GGML_CUDAA", "LLAMA_BUILD_NUMBER", "CMAKE_BUILD_TYPE"}


def test_undeclared_defines_are_found(configured: TinyBuild) -> None:
    with configured.cmake() as cmake:
        assert cmake.undeclared(ASKED) == UNKNOWN
        assert cmake.undeclared({"GGML_BLAS": "OFF"}) == []


def test_one_undeclared_define(configured: TinyBuild) -> None:
    with configured.cmake() as cmake, pytest.raises(UndeclaredDefineError) as caught:
        cmake.check_declared({"GGML_CUDAA": "ON", "GGML_BLAS": "OFF"})
    assert caught.value.message == "cannot use the define 'GGML_CUDAA': this llama.cpp (b11434) does not know it"
    assert caught.value.hint == "did you mean 'GGML_CUDA'?"
    assert caught.value.exit_status == 5


def test_all_undeclared_defines_at_once(configured: TinyBuild) -> None:
    with configured.cmake() as cmake, pytest.raises(UndeclaredDefineError) as caught:
        cmake.check_declared(ASKED)
    assert "'GGML_CUDAA, GGML_HIPBLAS, LLAMA_CURL'" in caught.value.message
    assert caught.value.hint == "did you mean 'GGML_CUDA' for 'GGML_CUDAA', 'GGML_HIP' for 'GGML_HIPBLAS'?"


def test_declared_defines_pass(configured: TinyBuild) -> None:
    with configured.cmake() as cmake:
        cmake.check_declared({name: value for name, value in ASKED.items() if name.partition(":")[0] not in UNKNOWN})


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("if (NEW_THING)\nendif()", True),
        ("if (NOT (DEFINED A OR\n    DEFINED NEW_THING))\nendif()", True),
        ('set(X "${NEW_THING}")', True),
        ("# if (NEW_THING) is gone", False),
        ("message(STATUS NEW_THING)", False),
        ("if (NEW_THING_2 OR A_NEW_THING)\nendif()", False),
        ("find_package(NEW_THING QUIET)", False),
    ],
)
def test_a_variable_that_the_tree_tests_is_known(tmp_path: Path, text: str, known: bool) -> None:
    (tmp_path / "source").mkdir()
    lists = f"cmake_minimum_required(VERSION 3.14)\nproject(x NONE)\n{text}\n"
    (tmp_path / "source" / "CMakeLists.txt").write_text(lists)
    tree = TinyBuild(tmp_path, TINY_DIR)
    with tree.cmake() as cmake:
        cmake.configure({"NEW_THING": "1"})
        assert cmake.undeclared({"NEW_THING": "1"}) == ([] if known else ["NEW_THING"])


def test_what_a_cmake_module_reads_is_known(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    lists = "cmake_minimum_required(VERSION 3.14)\nproject(x C)\nfind_package(ZLIB)\n"
    (tmp_path / "source" / "CMakeLists.txt").write_text(lists)
    asked = {"ZLIB_ROOT": "/x", "ZLIB_USE_STATIC_LIBS": "OFF", "ZLIB_USE_STATICLIBS": "OFF"}
    tree = TinyBuild(tmp_path, TINY_DIR)
    with tree.cmake() as cmake:
        cmake.configure(asked)
        assert cmake.undeclared(asked) == ["ZLIB_USE_STATICLIBS"]


def test_building_shows_steps_and_files(configured: TinyBuild) -> None:
    with configured.cmake() as cmake:
        cmake.build(["llama-quantize"], 2)
    title, unit, bar = configured.reporter.bars[-1]
    assert (title, unit) == ("build b11434", "steps")
    done, total, _ = bar.updates[-1]
    assert done == total == len(bar.updates)
    details = {detail for *_, detail in bar.updates}
    assert {"ggml.c", "llama-quantize"} <= details
    assert not any("/" in detail for detail in details)
    log = configured.log_file.read_text()
    assert " --target llama-quantize\n" in log
    assert f"[{total}/{total}] Linking C executable bin/llama-quantize" in log


def test_a_users_ninja_status_does_not_matter(tmp_path: Path) -> None:
    tiny = TinyBuild(tmp_path, TINY_DIR, extra_environ={"NINJA_STATUS": "%p "})
    tiny.made(["ggml-base"], {})
    assert tiny.reporter.bars[0][2].updates


def test_a_failing_configure_names_its_cause(tmp_path: Path) -> None:
    tiny = TinyBuild(tmp_path, TINY_DIR, failures=[CUDA], extra_environ={"TINY_MISSING_TOOLKIT": "CUDA"})
    with tiny.cmake() as cmake, pytest.raises(ConfigureFailedError) as caught:
        cmake.configure({"GGML_CUDA": "ON"})
    assert caught.value.message == "cannot configure 'b11434': no CUDA toolkit was found"
    assert caught.value.hint == "install the CUDA toolkit"
    assert any("CUDA Toolkit not found" in line for line in caught.value.tail)
    assert "CUDA Toolkit not found" in tiny.log_file.read_text()


def test_a_failing_configure_of_unknown_cause(tmp_path: Path) -> None:
    tiny = TinyBuild(tmp_path, TINY_DIR, extra_environ={"TINY_MISSING_TOOLKIT": "VULKAN"})
    with tiny.cmake() as cmake, pytest.raises(ConfigureFailedError, match="it ended with status 1"):
        cmake.configure({"GGML_VULKAN": "ON"})
    with tiny.cmake() as cmake, pytest.raises(ConfigureFailedError, match="no file API reply"):
        cmake.cache()


def test_a_failing_build_shows_the_compilers_words(tmp_path: Path) -> None:
    known = Failure(match="error: expected '(.)'", cause="a {1} is missing", fix="add the {1}")
    tiny = TinyBuild(tmp_path, TINY_DIR, failures=[known])
    with (tiny.source_dir / "tools" / "quantize" / "main.c").open("a") as file:
        file.write("int broken(void) { return 1 }\n")
    with pytest.raises(BuildFailedError) as caught:
        tiny.made(["llama-quantize", "llama-bench"], {})
    assert caught.value.message == "cannot build 'b11434': a ; is missing"
    assert caught.value.hint == "add the ;"
    assert caught.value.tail[0].startswith("FAILED: ")
    assert any("error: expected" in line for line in caught.value.tail)


def test_a_cmake_that_does_not_exist(tmp_path: Path) -> None:
    from llama_mgr.build.cmake import CMake

    environ = child_environ({})
    with (tmp_path / "log").open("wb") as log, pytest.raises(MissingToolsError):
        CMake(
            Path("/nonexistent/cmake"), program("ninja"), TINY_DIR, tmp_path / "b", environ, log, SilentReporter()
        ).configure({})


def test_a_unity_build_in_another_directory_hits_the_cache(tmp_path: Path) -> None:
    counts = []
    for name in ("op1", "op2"):
        source_dir = tmp_path / name / "source"
        source_dir.mkdir(parents=True)
        (source_dir / "CMakeLists.txt").write_text(UNITY)
        for part in "ab":
            (source_dir / f"{part}.c").write_text(f"const char * {part}(void) {{ return __FILE__; }}\n")
        cache = CompilerCache(program("ccache"), tmp_path / "ccache", base_dir=tmp_path / name)
        tree = TinyBuild(tmp_path / name, TINY_DIR, extra_environ=cache.environ())
        with tree.cmake() as cmake:
            cmake.configure(cache.defines(["C"]))
            cmake.build(["x"], 1)
        counts.append(cache.counts())
    assert counts[0].hits == counts[1].misses == 0
    assert counts[0].misses == counts[1].hits > 0


def test_options_of_2024(tmp_path: Path) -> None:
    tiny = TinyBuild(tmp_path, TINY_2024_DIR)
    with tiny.cmake() as cmake:
        cmake.configure({"GGML_HIP": "ON", "LLAMA_CURL": "OFF"})
        assert cmake.undeclared({"GGML_HIP": "ON", "LLAMA_CURL": "OFF"}) == ["GGML_HIP"]
        assert "llama-server" in cmake.targets()


def test_a_project_inside_the_project_finds_ninja(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    # vulkan-shaders-gen is configured like this, by a CMake that inherits the generator and nothing else
    inner = (
        "execute_process(COMMAND ninja --version RESULT_VARIABLE status)\n"
        "if(status)\n  message(FATAL_ERROR gone)\nendif()"
    )
    (source / "CMakeLists.txt").write_text(f"cmake_minimum_required(VERSION 3.14)\nproject(x NONE)\n{inner}\n")
    with (tmp_path / "log").open("wb") as log:
        cmake = CMake(
            program("cmake"),
            program("ninja"),
            source,
            tmp_path / "build",
            {"PATH": "/nonexistent"},
            log,
            SilentReporter(),
        )
        cmake.configure({})
