"""What a build can do: its programs are asked, its converter and its loader's source are read."""

import re
from collections.abc import Mapping
from pathlib import Path

import msgspec

from llama_mgr.build import converter_source
from llama_mgr.build.artifacts import CONVERTER_NAMES, built_program
from llama_mgr.errors import LlamaMgrError
from llama_mgr.process import child_environ, run
from llama_mgr.store import read_bounded
from llama_mgr.text import printable

_CHILD_TIMEOUT_S = 60.0
_SOURCE_LIMIT_BYTES = 16 * 1024 * 1024

# Wrapped descriptions are indented by more; b3087-b3715 indented the flags themselves by two.
_FLAG_LINE = re.compile(r"^ {0,2}-")
_DESCRIPTION = re.compile(r"\s{2,}(?=[^\s-])")
_SPELLING = re.compile(r"(?<![\w-])(--?[A-Za-z][\w.-]*)")
_VARIABLE = re.compile(r"\(env: (\w+)\)")
_QUANT_HEADER = re.compile(r"allowed quantization types", re.IGNORECASE)
_QUANT_ROW = re.compile(r"^\s+(?:(\d+)\s+or\s+)?([A-Z][A-Z0-9_]+)\s*:\s+(.*)$")
_DEVICE = re.compile(r"^\s{2}([A-Za-z]+\d*): (.*) \((\d+) MiB, (\d+) MiB free\)$", re.MULTILINE)
_LIBRARY = re.compile(r"^libggml-([a-z0-9]+)")
_INCLUDED = re.compile(r"^-- Including (\w+) backend", re.MULTILINE)
# What configure said before b4080 made every backend a library of its own.
_OLD_WORDS = {
    "blas": r"^-- BLAS found",
    "cuda": r"^-- (?:CUDA|cuBLAS) found",
    "hip": r"^-- HIP and hipBLAS found",
    "metal": r"^-- Metal framework found",
    "sycl": r"^-- SYCL found",
    "vulkan": r"^-- Vulkan found",
}
_ARCHITECTURE_FILES = ("src/llama-arch.cpp", "src/llama.cpp", "llama.cpp")
_ARCHITECTURE = re.compile(r"\{\s*LLM_ARCH_\w+\s*,\s*\"([\w.+-]+)\"\s*\}")


class Flag(msgspec.Struct, frozen=True, omit_defaults=True):
    """One option of a program."""

    spellings: list[str]
    """As the program's help lists them: `["-fa", "--flash-attn"]`."""
    value: str = ""
    """The help's hint of the value, `[on|off|auto]` or `N`; empty for a flag without one."""
    variable: str = ""
    """The environment variable that means the same."""


class QuantType(msgspec.Struct, frozen=True, omit_defaults=True):
    """One type that llama-quantize makes."""

    name: str
    number: int | None = None
    """llama.cpp's file type number; COPY has none."""
    remark: str = ""
    """What the program says of it: bits per weight, or size and perplexity of a known model."""


class Device(msgspec.Struct, frozen=True):
    """One device that llama-server could use when the build was made."""

    name: str
    description: str
    total_mib: int
    free_mib: int


class Capabilities(msgspec.Struct, kw_only=True, frozen=True):
    """What a build can do. What a program that was not built would have told is empty."""

    server_flags: list[Flag] = []
    quantize_flags: list[Flag] = []
    quant_types: list[QuantType] = []
    converter_architectures: list[str] = []
    """Names in a checkpoint's config.json that the converter accepts: `LlamaForCausalLM`."""
    loader_architectures: list[str] = []
    """`general.architecture` of models that the build loads: `llama`."""
    backends: list[str] = []
    """`cpu`, `cuda`, …: as in the names of their libraries."""
    devices: list[Device] = []
    has_converter: bool = False
    convert_flags: list[Flag] = []
    imatrix_format: str = ""
    """What llama-imatrix writes by default: `gguf` or `dat`; empty where it was not built."""


