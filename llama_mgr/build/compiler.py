"""The C and C++ compilers, and the g++ that nvcc accepts.

`CC` and `CXX` choose compilers, as everywhere; `CUDAHOSTCXX` chooses nvcc's. How compilers name themselves: the first
line of `--version`, and `-dumpmachine`, of GCC and Clang.
"""

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from llama_mgr.build import discovery
from llama_mgr.build.found import FoundTool, Missing, other_choice
from llama_mgr.errors import BadInputError
from llama_mgr.process import found_program
from llama_mgr.text import printable

_VARIABLES = {"c": "CC", "c++": "CXX"}
_USUAL = {"c": ("cc", "gcc", "clang"), "c++": ("c++", "g++", "clang++")}
_PACKAGES = {
    "c": {"apt": ["gcc"], "dnf": ["gcc"], "pacman": ["gcc"], "zypper": ["gcc"], "apk": ["gcc", "musl-dev"], "brew": []},
    "c++": {"apt": ["g++"], "dnf": ["gcc-c++"], "pacman": ["gcc"], "zypper": ["gcc-c++"], "apk": ["g++"], "brew": []},
}
_LAUNCHERS = frozenset({"ccache", "sccache", "distcc"})
_PARENTHESES = re.compile(r"\([^()]*\)")


def find_compilers(
    languages: Sequence[str], environ: Mapping[str, str], overrides: Mapping[str, Path]
) -> tuple[list[FoundTool], list[Missing]]:
    """Return the compilers of `languages` (`c`, `c++`); a version reads `gcc 12.2.0 x86_64-linux-gnu`.

    Raises:
        BadInputError: `CC` or `CXX` holds more than a program.
    """
    found, missing = [], []
    for language in languages:
        candidates, why = _candidates(language, environ, overrides.get(language))
        compiler = next((one for path in candidates if (one := identified(language, path, environ))), None)
        if compiler is None and language in overrides:
            missing.append(Missing(language, why, other_choice(language)))
        elif compiler is None:
            hint = "install a C and C++ compiler (on macOS: xcode-select --install)"
            missing.append(Missing(language, why, hint, _PACKAGES[language]))
        else:
            found.append(compiler)
    return found, missing


def _candidates(language: str, environ: Mapping[str, str], override: Path | None) -> tuple[list[Path], str]:
    if override is not None:
        named = [override] if discovery.is_program(override) else []
        return named, f"build.tools.{language} names {printable(override)}, which is no working compiler"
    variable = _VARIABLES[language]
    word = _chosen(variable, environ)
    if word:
        path = discovery.program(word, environ)
        return [path] if path else [], f"{variable} names {printable(word)}, which is no working compiler"
    paths = [path for name in _USUAL[language] if (path := found_program(name, environ))]
    return paths, f"no working {', '.join(_USUAL[language][:-1])} or {_USUAL[language][-1]} on PATH"


def _chosen(variable: str, environ: Mapping[str, str]) -> str:
    """Return the program that `variable` names; a compiler cache before it is dropped, for we bring our own."""
    value = environ.get(variable, "")
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise BadInputError(f"cannot use {variable}", value, str(error)) from error
    if words and Path(words[0]).name in _LAUNCHERS:
        del words[0]
    if len(words) > 1:
        raise BadInputError(
            f"cannot use {variable}", value, "only a program is allowed, without flags",
            hint=f"give flags with -D CMAKE_{variable.replace('CC', 'C')}_FLAGS=…",
        )  # fmt: skip
    return words[0] if words else ""


def identified(name: str, path: Path, environ: Mapping[str, str]) -> FoundTool | None:
    """Return the compiler at `path` with its family, version and target, or None when it does not work."""
    said = discovery.answer([str(path), "--version"], environ)
    target = discovery.answer([str(path), "-dumpmachine"], environ)
    if said is None or target is None:
        return None
    first_line = next((line for line in said.splitlines() if line.strip()), "")
    number = re.search(r"\d+(?:\.\d+)+|\b\d+\b", _PARENTHESES.sub("", first_line))
    if number is None:
        return None
    words = [_family(said, path), number[0], printable(target.strip(), 60)]
    return FoundTool(name, path, " ".join(words))


def _family(said: str, path: Path) -> str:
    for text, family in (
        ("Apple clang", "apple-clang"), ("oneAPI", "icx"), ("clang", "clang"), ("Free Software Foundation", "gcc"),
    ):  # fmt: skip
        if text in said:
            return family
    return re.sub(r"-?\d.*", "", path.name) or path.name


def gcc_major(compiler: FoundTool | None) -> int | None:
    """Return the major version of a GCC, or None for other compilers."""
    family, _, rest = compiler.version.partition(" ") if compiler else ("", "", "")
    return discovery.version_key(rest)[0] if family == "gcc" else None


def pair_with_nvcc(
    facts: Mapping[str, str], cxx: FoundTool | None, environ: Mapping[str, str]
) -> tuple[dict[str, str], list[Missing]]:
    """Return the fact `cuda.host-cxx` where nvcc must be told which g++ to use, or what is missing for it.

    nvcc takes the `g++` of PATH, whatever `CXX` says, and refuses one newer than the fact `cuda.gcc-max`.
    """
    newest = discovery.version_key(facts["cuda.gcc-max"])[0]
    asked = _chosen("CUDAHOSTCXX", environ)
    if asked:
        path = discovery.program(asked, environ)
        why = f"CUDAHOSTCXX names {printable(asked)}, which is no program on PATH and no absolute path of one"
        return ({"cuda.host-cxx": str(path)}, []) if path else ({}, [Missing("CUDAHOSTCXX", why)])
    default = found_program("g++", environ)
    major = gcc_major(identified("g++", default, environ)) if default else None
    if major is not None and major <= newest:
        return {}, []
    chosen = gcc_major(cxx)
    if cxx is not None and chosen is not None and chosen <= newest:
        return {"cuda.host-cxx": str(cxx.path)}, []
    older = discovery.numbered_program("g++", newest, environ)
    if older is not None:
        return {"cuda.host-cxx": str(older)}, []
    return {}, [_no_host_compiler(newest, facts, default, major)]


def _no_host_compiler(newest: int, facts: Mapping[str, str], default: Path | None, major: int | None) -> Missing:
    cuda = facts.get("cuda.version", facts.get("tool.nvcc.version", ""))
    here = f"{default} is {major}" if major is not None else "there is no g++"
    packages = {
        "apt": [f"g++-{newest}"], "dnf": [f"gcc{newest}-c++"], "zypper": [f"gcc{newest}-c++"],
        "brew": [f"gcc@{newest}"],
    }  # fmt: skip
    return Missing(
        f"g++-{newest}",
        f"nvcc {cuda} accepts gcc up to {newest}, and {here}",
        f"install g++-{newest} or older, or a newer CUDA toolkit",
        packages,
    )
