"""What a build says of itself, in the words of several eras."""

from pathlib import Path

import pytest

from llama_mgr.build.capability import (
    Device,
    Flag,
    QuantType,
    devices_of,
    flags_of,
    imatrix_format_of,
    quant_types_of,
    read_capabilities,
)

# b11434
NEW_HELP = """----- common params -----

-h,    --help, --usage                  print usage and exit
-c,    --ctx-size N                     size of the prompt context (default: 0, 0 = loaded from model)
                                        (env: LLAMA_ARG_CTX_SIZE)
-fa,   --flash-attn [on|off|auto]       set Flash Attention use ('on', 'off', or 'auto', default: 'auto')
                                        (env: LLAMA_ARG_FLASH_ATTN)
--perf, --no-perf                       whether to enable internal libllama performance timings (default:
                                        false)
-lm,   --load-mode MODE                 model loading mode (default: auto)
                                        - auto: mmap, unless a device does not support it
-ot,   --override-tensor <tensor name pattern>=<buffer type>,...
                                        override tensor buffer type
--list-devices                          print list of available devices and exit
"""
# b2501: indented, values between the spellings
OLD_HELP = """usage: ./server [options]

options:
  -h, --help                show this help message and exit
  -t N, --threads N         number of threads to use during computation (default: 2)
  -m FNAME, --model FNAME
                            model path (default: models/7B/ggml-model-f16.gguf)
      --no-mmap             not a flag line by its indent
"""
QUANT_HELP = """usage: llama-quantize [--help] [--allow-requantize]

  --allow-requantize
                                      allow requantizing tensors
  --imatrix file_name
                                      use data in file_name

-----------------------------------------------------------------------------
 allowed quantization types
-----------------------------------------------------------------------------

   2  or  Q4_0    :  4.34G, +0.4685 ppl @ Llama-3-8B
  38  or  MXFP4_MOE :  MXFP4 MoE
  12  or  Q3_K    : alias for Q3_K_M
          COPY    : only copy tensors, no quantizing
"""


def test_flags_of_today() -> None:
    assert flags_of(NEW_HELP) == [
        Flag(["-h", "--help", "--usage"]),
        Flag(["-c", "--ctx-size"], "N", "LLAMA_ARG_CTX_SIZE"),
        Flag(["-fa", "--flash-attn"], "[on|off|auto]", "LLAMA_ARG_FLASH_ATTN"),
        Flag(["--perf", "--no-perf"]),
        Flag(["-lm", "--load-mode"], "MODE"),
        Flag(["-ot", "--override-tensor"], "<tensor name pattern>=<buffer type>,..."),
        Flag(["--list-devices"]),
    ]


def test_flags_of_2024() -> None:
    assert flags_of(OLD_HELP) == [
        Flag(["-h", "--help"]),
        Flag(["-t", "--threads"], "N"),
        Flag(["-m", "--model"], "FNAME"),
    ]


def test_the_table_of_types() -> None:
    assert quant_types_of(QUANT_HELP) == [
        QuantType("Q4_0", 2, "4.34G, +0.4685 ppl @ Llama-3-8B"),
        QuantType("MXFP4_MOE", 38, "MXFP4 MoE"),
        QuantType("Q3_K", 12, "alias for Q3_K_M"),
        QuantType("COPY", None, "only copy tensors, no quantizing"),
    ]
    old = QUANT_HELP.replace(" allowed quantization types", "Allowed quantization types:")
    assert quant_types_of(old) == quant_types_of(QUANT_HELP)
    assert quant_types_of("NOT_A : table") == []


def test_devices() -> None:
    said = """Available devices:
  CUDA0: NVIDIA GeForce RTX 4090 (24217 MiB, 23808 MiB free)
  MTL0: M3 (1) (9 MiB, 8 MiB free)
"""
    assert devices_of(said) == [
        Device("CUDA0", "NVIDIA GeForce RTX 4090", 24217, 23808),
        Device("MTL0", "M3 (1)", 9, 8),
    ]
    assert devices_of("Available devices:\n  (none)\n") == []


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("", ""),
        ("-o F  (default: imatrix.dat)", "dat"),
        ("--output-format {gguf,dat}", "gguf"),
        ("imatrix.gguf", "gguf"),
    ],
)
def test_the_format_of_an_importance_matrix(said: str, expected: str) -> None:
    assert imatrix_format_of(said) == expected


