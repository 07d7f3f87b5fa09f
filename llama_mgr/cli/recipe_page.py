"""What the `recipe` commands print."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from llama_mgr.cli.console import Output
from llama_mgr.paths import Home

if TYPE_CHECKING:
    from llama_mgr.build.builder import Prepared
    from llama_mgr.build.recipe import Recipe, Rule


def recipe_rows(home: Home) -> list[dict[str, object]]:
    """Return one document for each recipe, parts last; `damage` says why a file cannot be read."""
    from llama_mgr.build.recipe import Recipes
    from llama_mgr.errors import LlamaMgrError

    recipes = Recipes(home)
    rows: list[dict[str, object]] = []
    for kind, names in (("recipe", recipes.names()), ("part", recipes.part_names())):
        for name in names:
            row: dict[str, object] = {
                "name": name,
                "kind": kind,
                "title": "",
                "origin": str(recipes.origin(name)),
                "damage": None,
            }
            try:
                row["title"] = recipes.find(name).title
            except LlamaMgrError as error:
                row["damage"] = error.message
            rows.append(row)
    return rows


def recipe_document(home: Home, name: str, parts: Sequence[str]) -> dict[str, Any]:
    """Return a recipe with all that it consists of, base first.

    Raises:
        UnknownRecipeError, BadConfigError, BadInputError: see `Recipes.chain`.
    """
    import msgspec

    from llama_mgr.build.recipe import Recipes

    recipes = Recipes(home)
    if recipes.find(name).part:
        parts, name = [name, *parts], "cpu"  # a part is shown with the simplest recipe that it combines with
    chain = recipes.chain(name, list(parts))
    settings = {
        key: {"value": value, "origin": recipe.name} for recipe in chain for key, value in recipe.settings.items()
    }
    return {
        "name": name,
        "parts": list(parts),
        "title": recipes.find(name).title,
        "origin": str(recipes.origin(name)),
        "consists_of": [recipe.name for recipe in chain],
        "settings": settings,
        "rules": [line for recipe in chain for line in _rule_lines(recipe)],
        "tools": _needed(chain),
        "recipes": [msgspec.to_builtins(recipe) for recipe in chain],
    }


def _rule_lines(recipe: "Recipe") -> Iterator[dict[str, Any]]:
    from llama_mgr.build.condition import said

    for number, rule in enumerate(recipe.rules, 1):
        yield {"recipe": recipe.name, "rule": number, "when": said(rule.when), "sets": _sets(rule)}


def _sets(rule: "Rule") -> list[str]:
    def shown(value: object) -> str:
        if isinstance(value, bool):
            return "ON" if value else "OFF"
        return ";".join(map(str, value)) if isinstance(value, list) else str(value)

    return [
        *(f"{name}={shown(value)}" for name, value in rule.cmake.items()),
        *(f"{name}+={shown(value)}" for name, value in rule.append.items()),
        *(f"export {name}={value}" for name, value in rule.env.items()),
        *(f"without {name}" for name in rule.drop),
        *(f"rewrite {path}" for path in rule.patch_build_info[:1]),
    ]


def _needed(chain: "Sequence[Recipe]") -> list[dict[str, Any]]:
    tools = [(one.name, one.at_least, one.optional) for recipe in chain for one in recipe.tools]
    files = [(one.name, one.at_least, one.optional) for recipe in chain for one in recipe.files]
    return [{"name": name, "at_least": at_least, "optional": optional} for name, at_least, optional in tools + files]


def print_recipe(output: Output, document: dict[str, Any]) -> None:
    """Print what `recipe_document` returned."""
    output.line(f"{' + '.join([document['name'], *document['parts']])}: {document['title']}", "bold")
    output.line(f"from:     {document['origin']}")
    output.line(f"consists: {', '.join(document['consists_of'])}")
    output.line()
    settings = [(name, str(one["value"]).lower(), one["origin"]) for name, one in document["settings"].items()]
    output.table(("setting", "value", "from"), settings)
    output.line()
    needs = [
        (one["name"], one["at_least"] or "any", "if there" if one["optional"] else "needed")
        for one in document["tools"]
    ]
    output.table(("tool or file", "at least", ""), needs)
    output.line()
    rules = [
        (f"{one['recipe']} {one['rule']}", one["when"] or "always", " ".join(one["sets"])) for one in document["rules"]
    ]
    output.table(("rule", "when", "sets"), rules)


def resolved_document(prepared: "Prepared") -> dict[str, Any]:
    """Return what a recipe means for one source on this machine, with the origin of each value."""
    import msgspec

    resolved, source = prepared.resolved, prepared.source

    def values(settings: dict[str, Any]) -> dict[str, Any]:
        return {name: {"value": one.value, "origin": one.origin} for name, one in sorted(settings.items())}

    return {
        "recipe": resolved.recipe,
        "parts": list(resolved.parts),
        "version": source.version,
        "commit": source.commit,
        "build_number": source.build_number,
        "defines": values(resolved.defines),
        "environment": values(resolved.environ),
        "targets": resolved.targets,
        "patch_build_info": resolved.patch_build_info,
        "job_memory_mib": resolved.job_memory_mib,
        "disk_mib": resolved.disk_mib,
        "verify": msgspec.to_builtins(resolved.verify),
        "facts": dict(sorted(prepared.toolchain.facts.items())),
        "missing": [{"name": one.name, "why": one.why, "hint": one.hint} for one in prepared.toolchain.missing],
    }


def print_resolved(output: Output, document: dict[str, Any]) -> None:
    """Print what `resolved_document` returned."""
    name = " + ".join([document["recipe"], *document["parts"]])
    output.line(f"{name} for {document['version']} ({document['commit'][:12]})", "bold")
    output.line()
    for title, key in (("define", "defines"), ("variable", "environment")):
        rows = [(name, one["value"], one["origin"]) for name, one in document[key].items()]
        if rows:
            output.table((title, "value", "from"), rows)
            output.line()
    output.line(f"targets: {', '.join(sorted(document['targets']))}")
    if document["patch_build_info"]:
        output.line(f"rewrite: {document['patch_build_info']}")
    for missing in document["missing"]:
        output.line(f"missing: {missing['name']}: {missing['why']}", "yellow")
