"""A finished build proves that it is what was asked for, before it is published."""

import re
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from llama_mgr.build.artifacts import built_program
from llama_mgr.build.probe_model import probe_model
from llama_mgr.build.recipe_file import Verify
from llama_mgr.build.resolve import Resolved
from llama_mgr.errors import ChildFailedError, MissingToolsError, VerificationError
from llama_mgr.process import child_environ, found_program, run, status_words
from llama_mgr.text import printable, printable_lines

# `version: 4747 (c5d91a74)` up to b10360, `version: 0.6.0-dev (build 11434, commit abc1234)` from b10470.
_VERSION = re.compile(r"^version:\s+(?:(?:\S+)\s+\(build (\d+), commit \S+\)|(\d+)\s+\(\S+\))", re.MULTILINE)
_EXECUTABLE_MAGIC = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")
_LDD_LINE = re.compile(r"^\s+(\S+) => (not found|/.*?)(?: \(0x[0-9a-f]+\))?$", re.MULTILINE)
_MUSL_MISSING = re.compile(r"^Error loading shared library ([^:\s]+):", re.MULTILINE)
_OTOOL_LINE = re.compile(r"^\s+(\S+) \(compatibility version", re.MULTILINE)
# It comes with the driver, which a machine that only builds need not have.
_DRIVER_LIBRARIES = frozenset({"libcuda.so.1"})
_ANOTHER_COMPILER = "nothing was published; try another compiler (CC=… CXX=…), or --arch cpu-portable"
_SEE_THE_LOG = "nothing was published; see the log of the build"
_CHILD_TIMEOUT_S = 60.0
# How a program dies of code that the compiler got wrong or this processor lacks; ggml aborts when a GPU refuses it.
_CRASHES = frozenset({signal.SIGILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGABRT, signal.SIGTRAP})
_NO_MEMORY = re.compile(
    r"out of memory|OutOfDeviceMemory|bad_alloc|(?:failed to|unable to|cannot) allocate", re.IGNORECASE
)


@dataclass(frozen=True)
class _Linked:
    """What one program or library links against."""

    name: str
    missing: tuple[str, ...]
    paths: tuple[Path, ...]


def prove(
    prefix: Path,
    resolved: Resolved,
    source_build_number: int,
    configure_log: str,
    environ: Mapping[str, str],
    *,
    gpu_present: bool,
) -> list[str]:
    """Check a staged build: libraries, version, and what its recipe asks for.

    Every program and library in `prefix/bin` must find all its libraries with an empty library path, none of them
    where it was built; a program must run in another directory and say the build number; a model of half a megabyte
    must run through llama-bench, on the GPU if there is one; and the recipe's checks of the configure log, the files
    and (where a GPU is) the devices must hold.

    Args:
        prefix: the staged build, its programs in `bin/`.
        resolved: the recipe for this tree; its checks already apply.
        source_build_number: what the version must say; 0 is not checked.
        configure_log: all that CMake said.
        environ: where to find `ldd` or `otool`; children get its harmless part only.
        gpu_present: this machine has the device of the recipe.

    Returns:
        What could not be checked here, in sentences for people; empty when all was.

    Raises:
        VerificationError: checks failed; all of them are named, with what was found instead.
    """
    children = child_environ(environ)
    linked = list(_linked(prefix, children))
    absent_drivers = sorted({name for one in linked for name in one.missing} & _DRIVER_LIBRARIES)
    whole = not any(one.missing for one in linked)
    for_gpu = resolved.device_prefix not in {"", "CPU"}
    calculation = _calculation(prefix, children) if whole else _Calculation()
    # What a GPU build does without its GPU (it may abort) says nothing of the build.
    crashed = calculation.is_crash and (gpu_present or not for_gpu)
    problems = [
        *_library_problems(linked, prefix, tolerated=frozenset() if gpu_present else _DRIVER_LIBRARIES),
        *(_version_problems(prefix, source_build_number, children) if whole else []),
        *([f"it crashes when it calculates: {calculation.trouble}"] if crashed else []),
        *_log_problems(resolved.verify, configure_log),
        *_artifact_problems(resolved.verify, prefix),
        *(_device_problems(resolved.verify, prefix, children) if gpu_present and whole else []),
    ]
    if problems:
        hint = _ANOTHER_COMPILER if crashed and not for_gpu else _SEE_THE_LOG
        raise VerificationError("cannot accept the build for recipe", resolved.recipe, "; ".join(problems), hint=hint)
    remarks = [f"not run here: {name}, which the GPU driver brings, is missing" for name in absent_drivers]
    if calculation.trouble:
        remarks.append(f"whether it calculates could not be tried: {calculation.trouble}")
    return remarks


# -- libraries ---------------------------------------------------------------------------------------------------------


def _linked(prefix: Path, environ: Mapping[str, str]) -> Iterator[_Linked]:
    tool = found_program("otool" if sys.platform == "darwin" else "ldd", environ)
    if tool is None:
        raise MissingToolsError(
            "cannot check the libraries of", prefix, "neither ldd nor otool is on the PATH", hint="install libc-bin"
        )
    for path in sorted((prefix / "bin").iterdir()):
        if path.is_file() and not path.is_symlink() and _is_executable_format(path):
            yield _linked_by_otool(tool, path, environ) if tool.name == "otool" else _linked_by_ldd(tool, path, environ)


def _is_executable_format(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) in _EXECUTABLE_MAGIC


