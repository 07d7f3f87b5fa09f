"""Programs: found where recipes say and nowhere else, and what is learned from them."""

import sys
from pathlib import Path

import pytest

from llama_mgr.build.discovery import is_at_least
from llama_mgr.build.toolchain import find_toolchain, tool
from llama_mgr.build.tree import DirectoryTree
from llama_mgr.errors import MissingToolsError
from tests.tools.build_examples import HOST, recipe
from tests.tools.fake_program import make_program, path_of
from tests.tools.toolchain_search import found, missing

# -- where programs are found ------------------------------------------------------------------------------------------


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
    assert found(chain, {"PATH": str(tmp_path)}).tools["thing"].path == tmp_path / "thing"


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


def test_tool_that_is_nowhere(tmp_path: Path) -> None:
    with pytest.raises(MissingToolsError, match="git"):
        tool("git", path_of(tmp_path), {})
    with pytest.raises(MissingToolsError, match=r"build\.tools\.uv"):
        tool("uv", path_of(tmp_path), {"uv": Path("uv")})


# -- what is learned from programs -------------------------------------------------------------------------------------


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