def read_capabilities(
    prefix: Path, source_dir: Path, environ: Mapping[str, str], configure_log: str = ""
) -> Capabilities:
    """Ask a staged build what it can do.

    Runs `--help` of its server, quantize and imatrix and `--list-devices` of the server, and reads the converter and
    the loader's source. What cannot be asked (not built, does not start here) is empty.

    Args:
        prefix: the build: `bin/`, and `convert/` where there is a converter.
        source_dir: the tree that it was built from.
        environ: children get its harmless part only.
        configure_log: what CMake said; tells the backends of trees older than b4080.
    """
    children = child_environ(environ)
    server_flags = flags_of(_help_of(prefix, "server", children))
    quantize_help = _help_of(prefix, "quantize", children)
    script = next((path for name in CONVERTER_NAMES if (path := prefix / "convert" / name).is_file()), None)
    return Capabilities(
        server_flags=server_flags,
        quantize_flags=flags_of(quantize_help),
        quant_types=quant_types_of(quantize_help),
        converter_architectures=converter_source.architectures(script) if script else [],
        loader_architectures=_loader_architectures(source_dir),
        backends=_backends(prefix, configure_log),
        devices=_devices(prefix, server_flags, children),
        has_converter=script is not None,
        convert_flags=[Flag(*one) for one in converter_source.flags(script)] if script else [],
        imatrix_format=imatrix_format_of(_help_of(prefix, "imatrix", children)),
    )


def _help_of(prefix: Path, tool: str, environ: Mapping[str, str]) -> str:
    program = built_program(prefix, tool)
    # llama-quantize --help ends with status 1 in every era.
    return _output([program, "--help"], environ) if program else ""


def _output(argv: list[str | Path], environ: Mapping[str, str]) -> str:
    try:
        said = run(argv, environ=environ, cwd=Path("/"), timeout_s=_CHILD_TIMEOUT_S, check=False)
    except (LlamaMgrError, OSError):  # not built, hangs, or is no program for this machine
        return ""
    return said.stdout or said.stderr


# -- parsers -----------------------------------------------------------------------------------------------------------


def flags_of(help_text: str) -> list[Flag]:
    """Return the options that the `--help` of a program lists, in its order (any era)."""
    found: list[Flag] = []
    for line in help_text.splitlines():
        variable = _VARIABLE.search(line)
        if _FLAG_LINE.match(line):
            head = _DESCRIPTION.split(line.strip(), maxsplit=1)[0]
            spellings = list(_SPELLING.finditer(head))
            if spellings:
                value = printable(head[spellings[-1].end() :].strip(" ,"))
                found.append(Flag([one[1] for one in spellings], value, variable[1] if variable else ""))
        elif variable and found:
            found[-1] = msgspec.structs.replace(found[-1], variable=variable[1])
    return found


def quant_types_of(help_text: str) -> list[QuantType]:
    """Return the table of types in the `--help` of llama-quantize (any era)."""
    header = _QUANT_HEADER.search(help_text)
    if header is None:
        return []
    rows = map(_QUANT_ROW.match, help_text[header.end() :].splitlines())
    return [QuantType(row[2], int(row[1]) if row[1] else None, printable(row[3].strip())) for row in rows if row]


def devices_of(text: str) -> list[Device]:
    """Return the devices in what `llama-server --list-devices` says (b4167 and newer)."""
    return [
        Device(name, printable(description), int(total), int(free))
        for name, description, total, free in _DEVICE.findall(text)
    ]


def imatrix_format_of(help_text: str) -> str:
    """Return what llama-imatrix writes unless told otherwise, by its `--help`; empty for an empty help."""
    if not help_text:
        return ""
    return "gguf" if "imatrix.gguf" in help_text or "--output-format" in help_text else "dat"


# -- files -------------------------------------------------------------------------------------------------------------


def _devices(prefix: Path, server_flags: list[Flag], environ: Mapping[str, str]) -> list[Device]:
    server = built_program(prefix, "server")
    if server is None or not any("--list-devices" in flag.spellings for flag in server_flags):
        return []
    return devices_of(_output([server, "--list-devices"], environ))


def _backends(prefix: Path, configure_log: str) -> list[str]:
    libraries = (_LIBRARY.match(path.name) for path in (prefix / "bin").glob("libggml-*"))
    found = {one[1] for one in libraries if one} - {"base"}
    found |= {name.lower() for name in _INCLUDED.findall(configure_log)}
    found |= {name for name, words in _OLD_WORDS.items() if re.search(words, configure_log, re.MULTILINE)}
    return sorted(found or {"cpu"})


def _loader_architectures(source_dir: Path) -> list[str]:
    for name in _ARCHITECTURE_FILES:
        try:
            text = read_bounded(source_dir / name, _SOURCE_LIMIT_BYTES).decode("utf-8", "replace")
        except LlamaMgrError:
            continue
        found = dict.fromkeys(_ARCHITECTURE.findall(text))
        if found:
            return list(found)
    return []
