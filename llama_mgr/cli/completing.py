"""What the shell completes: names read from disk, silently empty when anything is wrong."""

import os
from collections.abc import Iterable

import click


def _starting(words: Iterable[str], incomplete: str) -> list[str]:
    return [word for word in words if word.startswith(incomplete)]


def complete_recipes(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Complete the names of recipes, shipped and the user's."""
    from llama_mgr.build.recipe import Recipes
    from llama_mgr.errors import LlamaMgrError
    from llama_mgr.paths import home_from

    try:
        return _starting(["auto", *Recipes(home_from(dict(os.environ))).names()], incomplete)
    except LlamaMgrError:
        return []


def complete_instances(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Complete the names of instances."""
    from llama_mgr.errors import LlamaMgrError
    from llama_mgr.instances.instance import Instances
    from llama_mgr.paths import home_from

    try:
        return _starting(Instances(home_from(dict(os.environ))).names(), incomplete)
    except LlamaMgrError:
        return []
