"""Recipes by name: those that ship with llama-mgr, the user's own, and what they inherit.

A recipe file is data, with the shapes of `recipe_file.py`. The user's lie in `recipes/` of the home; one with the name
of a shipped recipe takes its place, and may build on it as `builtin:<name>`.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec

from llama_mgr.build.recipe_file import (
    ArtifactCheck,
    Convert,
    DeviceCheck,
    Fact,
    Failure,
    Fallback,
    Gpu,
    LogCheck,
    Need,
    Probe,
    Recipe,
    RequiredFile,
    Rule,
    Tool,
    Value,
    Verify,
    When,
    Words,
)
from llama_mgr.build.version_range import comparisons
from llama_mgr.errors import BadConfigError, BadInputError, LlamaMgrError, UnknownRecipeError
from llama_mgr.names import checked_name, is_name
from llama_mgr.paths import Home, shipped_dir
from llama_mgr.text import did_you_mean, printable
from llama_mgr.toml_file import read_toml

__all__ = [
    "BASE",
    "ArtifactCheck",
    "Convert",
    "DeviceCheck",
    "Fact",
    "Failure",
    "Fallback",
    "Gpu",
    "LogCheck",
    "Need",
    "Probe",
    "Recipe",
    "Recipes",
    "RequiredFile",
    "Rule",
    "Tool",
    "Value",
    "Verify",
    "When",
    "Words",
    "schema",
]

BASE = "base"
"""The recipe that comes before every other."""
_BUILTIN = "builtin:"
_PATTERN_FIELDS = frozenset({"match", "pattern", "version_pattern", "must", "must_not"})
_DEFINE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Recipes:
    """The recipes that a home can use."""

    def __init__(self, home: Home, shipped: Path | None = None) -> None:
        """Use the recipes of `home` and those in `shipped` (default: those that came with llama-mgr)."""
        self._user_dir = home.recipes_dir
        self._shipped_dir = shipped or shipped_dir("recipes")

    def names(self) -> list[str]:
        """Return the recipes that can be built alone, sorted; a file that cannot be read is among them."""
        return [name for name, recipe in self._listed() if recipe is None or not (recipe.hidden or recipe.part)]

    def part_names(self) -> list[str]:
        """Return the recipes that only combine with another one, sorted."""
        return [name for name, recipe in self._listed() if recipe is not None and recipe.part and not recipe.hidden]

    def tool_names(self) -> frozenset[str]:
        """Return the tools that any recipe looks for, also those that a recipe of the user's stands before.

        Raises:
            BadConfigError, NewerStateError: a recipe cannot be read, so that nobody knows its tools.
        """
        shipped = [f"{_BUILTIN}{place.stem}" for place in self._shipped_dir.glob("*.toml")]
        own = [place.stem for place in self._user_dir.glob("*.toml") if is_name(place.stem)]
        return frozenset(tool.name for name in [*shipped, *own] for tool in self.find(name).tools)

    def find(self, name: str) -> Recipe:
        """Return the recipe `name` as its file says it, without what it inherits.

        Raises:
            UnknownRecipeError: there is none.
            BadConfigError: its file does not parse or validate.
            NewerStateError: its schema is newer than this llama-mgr knows.
            BadNameError: `name` cannot be the name of a recipe.
        """
        place = self._place(name)
        recipe = read_toml(place, Recipe)
        _check(recipe, place)
        return recipe

    def origin(self, name: str) -> Literal["builtin"] | Path:
        """Return `builtin`, or the user's file that `name` comes from. Raises as `find` does for unknown names."""
        place = self._place(name)
        return "builtin" if place.parent == self._shipped_dir else place

    def chain(self, name: str, parts: list[str] | tuple[str, ...] = ()) -> list[Recipe]:
        """Return all recipes that a build with `name` and `parts` consists of, in the order of their rules.

        First the base, then what `name` inherits, `name`, and each part with what it inherits. Parts have `part` set,
        whatever their file says, and what stands behind another recipe has `hidden` set.

        Raises:
            UnknownRecipeError, BadConfigError, NewerStateError, BadNameError: as `find`; also for inherited ones, and
                when recipes inherit each other in a circle.
            BadInputError: `name` cannot be built alone, or a part cannot be a part.
        """
        chain: list[Recipe] = []
        seen: set[Path] = set()
        self._add_line(chain, seen, BASE, is_part=False)
        self._require_buildable(name)
        self._add_line(chain, seen, name, is_part=False)
        for part in parts:
            if self.find(part).hidden:
                raise BadInputError("cannot use the part", part, "it is what all recipes build on")
            self._add_line(chain, seen, part, is_part=True)
        return chain

    def _require_buildable(self, name: str) -> None:
        recipe = self.find(name)
        if recipe.hidden:
            raise BadInputError(
                "cannot build with the recipe", name, "other recipes build on it", hint="see `llama-mgr recipe list`"
            )
        if recipe.part:
            raise BadInputError(
                "cannot build with the recipe", name, "it is a part, which combines with another recipe",
                hint=f"use for example --arch cpu --with {name}",
            )  # fmt: skip

    def _add_line(self, chain: list[Recipe], seen: set[Path], name: str, *, is_part: bool) -> None:
        line = self._line(name)
        for place, recipe in line:
            if place not in seen:
                seen.add(place)
                is_behind = recipe is not line[-1][1] or name == BASE
                chain.append(msgspec.structs.replace(recipe, part=is_part, hidden=is_behind))

    def _line(self, name: str) -> list[tuple[Path, Recipe]]:
        line: list[tuple[Path, Recipe]] = []
        following: str | None = name
        while following is not None:
            place = self._place(following)
            if any(place == other for other, _ in line):
                raise _circle(line, following)
            recipe = self.find(following)
            line.append((place, recipe))
            following = recipe.inherits
        return line[::-1]

    def _place(self, name: str) -> Path:
        bare = name.removeprefix(_BUILTIN)
        checked_name(bare, "recipe")
        own, shipped = self._user_dir / f"{bare}.toml", self._shipped_dir / f"{bare}.toml"
        if name == bare and own.is_file():
            return own
        if shipped.is_file():
            return shipped
        known = [*self.names(), *self.part_names()]
        raise UnknownRecipeError(
            "no recipe has the name", name, hint=did_you_mean(bare, known) or "see `llama-mgr recipe list`"
        )

    def _listed(self) -> Iterator[tuple[str, Recipe | None]]:
        places = [*self._shipped_dir.glob("*.toml"), *self._user_dir.glob("*.toml")]
        for name in sorted({place.stem for place in places if is_name(place.stem)}):
            try:
                yield name, self.find(name)
            except LlamaMgrError:
                yield name, None


