"""Proving builds of the tiny project, sound ones and such that pretend."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
from gguf import GGUFReader
from gguf.quants import dequantize

from llama_mgr.build.artifacts import collect
from llama_mgr.build.capability import read_capabilities
from llama_mgr.build.recipe_file import ArtifactCheck, Convert, DeviceCheck, LogCheck, Verify
from llama_mgr.build.resolve import Resolved
from llama_mgr.build.verify import prove
from llama_mgr.errors import VerificationError
from tests.tools.tiny_build import TinyBuild
from tests.tools.tiny_repository import TINY_DIR

CPU = Resolved(
    recipe="cpu", parts=(), defines={}, environ={}, targets={}, failures=[], convert=Convert(), patch_build_info=None,
    job_memory_mib=0, disk_mib=0, device_prefix="",
    verify=Verify(
        configure_log=[LogCheck(must="Including CPU backend", must_not="Including CUDA")],
        artifacts=[ArtifactCheck(glob="bin/*ggml-cpu.so*")],
    ),
)  # fmt: skip
CUDA = replace(
    CPU,
    recipe="cuda",
    verify=Verify(
        configure_log=[LogCheck(must="Including CUDA backend")],
        artifacts=[ArtifactCheck(glob="bin/*ggml-cuda.so*")],
        devices=[DeviceCheck(pattern=r"^  CUDA\d+: ")],
    ),
)
TOOLS = {
    "server": "llama-server", "quantize": "llama-quantize", "imatrix": "llama-imatrix", "bench": "llama-bench",
}  # fmt: skip


class Made:
    """A tiny build with its collected prefix and what configure said."""

    def __init__(self, place: Path, defines: Mapping[str, str]) -> None:
        self.tiny = TinyBuild(place, TINY_DIR)
        self.said = self.tiny.made(list(TOOLS.values()), defines)
        self.prefix = place / "prefix"
        self.prefix.mkdir()
        convert = Convert(scripts=["convert_hf_to_gguf.py"], keep=["conversion"])
        collect(self.tiny.build_dir, self.tiny.source_dir, self.prefix, TOOLS, convert)


@pytest.fixture(scope="module")
def cpu(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("cpu"), {})


@pytest.fixture
def copied(cpu: Made, tmp_path: Path) -> Path:
    """A prefix to damage."""
    shutil.copytree(cpu.prefix, tmp_path / "op" / "prefix", symlinks=True)
    return tmp_path / "op" / "prefix"


def test_a_sound_build(cpu: Made, environ: dict[str, str]) -> None:
    hostile = {**environ, "LD_LIBRARY_PATH": "/nonexistent", "LLAMA_ARG_PORT": "x", "LD_PRELOAD": "/nonexistent.so"}
    assert prove(cpu.prefix, CPU, 11434, cpu.said, hostile, gpu_present=False) == []


def test_an_unknown_number_is_not_compared(cpu: Made, environ: dict[str, str]) -> None:
    assert prove(cpu.prefix, CPU, 0, cpu.said, environ, gpu_present=False) == []


def test_every_problem_is_in_one_error(cpu: Made, environ: dict[str, str]) -> None:
    with pytest.raises(VerificationError) as caught:
        prove(cpu.prefix, CUDA, 11435, cpu.said, environ, gpu_present=True)
    message = caught.value.message
    assert message.startswith("cannot accept the build for recipe 'cuda': ")
    assert "llama-server says that it is build 11434, not 11435" in message
    assert "configure did not say 'Including CUDA backend'" in message
    assert "there is no bin/*ggml-cuda.so*, only libggml-base.so, libggml-cpu.so, libggml.so" in message
    assert "--list-devices names nothing like" in message
    assert "(none)" in message
    assert caught.value.exit_status == 5


def test_devices_are_asked_only_where_a_gpu_is(cpu: Made, environ: dict[str, str]) -> None:
    recipe = replace(CUDA, verify=Verify(devices=CUDA.verify.devices))
    assert prove(cpu.prefix, recipe, 11434, cpu.said, environ, gpu_present=False) == []


def test_what_configure_must_not_say(cpu: Made, environ: dict[str, str]) -> None:
    recipe = replace(CPU, verify=Verify(configure_log=[LogCheck(must_not=r"Including \w+")]))
    with pytest.raises(VerificationError, match="configure said 'Including CPU'"):
        prove(cpu.prefix, recipe, 11434, cpu.said, environ, gpu_present=False)


def test_a_missing_library(cpu: Made, copied: Path, environ: dict[str, str]) -> None:
    (copied / "bin" / "libllama.so.0").unlink()
    with pytest.raises(VerificationError, match=r"llama-server does not find libllama\.so\.0"):
        prove(copied, CPU, 11434, cpu.said, environ, gpu_present=False)


def test_libraries_from_the_build_directory(tmp_path: Path, environ: dict[str, str]) -> None:
    made = Made(tmp_path, {"CMAKE_BUILD_WITH_INSTALL_RPATH": "OFF"})
    with pytest.raises(VerificationError, match=r"llama-server takes \S+ from .*/build/bin, which will not stay"):
        prove(made.prefix, CPU, 11434, made.said, environ, gpu_present=False)


def test_a_server_that_does_not_run(cpu: Made, copied: Path, environ: dict[str, str]) -> None:
    server = copied / "bin" / "llama-server"
    server.write_text("#!/bin/sh\necho 'illegal \x1b[1m instruction' >&2\nexit 132\n")
    with pytest.raises(VerificationError) as caught:
        prove(copied, CPU, 11434, cpu.said, environ, gpu_present=False)
    assert "`llama-server --version` fails: it ended with status 132 (it says: illegal \\x1b[1m" in caught.value.message


def test_a_build_that_crashes_when_it_calculates(cpu: Made, copied: Path, environ: dict[str, str]) -> None:
    (copied / "bin" / "llama-bench").write_text("#!/bin/sh\necho 'pp32' >&2\nkill -ILL $$\n")
    with pytest.raises(VerificationError, match=r"it crashes when it calculates: .* killed by SIGILL") as caught:
        prove(copied, CPU, 11434, cpu.said, environ, gpu_present=False)
    assert "try another compiler" in (caught.value.hint or "")
    assert sorted(path.name for path in copied.parent.iterdir()) == ["prefix"]


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo 'ggml_cuda: out of memory' >&2; kill -ABRT $$", "killed by SIGABRT (it says: ggml_cuda: out of memory)"),
        ("echo 'std::bad_alloc' >&2; kill -ABRT $$", "killed by SIGABRT (it says: std::bad_alloc)"),
        ("echo 'error: unknown argument: -r' >&2; exit 1", "status 1 (it says: error: unknown argument: -r)"),
        ("kill -KILL $$", "killed by SIGKILL"),
    ],
)
def test_a_calculation_that_could_not_be_tried(
    cpu: Made, copied: Path, environ: dict[str, str], script: str, why: str
) -> None:
    (copied / "bin" / "llama-bench").write_text(f"#!/bin/sh\n{script}\n")
    (remark,) = prove(copied, CPU, 11434, cpu.said, environ, gpu_present=False)
    assert remark.startswith("whether it calculates could not be tried: `llama-bench`")
    assert remark.endswith(why)


def test_a_gpu_build_that_aborts_without_its_gpu_is_accepted(cpu: Made, copied: Path, environ: dict[str, str]) -> None:
    recipe = replace(CPU, device_prefix="Vulkan")
    script = "#!/bin/sh\necho 'vk::IncompatibleDriverError' >&2\nkill -ABRT $$\n"
    (copied / "bin" / "llama-bench").write_text(script)
    (remark,) = prove(copied, recipe, 11434, cpu.said, environ, gpu_present=False)
    assert "vk::IncompatibleDriverError" in remark
    with pytest.raises(VerificationError, match=r"crashes when it calculates: .*vk::IncompatibleDriverError") as caught:
        prove(copied, recipe, 11434, cpu.said, environ, gpu_present=True)
    assert "compiler" not in (caught.value.hint or "")


def test_the_tiny_model_is_a_whole_gguf_file(cpu: Made, copied: Path, environ: dict[str, str], tmp_path: Path) -> None:
    kept = tmp_path / "kept.gguf"
    (copied / "bin" / "llama-bench").write_text(f"#!/bin/sh\ncp $2 {kept}\n")
    assert prove(copied, CPU, 11434, cpu.said, environ, gpu_present=False) == []
    reader = GGUFReader(kept)
    assert len({tensor.tensor_type for tensor in reader.tensors}) == 7
    last = reader.tensors[-1]
    assert last.data_offset + last.n_bytes == kept.stat().st_size
    for tensor in reader.tensors:
        weights = dequantize(tensor.data, tensor.tensor_type)
        assert weights.size == tensor.n_elements
        assert 0 < abs(float(weights.min())) <= 1, tensor.name


def test_a_build_without_server_proves_by_another_program(cpu: Made, copied: Path, environ: dict[str, str]) -> None:
    (copied / "bin" / "llama-server").unlink()
    with pytest.raises(VerificationError, match="llama-imatrix says that it is build 11434, not 5"):
        prove(copied, CPU, 5, cpu.said, environ, gpu_present=False)
    for name in ("llama-imatrix", "llama-quantize"):
        (copied / "bin" / name).unlink()
    assert prove(copied, CPU, 5, cpu.said, environ, gpu_present=False) == []


@pytest.mark.parametrize("gpu_present", [False, True])
def test_only_a_machine_without_gpu_may_lack_the_driver(
    tmp_path: Path, environ: dict[str, str], gpu_present: bool
) -> None:
    made = TinyBuild(tmp_path, TINY_DIR)
    lists = made.source_dir / "tools" / "CMakeLists.txt"
    lists.write_text(
        'file(WRITE ${CMAKE_BINARY_DIR}/d.c "int cuInit(void) { return 0; }")\n'
        "add_library(cuda SHARED ${CMAKE_BINARY_DIR}/d.c)\n"
        "set_target_properties(cuda PROPERTIES VERSION 1 LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/driver)\n"
        + lists.read_text()
        + "\ntarget_link_libraries(llama-bench PRIVATE -Wl,--no-as-needed cuda)\n"
    )
    said = made.made(["llama-bench", "llama-quantize"], {})
    prefix = tmp_path / "prefix"
    prefix.mkdir()
    collect(made.build_dir, made.source_dir, prefix, {"bench": "llama-bench"}, Convert())
    for library in (prefix / "bin").glob("libcuda*"):
        library.unlink()
    if gpu_present:
        with pytest.raises(VerificationError, match=r"llama-bench does not find libcuda\.so\.1"):
            prove(prefix, CPU, 11434, said, environ, gpu_present=True)
    else:
        notes = prove(prefix, CPU, 11434, said, environ, gpu_present=False)
        assert notes == ["not run here: libcuda.so.1, which the GPU driver brings, is missing"]


def test_what_the_build_can_do(cpu: Made, environ: dict[str, str]) -> None:
    found = read_capabilities(cpu.prefix, cpu.tiny.source_dir, environ, cpu.said)
    (flash,) = (flag for flag in found.server_flags if "--flash-attn" in flag.spellings)
    assert (flash.spellings, flash.value, flash.variable) == (
        ["-fa", "--flash-attn"],
        "[on|off|auto]",
        "LLAMA_ARG_FLASH_ATTN",
    )
    assert {"Q4_K_M", "Q8_0", "COPY"} <= {one.name for one in found.quant_types}
    assert found.loader_architectures == ["llama", "qwen2", "gemma3"]
    assert "LlamaForCausalLM" in found.converter_architectures
    assert found.backends == ["cpu"]
    assert found.imatrix_format == "gguf"
    assert {"--outtype", "--outfile"} <= {spelling for flag in found.convert_flags for spelling in flag.spellings}
