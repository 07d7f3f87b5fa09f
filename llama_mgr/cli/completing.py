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


def complete_models(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Complete the keys of the library's models, as far as the index knows them; new files are not read."""
    from llama_mgr.cli.context import Context
    from llama_mgr.errors import LlamaMgrError
    from llama_mgr.models.library import Library
    from llama_mgr.report import SilentReporter

    try:
        models = Library(Context().models_home, SilentReporter()).known().models
    except (LlamaMgrError, OSError):
        return []
    names = dict.fromkeys([*(model.key for model in models), *(model.name for model in models)])
    return _starting(names, incomplete) or _starting((name.partition("/")[2] for name in names), incomplete)


def complete_pipelines(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    """Complete the names of pipelines, shipped and the user's."""
    from llama_mgr.errors import LlamaMgrError
    from llama_mgr.make.pipeline_file import pipeline_names
    from llama_mgr.paths import home_from

    try:
        return _starting(pipeline_names(home_from(dict(os.environ))), incomplete)
    except LlamaMgrError:
        return []