def _linked_by_ldd(ldd: Path, path: Path, environ: Mapping[str, str]) -> _Linked:
    # A static program makes ldd fail, and says so in words that differ; it misses nothing.
    said = run([ldd, path], environ=environ, cwd=Path("/"), timeout_s=_CHILD_TIMEOUT_S, check=False)
    lines = _LDD_LINE.findall(said.stdout)
    missing = [name for name, found in lines if found == "not found"]
    missing += _MUSL_MISSING.findall(said.stdout + said.stderr)
    return _Linked(path.name, tuple(missing), tuple(Path(found) for _, found in lines if found != "not found"))


def _linked_by_otool(otool: Path, path: Path, environ: Mapping[str, str]) -> _Linked:
    said = run([otool, "-L", path], environ=environ, cwd=Path("/"), timeout_s=_CHILD_TIMEOUT_S, check=False)
    names = _OTOOL_LINE.findall(said.stdout)
    beside = [name.rpartition("/")[2] for name in names if name.startswith(("@rpath/", "@loader_path/"))]
    missing = [name for name in beside if not (path.parent / name).exists()]
    # System libraries live in the dyld cache and are no files.
    missing += [
        name
        for name in names
        if name.startswith("/") and not name.startswith(("/usr/lib/", "/System/")) and not Path(name).exists()
    ]
    return _Linked(path.name, tuple(missing), tuple(Path(name) for name in names if name.startswith("/")))


def _library_problems(linked: list[_Linked], prefix: Path, *, tolerated: frozenset[str]) -> Iterator[str]:
    bin_dir, staged_dir = (prefix / "bin").resolve(), prefix.resolve().parent
    for one in linked:
        missing = [name for name in one.missing if name not in tolerated]
        if missing:
            yield f"{one.name} does not find {', '.join(map(printable, missing))}"
        for path in one.paths:
            where = path.parent.resolve()
            if where.is_relative_to(staged_dir) and where != bin_dir:
                yield f"{one.name} takes {path.name} from {where}, which will not stay"


# -- running -----------------------------------------------------------------------------------------------------------


def _version_problems(prefix: Path, build_number: int, environ: Mapping[str, str]) -> Iterator[str]:
    tools = ("server", "cli", "imatrix", "perplexity")
    program = next((path for path in (built_program(prefix, tool) for tool in tools) if path), None)
    if program is None:
        return
    said = _said([program, "--version"], environ)
    found = _VERSION.search(said.text)
    if said.trouble or found is None:
        yield f"`{program.name} --version` fails: {said.trouble or 'it says no version'}{_shown(said.text)}"
        return
    number = int(found[1] or found[2])
    if build_number and number != build_number:
        yield f"{program.name} says that it is build {number}, not {build_number}"


@dataclass(frozen=True)
class _Calculation:
    """How a first calculation went."""

    trouble: str = ""
    """What went wrong, in words; empty when nothing did, or nothing could be run."""
    is_crash: bool = False


def _calculation(prefix: Path, environ: Mapping[str, str]) -> _Calculation:
    """Let the build calculate with a tiny model.

    `--version` starts no kernel: a build whose matrix products crash passes it.
    """
    program = built_program(prefix, "bench")
    if program is None:
        return _Calculation()
    with tempfile.TemporaryDirectory(dir=prefix.parent) as scratch:
        model = Path(scratch, "probe.gguf")
        model.write_bytes(probe_model())
        said = _said([program, "-m", model, "-p", "32", "-n", "4", "-r", "1"], environ)
    if not said.trouble:
        return _Calculation()
    is_crash = -said.status in _CRASHES and not _NO_MEMORY.search(said.text)
    return _Calculation(f"`{program.name}` with a tiny model: {said.trouble}{_shown(said.text)}", is_crash)


@dataclass(frozen=True)
class _Said:
    status: int
    text: str
    trouble: str


def _said(argv: list[str | Path], environ: Mapping[str, str]) -> _Said:
    try:
        child = run(argv, environ=environ, cwd=Path("/"), timeout_s=_CHILD_TIMEOUT_S, check=False)
    except (ChildFailedError, MissingToolsError, OSError) as error:
        return _Said(0, "", printable(error))
    text = f"{child.stdout}\n{child.stderr}"
    return _Said(child.status, text, "" if child.status == 0 else status_words(child.status))


def _shown(text: str) -> str:
    lines = [line.strip() for line in printable_lines(text.strip(), 2)]
    return f" (it says: {' / '.join(lines)})" if lines else ""


# -- the recipe's checks -----------------------------------------------------------------------------------------------


def _log_problems(verify: Verify, configure_log: str) -> Iterator[str]:
    for check in verify.configure_log:
        if check.must and not re.search(check.must, configure_log, re.MULTILINE):
            yield f"configure did not say '{check.must}'"
        unwanted = re.search(check.must_not, configure_log, re.MULTILINE) if check.must_not else None
        if unwanted:
            yield f"configure said '{printable(unwanted[0])}'"


def _artifact_problems(verify: Verify, prefix: Path) -> Iterator[str]:
    for check in verify.artifacts:
        if not any(prefix.glob(check.glob)):
            near = sorted(path.name for path in (prefix / "bin").glob("*ggml*.so"))
            yield f"there is no {check.glob}, only {', '.join(near) or 'no library of ggml at all'}"


def _device_problems(verify: Verify, prefix: Path, environ: Mapping[str, str]) -> Iterator[str]:
    server = built_program(prefix, "server")
    if server is None or not verify.devices:
        return
    said = _said([server, "--list-devices"], environ)
    for check in verify.devices:
        if not re.search(check.pattern, said.text, re.MULTILINE):
            yield f"--list-devices names nothing like '{check.pattern}'{_shown(said.text)}"
