"""`--arch auto`: the best GPU whose toolkit is complete, else the CPU, and always the reason."""

from pathlib import Path

import pytest

from llama_mgr.build.arch import choose_arch
from llama_mgr.build.host import Host
from llama_mgr.paths import HOME_VARIABLE, Home
from tests.tools.build_examples import HOST
from tests.tools.fake_program import make_program, path_of

MAC = Host("darwin", "arm64", "Apple M9", "0" * 16, 4, 1 << 34, 1 << 33, "macos", "brew")
ROCMINFO = """
Agent 1
  Name:                    AMD Ryzen 9
Agent 2
  Name:                    gfx1100
  Marketing Name:          Radeon RX 7900
      Name:                    amdgcn-amd-amdhsa--gfx1100
"""
SUMMARY = """Devices:
========
GPU0:
	apiVersion         = 1.3.255
	deviceType         = PHYSICAL_DEVICE_TYPE_CPU
	deviceName         = llvmpipe (LLVM 15.0.6, 256 bits)
"""
ARC = """GPU1:
	deviceType         = PHYSICAL_DEVICE_TYPE_DISCRETE_GPU
	deviceName         = Intel Arc A770
"""


@pytest.fixture
def environ(home: Home, bin_dir: Path) -> dict[str, str]:
    """That PATH, and a home whose recipes ask for one program each."""
    home.recipes_dir.mkdir()
    for name, program, package in (
        ("cuda", "nvcc", "nvidia-cuda-toolkit"), ("rocm", "hipconfig", "hip-dev"), ("vulkan", "glslc", "glslc"),
    ):  # fmt: skip
        (home.recipes_dir / f"{name}.toml").write_text(
            f'name = "{name}"\ntitle = "{name}"\n'
            f'tool = [{{name = "{program}", find = ["path:{program}"], packages = {{apt = ["{package}"]}}}}]\n'
        )
    return {**path_of(bin_dir), HOME_VARIABLE: str(home.root)}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A machine without any card on its bus."""
    return tmp_path / "root"


def card(root: Path, vendor: str) -> None:
    directory = root / "sys/class/drm/card0/device"
    directory.mkdir(parents=True)
    (directory / "vendor").write_text(f"{vendor}\n")


def test_nothing_but_a_cpu(environ: dict[str, str], root: Path) -> None:
    choice = choose_arch(environ, HOST, root=root)
    assert (choice.recipe, choice.why) == ("cpu", "no GPU was found")


def test_nvidia_with_its_toolkit(environ: dict[str, str], bin_dir: Path, root: Path) -> None:
    make_program(bin_dir, "nvidia-smi", "NVIDIA H100 80GB HBM3")
    make_program(bin_dir, "nvcc", "release 12.4")
    choice = choose_arch(environ, HOST, root=root)
    assert (choice.recipe, choice.why) == ("cuda", "NVIDIA H100 80GB HBM3 is here with all it needs")


def test_nvidia_without_its_toolkit_says_what_to_install(environ: dict[str, str], bin_dir: Path, root: Path) -> None:
    make_program(bin_dir, "nvidia-smi", "NVIDIA RTX 4090")
    choice = choose_arch(environ, HOST, root=root)
    assert choice.recipe == "cpu"
    assert choice.why == (
        "NVIDIA RTX 4090 is here, but the recipe 'cuda' lacks nvcc (to use it: apt install nvidia-cuda-toolkit)"
    )


def test_the_next_usable_one_is_taken_and_the_better_one_named(
    environ: dict[str, str], bin_dir: Path, root: Path
) -> None:
    make_program(bin_dir, "nvidia-smi", "NVIDIA RTX 4090")
    make_program(bin_dir, "vulkaninfo", SUMMARY + ARC)
    make_program(bin_dir, "glslc", "shaderc v2023.8")
    choice = choose_arch(environ, HOST, root=root)
    assert choice.recipe == "vulkan"
    assert choice.why.startswith("Intel Arc A770 is here with all it needs; NVIDIA RTX 4090 is here, but")


def test_amd(environ: dict[str, str], bin_dir: Path, root: Path) -> None:
    make_program(bin_dir, "rocminfo", ROCMINFO)
    make_program(bin_dir, "hipconfig", "6.3.42134")
    choice = choose_arch(environ, HOST, root=root)
    assert (choice.recipe, choice.why) == ("rocm", "the AMD GPU gfx1100 is here with all it needs")


@pytest.mark.parametrize(("vendor", "recipe"), [("0x1002", "rocm"), ("0x10de", "cuda")])
def test_a_card_without_its_driver_is_only_named(
    environ: dict[str, str], bin_dir: Path, root: Path, vendor: str, recipe: str
) -> None:
    card(root, vendor)
    make_program(bin_dir, "nvcc", "release 12.4")
    make_program(bin_dir, "hipconfig", "6.3")
    choice = choose_arch(environ, HOST, root=root)
    assert choice.recipe == "cpu"
    assert f"the recipe '{recipe}' lacks its driver" in choice.why


def test_failing_nvidia_smi_is_no_gpu(environ: dict[str, str], bin_dir: Path, root: Path) -> None:
    make_program(
        bin_dir, "nvidia-smi", "NVIDIA-SMI has failed because it couldn't communicate with the driver", status=9
    )
    make_program(bin_dir, "nvcc", "release 12.4")
    assert choose_arch(environ, HOST, root=root).recipe == "cpu"


def test_a_software_renderer_is_no_gpu(environ: dict[str, str], bin_dir: Path, root: Path) -> None:
    make_program(bin_dir, "vulkaninfo", SUMMARY)
    make_program(bin_dir, "glslc", "shaderc v2023.8")
    assert choose_arch(environ, HOST, root=root).recipe == "cpu"


def test_what_every_recipe_lacks_does_not_count_against_one(environ: dict[str, str], bin_dir: Path, root: Path) -> None:
    make_program(bin_dir, "nvidia-smi", "NVIDIA RTX 4090")
    make_program(bin_dir, "nvcc", "release 12.4")
    (bin_dir / "c++").unlink()
    (bin_dir / "g++").unlink()
    assert choose_arch(environ, HOST, root=root).recipe == "cuda"


def test_macs(environ: dict[str, str], root: Path) -> None:
    assert choose_arch(environ, MAC, root=root).recipe == "metal"


def test_hostile_device_names_are_made_printable(environ: dict[str, str], bin_dir: Path, root: Path) -> None:
    make_program(bin_dir, "nvidia-smi", "\x1b[31mGPU")
    assert choose_arch(environ, HOST, root=root).why.startswith("\\x1b[31mGPU is here, but the recipe 'cuda' lacks")
