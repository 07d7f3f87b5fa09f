"""Collecting what the tiny projects built, in the layouts of two eras."""

import os
import subprocess
from pathlib import Path

import pytest

from llama_mgr.build.artifacts import Collected, collect
from llama_mgr.build.recipe_file import Convert
from llama_mgr.errors import IntegrityError, RefusedError
from tests.tools.tiny_build import TinyBuild
from tests.tools.tiny_repository import TINY_2024_DIR, TINY_DIR

CONVERT = Convert(
    scripts=["convert_hf_to_gguf.py", "convert-hf-to-gguf.py"],
    requirements=["requirements/requirements-convert_hf_to_gguf.txt"],
    keep=["conversion", "gguf-py", "requirements", "not-in-this-tree"],
)
TOOLS = {"server": "llama-server", "quantize": "llama-quantize"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> TinyBuild:
    made = TinyBuild(tmp_path_factory.mktemp("artifacts"), TINY_DIR)
    made.made(["llama-server", "llama-quantize", "llama-app"], {})
    return made


def collected(tiny: TinyBuild, prefix: Path, tools: dict[str, str], *, everything: bool = False) -> Collected:
    prefix.mkdir()
    return collect(tiny.build_dir, tiny.source_dir, prefix, tools, CONVERT, everything=everything)


def test_programs_and_libraries_lie_side_by_side(tiny: TinyBuild, tmp_path: Path) -> None:
    found = collected(tiny, tmp_path / "prefix", TOOLS)
    bin_dir = tmp_path / "prefix" / "bin"
    assert found.programs == TOOLS
    assert {path.name for path in bin_dir.iterdir()} == {"llama-server", "llama-quantize", *found.libraries}
    assert {"libggml.so", "libggml.so.0", "libggml.so.0.26.0", "libllama.so", "libllama-server-impl.so"} <= set(
        found.libraries
    )
    assert str((bin_dir / "libggml.so").readlink()) == "libggml.so.0"
    assert str((bin_dir / "libggml.so.0").readlink()) == "libggml.so.0.26.0"
    assert os.access(bin_dir / "llama-server", os.X_OK)


def test_the_copy_runs_without_the_build(tmp_path: Path) -> None:
    made = TinyBuild(tmp_path / "there", TINY_DIR)
    made.made(["llama-server"], {})
    collected(made, tmp_path / "prefix", {"server": "llama-server"})
    made.build_dir.rename(tmp_path / "gone")
    said = subprocess.run(
        [tmp_path / "prefix" / "bin" / "llama-server", "--version"], env={}, cwd="/", capture_output=True, check=True
    )
    assert b"11434" in said.stdout + said.stderr


def test_a_program_whose_file_has_another_name(tiny: TinyBuild, tmp_path: Path) -> None:
    found = collected(tiny, tmp_path / "prefix", {"app": "llama-app"})
    assert found.programs == {"app": "llama"}
    assert (tmp_path / "prefix" / "bin" / "llama").is_file()


def test_everything_is_every_program_that_was_built(tiny: TinyBuild, tmp_path: Path) -> None:
    collected(tiny, tmp_path / "prefix", {}, everything=True)
    names = {path.name for path in (tmp_path / "prefix" / "bin").iterdir() if ".so" not in path.name}
    assert names == {"llama-server", "llama-quantize", "llama"}


@pytest.mark.parametrize("target", ["llama-imatrix", "llama-there-is-none", "llama-server-impl-not"])
def test_a_target_that_made_nothing(tiny: TinyBuild, tmp_path: Path, target: str) -> None:
    with pytest.raises(IntegrityError, match=f"'{target}'"):
        collected(tiny, tmp_path / "prefix", {"x": target})


def test_the_converter_keeps_what_must_stay_with_it(tiny: TinyBuild, tmp_path: Path) -> None:
    (tiny.source_dir / "conversion" / "__pycache__").mkdir(exist_ok=True)
    (tiny.source_dir / "conversion" / "outside.py").symlink_to("/etc/passwd")
    (tiny.source_dir / "convert_hf_to_gguf.py").chmod(0o755)
    found = collected(tiny, tmp_path / "prefix", TOOLS)
    (tiny.source_dir / "conversion" / "outside.py").unlink()
    convert_dir = tmp_path / "prefix" / "convert"
    assert found.converter == "convert_hf_to_gguf.py"
    assert found.requirements == "requirements/requirements-convert_hf_to_gguf.txt"
    assert sorted(path.name for path in convert_dir.iterdir()) == [
        "conversion",
        "convert_hf_to_gguf.py",
        "gguf-py",
        "requirements",
    ]
    assert {path.name for path in (convert_dir / "conversion").iterdir()} == {"__init__.py", "llama.py"}
    assert os.access(convert_dir / "convert_hf_to_gguf.py", os.X_OK)


def test_a_trimmed_tree_has_no_converter(tiny: TinyBuild, tmp_path: Path) -> None:
    (tmp_path / "prefix").mkdir()
    found = collect(tiny.build_dir, tmp_path, tmp_path / "prefix", TOOLS, CONVERT)
    assert (found.converter, found.requirements) == (None, None)
    assert not (tmp_path / "prefix" / "convert").exists()


def test_a_recipe_cannot_reach_outside_the_tree(tiny: TinyBuild, tmp_path: Path) -> None:
    (tmp_path / "prefix").mkdir()
    outside = Convert(scripts=["convert_hf_to_gguf.py"], keep=["../build.log"])
    with pytest.raises(RefusedError):
        collect(tiny.build_dir, tiny.source_dir, tmp_path / "prefix", TOOLS, outside)


def test_libraries_of_2024_are_gathered_from_their_directories(tmp_path: Path) -> None:
    made = TinyBuild(tmp_path, TINY_2024_DIR)
    made.made(["llama-server", "llama-quantize"], {})
    assert not list((made.build_dir / "bin").glob("*.so*"))
    found = collected(made, tmp_path / "prefix", TOOLS)
    assert {"libggml.so", "libllama.so"} <= set(found.libraries)
    assert found.programs == TOOLS
    subprocess.run([tmp_path / "prefix" / "bin" / "llama-server", "--version"], env={}, cwd="/", check=True)


def test_backends_that_are_loaded_at_run_time_come_along(tmp_path: Path) -> None:
    made = TinyBuild(tmp_path, TINY_DIR)
    made.made(["llama-server"], {"GGML_BACKEND_DL": "ON", "GGML_NATIVE": "OFF", "GGML_CPU_ALL_VARIANTS": "ON"})
    found = collected(made, tmp_path / "prefix", {"server": "llama-server"})
    assert {"libggml-cpu-haswell.so", "libggml-cpu-x64.so"} <= set(found.libraries)
