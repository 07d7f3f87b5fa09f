"""Headers, libraries and CMake packages that a recipe asks for: where the compiler and CMake would find them."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from llama_mgr.build import discovery
from llama_mgr.build.condition import filled, words
from llama_mgr.build.found import FoundTool
from llama_mgr.build.recipe import RequiredFile
from llama_mgr.text import printable

_PREFIXES = tuple(map(Path, ("/usr/local", "/usr", "/opt/homebrew", "/opt/local")))
_INCLUDE_BELOW = ("include", "targets/*/include")
_LIBRARY_BELOW = (
    "lib",
    "lib64",
    "lib/stubs",
    "lib64/stubs",
    "lib/*-linux-gnu*",
    "targets/*/lib",
    "targets/*/lib/stubs",
)
_PACKAGE_BELOW = ("lib", "lib64", "share", "lib/*-linux-gnu*", "targets/*/lib")


class DevelopmentFiles:
    """Looks for development files; where to look is learned from the compiler once, on first need."""

    def __init__(self, compiler: FoundTool | None, environ: Mapping[str, str]) -> None:
        self._compiler = compiler
        self._environ = environ

    def find(self, wanted: RequiredFile, facts: Mapping[str, str]) -> tuple[FoundTool | None, str]:
        """Return the first file that satisfies `wanted` (with the version its header says), or why there is none.

        The roots of `wanted` come before the places of the system.
        """
        roots = [Path(root) for one in wanted.roots if (root := filled(one, facts))]
        why = f"not found ({', '.join(self._sought(wanted))})"
        for header in self._headers(wanted, roots):
            version, problem = _header_version(wanted, header)
            if version is not None:
                return FoundTool(wanted.name, header, version), ""
            why = problem
        for path in (*self._libraries(wanted, roots), *_packages(wanted, [*roots, *_PREFIXES])):
            return FoundTool(wanted.name, path, ""), ""
        return None, why

    @staticmethod
    def _sought(wanted: RequiredFile) -> Iterator[str]:
        yield from (*words(wanted.header), *words(wanted.library))
        yield from (f"{name}Config.cmake" for name in words(wanted.cmake_package))

    def _headers(self, wanted: RequiredFile, roots: Sequence[Path]) -> Iterator[Path]:
        if words(wanted.header):
            directories = [*_below(roots, _INCLUDE_BELOW), *self._include_dirs]
            yield from _files(directories, words(wanted.header))

    def _libraries(self, wanted: RequiredFile, roots: Sequence[Path]) -> Iterator[Path]:
        if words(wanted.library):
            directories = [*_below(roots, _LIBRARY_BELOW), *self._library_dirs]
            yield from _files(directories, words(wanted.library))

    @cached_property
    def _include_dirs(self) -> list[Path]:
        """What `#include <…>` searches; the compiler prints it on `-v`."""
        said = self._ask("-E", "-v", "-x", "c++", "/dev/null") or ""
        _, _, after = said.partition("search starts here:")
        listed = [line.strip() for line in after.partition("End of search list")[0].splitlines()]
        asked = [Path(line) for line in listed if line.startswith("/")]
        return [*asked, *_below(_PREFIXES, ("include", "include/*-linux-gnu*"))]

    @cached_property
    def _library_dirs(self) -> list[Path]:
        """What `-l` searches: `-print-search-dirs` of GCC and Clang."""
        said = self._ask("-print-search-dirs") or ""
        line = discovery.first_match(r"^libraries: =?(.*)$", said) or ""
        asked = [Path(part) for part in line.split(":") if part.startswith("/")]
        return [*asked, *_below(_PREFIXES, _LIBRARY_BELOW)]

    def _ask(self, *arguments: str) -> str | None:
        return discovery.answer([str(self._compiler.path), *arguments], self._environ) if self._compiler else None


def _below(roots: Sequence[Path], patterns: Sequence[str]) -> list[Path]:
    return [path for root in roots for pattern in patterns for path in sorted(root.glob(pattern)) if path.is_dir()]


def _files(directories: Sequence[Path], patterns: Sequence[str]) -> Iterator[Path]:
    for directory in directories:
        for pattern in patterns:
            yield from (path for path in sorted(directory.glob(pattern)) if path.is_file())


def _header_version(wanted: RequiredFile, header: Path) -> tuple[str | None, str]:
    """Return the version that a header says ("" where none is asked for), or what is wrong with it."""
    if not wanted.version_pattern:
        return "", ""
    try:
        version = discovery.first_match(wanted.version_pattern, header.read_text("utf-8", "replace"))
    except OSError as error:
        return None, f"{printable(header)} cannot be read ({error.strerror})"
    if version is None:
        return None, f"{printable(header)} does not say its version"
    if wanted.at_least and not discovery.is_at_least(version, wanted.at_least):
        return None, f"{printable(header)} is {version}, and {wanted.at_least} or newer is needed"
    return version, ""


def _packages(wanted: RequiredFile, prefixes: Sequence[Path]) -> Iterator[Path]:
    """Yield package files where find_package looks: `<prefix>/<lib>/cmake/<name>*/`, `<prefix>/share/<name>*/`."""
    for name in words(wanted.cmake_package):
        files = (f"{name}Config.cmake", f"{name.lower()}-config.cmake")
        for base in _below(prefixes, _PACKAGE_BELOW):
            for parent in (base / "cmake", base):
                yield from _files(_named(parent, name), [*files, *(f"cmake/{file}" for file in files)])


def _named(parent: Path, name: str) -> list[Path]:
    try:
        return sorted(entry for entry in parent.iterdir() if entry.name.lower().startswith(name.lower()))
    except OSError:
        return []
