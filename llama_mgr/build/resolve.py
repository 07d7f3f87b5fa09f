"""From recipes to what one build is configured with: pure, given the tree and the facts about this machine."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from llama_mgr.build.condition import facts_in, filled, matches, said, words
from llama_mgr.build.gpu import fallback_archs
from llama_mgr.build.host import Host
from llama_mgr.build.recipe_file import Convert, Failure, Recipe, Rule, Value, Verify, When
from llama_mgr.build.tree import Tree
from llama_mgr.errors import IncompleteSourceError

__all__ = ["Resolved", "Setting", "matches", "resolve"]

DEFINED = "--define"
"""Origin of what the user defined."""
_TRUE = frozenset({"1", "ON", "YES", "TRUE", "Y"})
_FLAGS = re.compile(r"CMAKE_\w+_FLAGS")


@dataclass(frozen=True)
class Setting:
    """One define or variable, and where it comes from."""

    name: str
    value: str
    origin: str
    """`cuda, rule 3 (option GGML_CUDA)`, `--define`, or `environment`."""


@dataclass(frozen=True)
class Resolved:
    """What a chain of recipes means for one tree on one machine."""

    recipe: str
    parts: tuple[str, ...]
    defines: dict[str, Setting]
    environ: dict[str, Setting]
    targets: dict[str, list[str]]
    verify: Verify
    """Only the checks whose condition holds."""
    failures: list[Failure]
    """The parts' first, then the recipe's, the base's last."""
    convert: Convert
    patch_build_info: str | None
    """File of the tree to be rewritten, so that an old tree knows its build number."""
    job_memory_mib: int
    disk_mib: int
    device_prefix: str
    launch_environ: tuple[str, ...] = ()
    omit: tuple[str, ...] = ()
    """Globs of files in `bin/` that are left out of the build."""
    fired: frozenset[tuple[str, int]] = field(default_factory=frozenset)
    """The rules whose condition held: recipe and number, counted from 1."""

    @property
    def is_native(self) -> bool:
        """Whether the code is made for the CPU of this machine, so that others may not run it."""
        switches = (self.defines.get(name) for name in ("GGML_NATIVE", "LLAMA_NATIVE"))
        by_switch = any(one is not None and one.value.upper() in _TRUE for one in switches)
        return by_switch or any("=native" in one.value and "-m" in one.value for one in self.defines.values())


def resolve(
    chain: Sequence[Recipe],
    tree: Tree,
    facts: Mapping[str, str],
    host: Host,
    build_number: int,
    overrides: Mapping[str, str],
) -> Resolved:
    """Return what `chain` means for `tree`.

    Args:
        chain: from `Recipes.chain`.
        tree: the source.
        facts: of the toolchain and the source. Without `gpu.archs`, the recipe's stated fallback is used.
        host: the machine that builds.
        build_number: upstream's number of the source; 0 when unknown.
        overrides: the user's defines; they win, and rules see them as facts `define.<NAME>`. Only compiler flags are
            joined, the user's last. Settings with text are facts too: `setting.<name>`.

    Raises:
        IncompleteSourceError: the tree lacks what a recipe needs.
    """
    known = {**facts, **{f"define.{name}": value for name, value in overrides.items()}}
    resolution = _Resolution(chain, tree, known, host, build_number)
    resolution.require_needs()
    resolution.run_rules()
    for name, value in overrides.items():
        resolution.define(name, value)
    return resolution.result()