def _circle(line: list[tuple[Path, Recipe]], following: str) -> BadConfigError:
    place, recipe = line[-1]
    names = " → ".join([*(one.name for _, one in line), following.removeprefix(_BUILTIN)])
    hint = f'write inherits = "builtin:{recipe.name}"' if recipe.name == following else None
    return BadConfigError("cannot read", place, f"recipes inherit each other in a circle: {names}", hint=hint)


def _check(recipe: Recipe, place: Path) -> None:
    """Refuse what the shapes cannot: a name that is not the file's, a regular expression or range that is none."""
    if recipe.name != place.stem:
        raise BadConfigError("cannot read", place, f"its name must be '{place.stem}', like the file's")
    for field, value in _leaves(recipe):
        try:
            if field in _PATTERN_FIELDS:
                re.compile(value)
            elif field == "build" and value:
                comparisons(value)
        except (re.error, ValueError) as error:
            raise BadConfigError(
                "cannot read", place, f"{field}: {printable(error)} in '{printable(value)}'"
            ) from error
    for rule in recipe.rules:
        for define in (*rule.cmake, *rule.append, *rule.drop):
            if not _DEFINE_NAME.fullmatch(define):
                raise BadConfigError("cannot read", place, f"'{printable(define)}' cannot be the name of a define")


def _leaves(value: Any, field: str = "") -> Iterator[tuple[str, str]]:  # noqa: ANN401 (any part of a recipe)
    if isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            yield from _leaves(getattr(value, name), name)
    elif isinstance(value, list):
        for one in value:
            yield from _leaves(one, field)
    elif isinstance(value, str):
        yield field, value


def schema() -> dict[str, Any]:
    """Return the JSON schema of recipe files; `recipes/recipe.schema.json` holds it."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "llama-mgr recipe",
        **msgspec.json.schema(Recipe),
    }
