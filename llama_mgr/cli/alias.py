"""`llama-mgr alias …`: short names for models on the hub."""

import os
from typing import TYPE_CHECKING, Any

import click

from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context, common_options, examples, pass_context

if TYPE_CHECKING:
    from llama_mgr.models.aliases import Alias


@click.group()
def alias() -> None:
    """Give models on the hub short names."""


def _complete_own(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    from llama_mgr.errors import LlamaMgrError
    from llama_mgr.models.aliases import Aliases
    from llama_mgr.paths import home_from

    try:
        entries = Aliases(home_from(dict(os.environ))).entries()
    except LlamaMgrError:
        return []
    return [entry.name for entry in entries if entry.is_own and entry.name.startswith(incomplete)]


@alias.command(
    epilog=examples(
        "llama-mgr alias add qwen:32b bartowski/Qwen2.5-32B-Instruct-GGUF:Q4_K_M",
        "llama-mgr alias add small bartowski/SmolLM2-135M-Instruct-GGUF@main",
        "llama-mgr pull small",
    )
)
@click.argument("name")
@click.argument("reference")
@common_options
@pass_context
def add(context: Context, name: str, reference: str) -> None:
    """Let NAME stand for REFERENCE wherever a model is named.

    NAME may have a tag, as in qwen:32b, and is kept in lower case. REFERENCE is owner/name[:quant][@rev] or
    owner/name/file.gguf[@rev] on the hub. A name of your own stands before a shipped one.
    """
    from llama_mgr.models.aliases import Aliases, checked_target

    aliases = Aliases(context.home)
    entry = aliases.add(name, checked_target(reference, aliases), context.reporter)

    def show(output: Output) -> None:
        instead = f", instead of the shipped {entry.stands_before}" if entry.stands_before else ""
        output.line(f"{entry.name} stands for {entry.target}{instead}")

    context.answer(_document(entry), show)


@alias.command("list", epilog=examples("llama-mgr alias list", "llama-mgr alias list --json"))
@common_options
@pass_context
def list_aliases(context: Context) -> None:
    """Show all aliases, shipped and your own."""
    from llama_mgr.models.aliases import Aliases

    entries = Aliases(context.home).entries()
    rows = [(entry.name, str(entry.target), _origin(entry)) for entry in entries]
    documents = [_document(entry) for entry in entries]
    context.answer({"aliases": documents}, lambda output: output.table(("name", "stands for", "from"), rows))


@alias.command("rm", epilog=examples("llama-mgr alias rm qwen:32b", "llama-mgr alias rm small --json"))
@click.argument("name", shell_complete=_complete_own)
@common_options
@pass_context
def remove(context: Context, name: str) -> None:
    """Remove an alias of your own; models stay where they are."""
    from llama_mgr.models.aliases import Aliases

    entry = Aliases(context.home).remove(name, context.reporter)

    def show(output: Output) -> None:
        now = f"; it stands for the shipped {entry.stands_before} again" if entry.stands_before else ""
        output.line(f"{entry.name} is no alias of yours any more{now}")

    context.answer(_document(entry), show)


def _origin(entry: "Alias") -> str:
    if not entry.is_own:
        return "shipped"
    return "own, before a shipped one" if entry.stands_before else "own"


def _document(entry: "Alias") -> dict[str, Any]:
    shipped = entry.stands_before
    return {
        "name": entry.name,
        "target": str(entry.target),
        "origin": "own" if entry.is_own else "shipped",
        "stands_before": str(shipped) if shipped else None,
    }