class _Resolution:
    def __init__(
        self, chain: Sequence[Recipe], tree: Tree, facts: dict[str, str], host: Host, build_number: int
    ) -> None:
        self._chain = chain
        self._tree = tree
        self._facts = facts
        self._host = host
        self._build_number = build_number
        self._settings = {name: value for recipe in chain for name, value in recipe.settings.items()}
        self._facts |= {f"setting.{name}": value for name, value in self._settings.items() if isinstance(value, str)}
        self._omit: list[str] = []
        self._patch_build_info: str | None = None
        self._fired: set[tuple[str, int]] = set()
        self.defines: dict[str, Setting] = {}
        self._environ = {
            name: Setting(name, facts[f"env.{name}"], "environment")
            for recipe in chain
            for name in recipe.inherit_environ
            if f"env.{name}" in facts
        }
        if "gpu.archs" not in self._facts:
            fallback = fallback_archs([recipe.gpu for recipe in chain], self._holds)
            if fallback is not None:
                self._facts["gpu.archs"] = fallback

    def _holds(self, when: When) -> bool:
        return matches(when, self._tree, self._facts, self._host, self._settings, self._build_number)

    def require_needs(self) -> None:
        for recipe in self._chain:
            for need in recipe.needs:
                if self._holds(need.when) and not self._holds(need.has):
                    raise IncompleteSourceError(
                        "cannot build with the recipe", recipe.name, need.why, hint=_looked_for(need.has)
                    )

    def run_rules(self) -> None:
        for recipe in self._chain:
            for number, rule in enumerate(recipe.rules, 1):
                if self._holds(rule.when):
                    self._fired.add((recipe.name, number))
                    self._run(rule, _origin(recipe, number, rule))

    def define(self, name: str, value: str) -> None:
        """Let the user's define win over that of the recipes; of flags, compilers let the last one win."""
        ours = self.defines.get(name)
        if ours is not None and _FLAGS.fullmatch(name):
            self.defines[name] = Setting(name, f"{ours.value} {value}", f"{ours.origin}; {DEFINED}")
        else:
            self.defines[name] = Setting(name, value, DEFINED)

    def _run(self, rule: Rule, origin: str) -> None:
        for name in rule.drop:
            self.defines.pop(name, None)
        for name, given in rule.cmake.items():
            value = cmake_value(given, self._facts)
            if value is not None:
                self.defines[name] = Setting(name, value, origin)
        for name, elements in rule.append.items():
            self._append(name, elements, origin)
        for name, text in rule.env.items():
            value = filled(text, self._facts)
            if value is not None:
                self._environ[name] = Setting(name, value, origin)
        self._omit += rule.omit
        for path in rule.patch_build_info:
            if self._patch_build_info is None and self._tree.has(path):
                self._patch_build_info = path

    def _append(self, name: str, elements: Sequence[str], origin: str) -> None:
        before = self.defines.get(name)
        joined = before.value.split(";") if before and before.value else []
        joined += [value for element in elements if (value := filled(element, self._facts)) is not None]
        if joined:
            origins = f"{before.origin}; {origin}" if before else origin
            self.defines[name] = Setting(name, ";".join(dict.fromkeys(joined)), origins)

    def result(self) -> Resolved:
        main = [recipe for recipe in self._chain if not recipe.part]
        parts = [recipe for recipe in self._chain if recipe.part]
        return Resolved(
            recipe=main[-1].name,
            parts=tuple(recipe.name for recipe in parts if not recipe.hidden),
            defines=self.defines,
            environ=self._environ,
            targets={tool: list(names) for recipe in self._chain for tool, names in recipe.targets.items()},
            verify=self._verify(),
            failures=[self._worded(one) for recipe in reversed(self._chain) for one in recipe.failures],
            convert=_convert(self._chain),
            patch_build_info=self._patch_build_info,
            omit=tuple(dict.fromkeys(self._omit)),
            job_memory_mib=max([_last(main, "job_memory_mib"), *(recipe.job_memory_mib for recipe in parts)]),
            disk_mib=max([_last(main, "disk_mib"), *(recipe.disk_mib for recipe in parts)]),
            device_prefix=next((recipe.device_prefix for recipe in reversed(main) if recipe.device_prefix), ""),
            launch_environ=tuple(dict.fromkeys(name for recipe in self._chain for name in recipe.launch_environ)),
            fired=frozenset(self._fired),
        )

    def _verify(self) -> Verify:
        checks = [recipe.verify for recipe in self._chain]
        return Verify(
            configure_log=[one for verify in checks for one in verify.configure_log if self._holds(one.when)],
            artifacts=[one for verify in checks for one in verify.artifacts if self._holds(one.when)],
            devices=[one for verify in checks for one in verify.devices if self._holds(one.when)],
        )

    def _worded(self, failure: Failure) -> Failure:
        # Numbers are groups of the match, which diagnose() fills; a fact that nobody knows leaves its name.
        def text(given: str) -> str:
            here = {name: self._facts.get(name, name.rpartition(".")[2]) for name in facts_in(given)}
            return filled(given, here) or given

        return msgspec.structs.replace(failure, cause=text(failure.cause), fix=text(failure.fix))


def cmake_value(given: Value, facts: Mapping[str, str]) -> str | None:
    """Return a recipe's value as CMake takes it: ON, OFF, text, or a `;` list. None: a fact is absent."""
    if isinstance(given, bool):
        return "ON" if given else "OFF"
    if isinstance(given, list):
        elements = [filled(element, facts) for element in given]
        return None if None in elements else ";".join(element for element in elements if element is not None)
    return filled(str(given), facts)


def _origin(recipe: Recipe, number: int, rule: Rule) -> str:
    why = said(rule.when)
    return f"{recipe.name}, rule {number} ({why})" if why else f"{recipe.name}, rule {number}"


def _looked_for(has: When) -> str:
    places = [*words(has.option), *words(has.file), *(text.partition("::")[0] for text in words(has.text))]
    return f"looked for {' or '.join(places)}"


def _last(line: Sequence[Recipe], name: str) -> int:
    given: Iterator[int] = (getattr(recipe, name) for recipe in reversed(line))
    return next((value for value in given if value), 0)


def _convert(chain: Sequence[Recipe]) -> Convert:
    found = Convert()
    for recipe in chain:
        given = {name: value for name in Convert.__struct_fields__ if (value := getattr(recipe.convert, name))}
        found = msgspec.structs.replace(found, **given)
    return found
