"""What recipes test (`when`) and how their words are filled (`{fact}`): pure, shared by all that reads recipes."""

import re
from collections.abc import Callable, Iterable, Mapping

from llama_mgr.build.host import Host
from llama_mgr.build.recipe_file import When, Words
from llama_mgr.build.tree import Tree, declared_options
from llama_mgr.build.version_range import version_in

Settings = Mapping[str, bool | str]

_REFERENCE = re.compile(r"\{(?P<fact>[A-Za-z_][A-Za-z0-9_.+-]*?)(?::-(?P<suffix>[^{}]*))?\}")


def matches(
    when: When, tree: Tree, facts: Mapping[str, str], host: Host, settings: Settings, build_number: int
) -> bool:
    """Tell whether all that `when` asks for holds.

    Args:
        when: the condition; an empty one always holds.
        tree: the source.
        facts: what was found here.
        host: the machine that builds.
        settings: of the recipe chain, later recipes' values winning.
        build_number: upstream's number of the source; 0 when unknown, which no range matches.
    """
    return (
        _about_tree(when, tree)
        and _among(host.os, when.os)
        and _among(host.machine, when.machine)
        and all(_fact_holds(facts.get(name), wanted, facts) for name, wanted in when.fact.items())
        and all(_setting_holds(settings.get(name, False), wanted) for name, wanted in when.setting.items())
        and (not when.build or (build_number > 0 and version_in(str(build_number), when.build)))
    )


def _about_tree(when: When, tree: Tree) -> bool:
    asks_options = bool(when.option or when.no_option)
    declared = declared_options(tree) if asks_options else frozenset()
    return (
        _any(when.option, declared.__contains__)
        and not any(name in declared for name in words(when.no_option))
        and _any(when.file, tree.has)
        and not any(tree.has(path) for path in words(when.no_file))
        and _any(when.text, lambda wanted: _has_text(tree, wanted))
        and not any(_has_text(tree, unwanted) for unwanted in words(when.no_text))
    )


def words(given: Words) -> list[str]:
    """Return a recipe's "one or several" value as a list."""
    return [given] if isinstance(given, str) else list(given)


def _any(wanted: Words, holds: Callable[[str], bool]) -> bool:
    return not wanted or any(holds(one) for one in words(wanted))


def _among(value: str, wanted: Words) -> bool:
    return not wanted or value in words(wanted)


def _has_text(tree: Tree, place_and_text: str) -> bool:
    path, _, text = place_and_text.partition("::")
    return text in (tree.read(path) or "")


def _fact_holds(value: str | None, wanted: str, facts: Mapping[str, str]) -> bool:
    if wanted in {"present", "absent"}:
        return (value is not None) == (wanted == "present")
    expected = filled(wanted, facts)
    if value is None or expected is None:
        return False
    return value == expected[1:] if re.match(r"=(?!=)", expected) else version_in(value, expected)


def _setting_holds(value: bool | str, wanted: bool | str | list[str]) -> bool:
    return value in wanted if isinstance(wanted, list) else value == wanted


def filled(text: str, facts: Mapping[str, str]) -> str | None:
    """Return `text` with each `{fact}` replaced, or None when one of the facts is absent.

    `{fact:-suffix}` appends the suffix to each element of a fact that is a `;` list: `86;120` becomes
    `86-real;120-real` by `{gpu.archs:-real}` (the `-` belongs to the suffix).
    """
    if any(name not in facts for name in facts_in(text)):
        return None
    return _REFERENCE.sub(lambda reference: _replacement(reference, facts), text)


def _replacement(reference: "re.Match[str]", facts: Mapping[str, str]) -> str:
    value = facts[reference["fact"]]
    if reference["suffix"] is None:
        return value
    return ";".join(f"{element}-{reference['suffix']}" for element in value.split(";"))


def facts_in(text: str) -> Iterable[str]:
    """Return the names of the facts that `text` refers to."""
    return [reference["fact"] for reference in _REFERENCE.finditer(text)]


def said(when: When) -> str:
    """Return the condition in one line for people, `option GGML_CUDA, no-option LLAMA_CUDA|…`; empty for none."""
    parts = []
    for name in When.__struct_fields__:
        value = getattr(when, name)
        if isinstance(value, dict):
            parts += [f"{key} {'|'.join(one) if isinstance(one, list) else _shown(one)}" for key, one in value.items()]
        elif value:
            first, *others = words(value)
            parts.append(f"{name.replace('_', '-')} {first}{'|…' if others else ''}")
    return ", ".join(parts)


def _shown(value: bool | str) -> str:
    return value if isinstance(value, str) else str(value).lower()