SCRIPT = """
import argparse
@Model.register("LlamaForCausalLM", "MistralForCausalLM")
class LlamaModel(Model):
    raise SystemExit("a converter is read, never run")
NAME = "x"
@ModelBase.register(NAME, "Qwen2ForCausalLM")
class Qwen(ModelBase): ...
p.add_argument("--outtype", "-t", choices=["f32", "f16"])
p.add_argument("--mtp", action=argparse.BooleanOptionalAction)
p.add_argument("--dry-run", action="store_true")
p.add_argument("--outfile", type=Path)
p.add_argument("model")
"""


def converter(prefix: Path, script: str, name: str = "convert_hf_to_gguf.py") -> None:
    (prefix / "convert" / "conversion").mkdir(parents=True)
    (prefix / "bin").mkdir()
    (prefix / "convert" / name).write_text(script)


@pytest.mark.parametrize("name", ["convert_hf_to_gguf.py", "convert-hf-to-gguf.py"])
def test_the_converter_is_read_and_not_run(tmp_path: Path, environ: dict[str, str], name: str) -> None:
    converter(tmp_path, SCRIPT, name)
    (tmp_path / "convert" / "conversion" / "__init__.py").write_text(
        'TEXT_MODEL_MAP: dict[str, str] = {"BertModel": "bert"}\nOTHER = {"NotOne": "x"}\n'
    )
    found = read_capabilities(tmp_path, tmp_path, environ)
    assert found.has_converter
    assert found.converter_architectures == ["BertModel", "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"]
    assert found.convert_flags == [
        Flag(["--outtype", "-t"], "{f32,f16}"),
        Flag(["--mtp", "--no-mtp"]),
        Flag(["--dry-run"]),
        Flag(["--outfile"], "VALUE"),
    ]


@pytest.mark.parametrize("script", ["def broken(:", "\0", "x = " + "(" * 5000 + ")" * 5000])
def test_a_converter_that_does_not_parse_tells_nothing(tmp_path: Path, environ: dict[str, str], script: str) -> None:
    converter(tmp_path, script)
    found = read_capabilities(tmp_path, tmp_path, environ)
    assert found.has_converter
    assert (found.converter_architectures, found.convert_flags) == ([], [])


def test_nothing_built_tells_nothing(tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "bin").mkdir()
    found = read_capabilities(tmp_path, tmp_path / "none", environ)
    assert not found.has_converter
    assert (found.server_flags, found.quant_types, found.loader_architectures, found.devices) == ([], [], [], [])
    assert found.imatrix_format == ""


def test_programs_that_do_not_start_tell_nothing(tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "bin").mkdir()
    for name, text in {"llama-server": "not a program", "llama-quantize": "#!/nonexistent\n"}.items():
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    found = read_capabilities(tmp_path, tmp_path, environ)
    assert (found.server_flags, found.quant_types) == ([], [])


def test_loader_architectures_in_both_places(tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "bin").mkdir()
    table = '{ LLM_ARCH_LLAMA,  "llama" },\n{ LLM_ARCH_GPT_OSS, "gpt-oss" },\n{ LLM_ARCH_UNKNOWN, "(unknown)" },'
    (tmp_path / "llama.cpp").write_text(table)
    assert read_capabilities(tmp_path, tmp_path, environ).loader_architectures == ["llama", "gpt-oss"]
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "llama-arch.cpp").write_text('{ LLM_ARCH_QWEN2, "qwen2" }')
    assert read_capabilities(tmp_path, tmp_path, environ).loader_architectures == ["qwen2"]


def test_backends_by_library_and_by_log(tmp_path: Path, environ: dict[str, str]) -> None:
    (tmp_path / "bin").mkdir()
    assert read_capabilities(tmp_path, tmp_path, environ).backends == ["cpu"]
    log = "-- cuBLAS found\n-- Including RPC backend\n"
    assert read_capabilities(tmp_path, tmp_path, environ, log).backends == ["cuda", "rpc"]
    for name in ("libggml.so", "libggml-base.so.0", "libggml-cpu-haswell.so", "libggml-vulkan.so", "ggml-rpc-server"):
        (tmp_path / "bin" / name).write_text("")
    assert read_capabilities(tmp_path, tmp_path, environ).backends == ["cpu", "vulkan"]
