"""From a build directory to a staged prefix: programs and libraries flat in `bin/`, the converter in `convert/`.

Upstream's `cmake --install` is not used: it empties the rpath of every file, and wants every target to be built.
"""

import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from llama_mgr.build.recipe_file import Convert
from llama_mgr.build.reply import Reply
from llama_mgr.errors import IntegrityError
from llama_mgr.paths import join_below
from llama_mgr.store import storage_errors

# The Metal kernels lie beside the programs where they are not embedded.
_LIBRARY_GLOBS = ("*.so", "*.so.*", "*.dylib", "*.metal", "*.metallib")
# b3142 renamed the programs.
_PROGRAM_NAMES = {
    "server": ("llama-server", "server"),
    "cli": ("llama-cli", "main"),
    "quantize": ("llama-quantize", "quantize"),
    "imatrix": ("llama-imatrix", "imatrix"),
    "perplexity": ("llama-perplexity", "perplexity"),
    "bench": ("llama-bench",),
}
CONVERTER_NAMES = ("convert_hf_to_gguf.py", "convert-hf-to-gguf.py")


def built_program(prefix: Path, tool: str) -> Path | None:
    """Return the program of `server`, `cli`, `quantize`, `imatrix`, `perplexity` or `bench`; None where not built."""
    candidates = (prefix / "bin" / name for name in _PROGRAM_NAMES[tool])
    return next((path for path in candidates if path.is_file()), None)


@dataclass(frozen=True)
class Collected:
    """What was copied into a prefix."""

    programs: dict[str, str]
    """Canonical tool to its file name in `bin/`."""
    libraries: tuple[str, ...]
    """File names in `bin/`, links among them, sorted."""
    converter: str | None
    """The convert script's name below `convert/`."""
    requirements: str | None
    """The converter's requirements file, relative to `convert/`."""


def collect(
    build_dir: Path,
    source_dir: Path,
    prefix: Path,
    tools: Mapping[str, str],
    convert: Convert,
    *,
    everything: bool = False,
    omit: Sequence[str] = (),
) -> Collected:
    """Copy what a build made into `prefix`.

    On disk afterwards: `prefix/bin/` with the programs of `tools`, all shared libraries with their chains of links
    (`libggml.so` → `.so.0` → `.so.0.26.0`) and Metal kernels, side by side, because a build with GGML_BACKEND_DL
    looks for backends beside the program; `prefix/convert/` with the convert script and what must stay with it, when
    the tree has one. File modes are kept.

    Args:
        build_dir: configured by `CMake` and built.
        source_dir: the tree.
        prefix: an existing directory.
        tools: canonical tool to the CMake target that was built for it.
        convert: where the tree may keep its converter.
        everything: copy every program that the build made, not only those of `tools`.
        omit: globs of libraries that are left out.

    Raises:
        IntegrityError: a target's program is not there.
        StorageError: the disk is full or failing.
    """
    bin_dir = prefix / "bin"
    artifacts = Reply(build_dir).artifacts()
    with storage_errors("cannot copy the build into", prefix):
        bin_dir.mkdir(parents=True, exist_ok=True)
        programs = {tool: _copied_program(target, artifacts, bin_dir) for tool, target in tools.items()}
        if everything:
            _copy_programs(artifacts, bin_dir)
        libraries = _copied_libraries(artifacts, build_dir, bin_dir, omit)
        converter = _copied_converter(source_dir, prefix / "convert", convert)
    requirements = next((name for name in convert.requirements if (prefix / "convert" / name).is_file()), None)
    return Collected(programs, libraries, converter, requirements)


def _copied_program(target: str, artifacts: Mapping[str, list[Path]], bin_dir: Path) -> str:
    made = [path for path in artifacts.get(target, []) if path.is_file()]
    if not made:
        raise IntegrityError(
            "cannot find the program of target", target, "the build ended well, and did not make it", hint=None
        )
    shutil.copy2(made[0], bin_dir / made[0].name)
    return made[0].name


def _copy_programs(artifacts: Mapping[str, list[Path]], bin_dir: Path) -> None:
    for path in (path for paths in artifacts.values() for path in paths):
        if path.is_file() and os.access(path, os.X_OK) and not _is_library(path):
            shutil.copy2(path, bin_dir / path.name)


def _is_library(path: Path) -> bool:
    return any(path.match(pattern) for pattern in _LIBRARY_GLOBS)


def _copied_libraries(
    artifacts: Mapping[str, list[Path]], build_dir: Path, bin_dir: Path, omit: Sequence[str]
) -> tuple[str, ...]:
    # Asking CMake where libraries are made covers every era: bin today, src and ggml/src/* before b4545.
    directories = {build_dir / "bin", *(path.parent for paths in artifacts.values() for path in paths)}
    found = {path for one in directories for pattern in _LIBRARY_GLOBS for path in one.glob(pattern)}
    found = {path for path in found if not any(path.match(pattern) for pattern in omit)}
    for path in sorted(found):
        if path.is_symlink() and "/" in str(path.readlink()):
            raise IntegrityError("cannot collect the library", path.name, "it is a link that leaves its directory")
        shutil.copy2(path, bin_dir / path.name, follow_symlinks=False)
    return tuple(sorted({path.name for path in found}))


def _copied_converter(source_dir: Path, convert_dir: Path, convert: Convert) -> str | None:
    script = next((name for name in convert.scripts if (source_dir / name).is_file()), None)
    if script is None:
        return None
    for name in [script, *convert.requirements, *convert.keep]:
        source = join_below(source_dir, *Path(name).parts)
        target = join_below(convert_dir, *Path(name).parts)
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, ignore=_unwanted, dirs_exist_ok=True)
        elif source.is_file():
            shutil.copy2(source, target)
    return script


def _unwanted(directory: str, names: Iterable[str]) -> set[str]:
    # A link is dropped: what it points at need not be inside the prefix, and no version of the tree has one here.
    return {name for name in names if name == "__pycache__" or Path(directory, name).is_symlink()}
