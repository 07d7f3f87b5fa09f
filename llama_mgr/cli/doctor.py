"""`llama-mgr doctor`."""

import dataclasses
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llama_mgr.cli.context import Context, common_options, examples, pass_context
from llama_mgr.errors import IntegrityError, LlamaMgrError, MissingToolsError
from llama_mgr.text import printable

if TYPE_CHECKING:
    from llama_mgr.build.host import Host
    from llama_mgr.build.toolchain import Toolchain

_EVERYWHERE = "cpu"
_EXTRA_TOOLS = ("uv", "git")


@click.command(
    epilog=examples(
        "llama-mgr doctor",
        "llama-mgr doctor --hash             # also read every file of every build",
        "llama-mgr doctor --json | jq .problems",
    )
)
@click.option("--hash", "with_hashes", is_flag=True, help="Also compare the sha256 of every file of every build.")
@common_options
@pass_context
def doctor(context: Context, with_hashes: bool) -> None:
    """Show what this machine can build, and how to mend what is wrong.

    Ends with 0 when all is well, 5 when state on disk is damaged, 8 when tools that every build needs are missing.
    Nothing is changed.
    """
    from llama_mgr.cli.doctor_page import print_findings

    document = findings(context, with_hashes=with_hashes)
    context.answer(document, lambda output: print_findings(output, document))
    status = _status(document)
    if status:
        sys.stdout.flush()  # while a closed pipe still is an error that `main` knows
        sys.exit(status)


def _status(document: Mapping[str, Any]) -> int:
    if any(problem["is_damage"] for problem in document["problems"]):
        return IntegrityError.exit_status
    everywhere = [recipe["ready"] for recipe in document["recipes"] if recipe["name"] == _EVERYWHERE]
    return 0 if all(everywhere) else MissingToolsError.exit_status


def findings(context: Context, *, with_hashes: bool = False) -> dict[str, Any]:
    """Return the document of `doctor --json`: host, tools, recipes, GPUs, disk, locks and problems."""
    from llama_mgr.build.arch import choose_arch, devices
    from llama_mgr.build.host import detect_host
    from llama_mgr.cli.converter import missing_environments
    from llama_mgr.cli.library_problems import library_problems
    from llama_mgr.instances.health import held_locks, problems
    from llama_mgr.store import free_bytes

    host = detect_host(context.environ)
    overrides, config_problems = _overrides(context)
    toolchains = _toolchains(context, host, overrides)
    return {
        "host": dataclasses.asdict(host),
        "home": str(context.home.root),
        "free_disk_bytes": free_bytes(context.home.root),
        "gpus": [dataclasses.asdict(device) for device in devices(context.environ)],
        "auto": dataclasses.asdict(choose_arch(context.environ, host)),
        "tools": [*_tools(toolchains), *_extra_tools(context, overrides, toolchains)],
        "recipes": [_recipe_row(name, one, host) for name, one in toolchains.items()],
        "locks": [dataclasses.asdict(lock) for lock in held_locks(context.home)],
        "problems": [
            *config_problems,
            *(dataclasses.asdict(problem) for problem in problems(context.home, with_hashes=with_hashes)),
            *(dataclasses.asdict(problem) for problem in missing_environments(context)),
            *library_problems(context),
        ],
    }


def _overrides(context: Context) -> tuple[dict[str, Path], list[dict[str, Any]]]:
    """Return the tools that config.toml names, and all that is wrong with the settings."""
    from llama_mgr.build.setting_errors import setting_errors
    from llama_mgr.models import hub_settings
    from llama_mgr.settings import read_settings, unsafe_values, variable_errors

    origins = context.origins
    errors = [(origins.place(key), error) for key, error in variable_errors(context.environ)]
    readable = {name: value for name, value in context.environ.items() if name not in dict(errors)}
    try:
        settings = read_settings(context.home, readable)
    except LlamaMgrError as error:
        return {}, [_config_problem(str(origins.file), error)]
    bad_values = [
        *unsafe_values(settings, origins),
        *setting_errors(settings, origins),
        *hub_settings.setting_errors(settings, origins),
    ]
    errors += [(origins.place(key), error) for key, error in bad_values]
    overrides = settings.build.tool_paths
    return overrides, [_config_problem(where, error) for where, error in errors]


def _config_problem(where: str, error: LlamaMgrError) -> dict[str, Any]:
    return {"what": error.message, "where": where, "mend": error.hint or "edit it", "is_damage": True}


def _toolchains(context: Context, host: "Host", overrides: Mapping[str, Path]) -> "dict[str, Toolchain]":
    from llama_mgr.build.recipe import Recipes
    from llama_mgr.build.toolchain import find_toolchain

    recipes: Recipes = Recipes(context.home)
    found = {}
    for name in recipes.names():
        try:
            found[name] = find_toolchain(recipes.chain(name), None, host, context.environ, overrides)
        except LlamaMgrError as error:
            if recipes.origin(name) == "builtin":
                raise
            context.reporter.warn(error.message)  # health.problems says how to mend it
    return found


def _tools(toolchains: "Mapping[str, Toolchain]") -> list[dict[str, str]]:
    """Return every tool that some recipe found, once."""
    rows = {
        tool.path: {"name": name, "version": tool.version, "path": str(tool.path)}
        for toolchain in toolchains.values()
        for name, tool in toolchain.tools.items()
    }
    return sorted(rows.values(), key=lambda row: row["name"])


def _extra_tools(
    context: Context, overrides: Mapping[str, Path], toolchains: "Mapping[str, Toolchain]"
) -> list[dict[str, str]]:
    from llama_mgr.build.toolchain import tool

    known = {name for toolchain in toolchains.values() for name in toolchain.tools}
    rows = []
    for name in _EXTRA_TOOLS:
        if name not in known:
            try:
                rows.append({"name": name, "version": "", "path": str(tool(name, context.environ, overrides))})
            except MissingToolsError as error:
                rows.append(
                    {"name": name, "version": "", "path": "", "missing": error.message, "hint": error.hint or ""}
                )
    return rows


def _recipe_row(name: str, toolchain: "Toolchain", host: "Host") -> dict[str, Any]:
    from llama_mgr.build.toolchain import install_line

    return {
        "name": name,
        "ready": not toolchain.missing,
        "missing": [{"name": one.name, "why": printable(one.why, 400)} for one in toolchain.missing],
        "install": install_line(toolchain.missing, host.package_manager),
    }
