"""`llama-mgr recipe …`: which recipes there are, and what one means."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from llama_mgr.cli.completing import complete_recipes
from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context, common_options, examples, pass_context
from llama_mgr.errors import BadInputError

if TYPE_CHECKING:
    from llama_mgr.build.builder import Prepared


@click.group()
def recipe() -> None:
    """See how llama.cpp is built for each kind of hardware."""


@recipe.command("list", epilog=examples("llama-mgr recipe list", "llama-mgr recipe list --json"))
@common_options
@pass_context
def list_recipes(context: Context) -> None:
    """Show all recipes, shipped and your own."""
    from llama_mgr.cli.recipe_page import recipe_rows

    rows = recipe_rows(context.home)
    for row in rows:
        if row["damage"]:
            context.reporter.warn(str(row["damage"]))
    table = [[str(row["name"]), str(row["kind"]), str(row["origin"]), str(row["title"])] for row in rows]
    context.answer({"recipes": rows}, lambda output: output.table(("name", "kind", "from", "for"), table))


@recipe.command(
    epilog=examples(
        "llama-mgr recipe show cuda",
        "llama-mgr recipe show cuda --with rpc --resolved --version b11434   # what it means here, and why",
        "llama-mgr recipe show cpu --resolved --path ./llama.cpp --json",
    )
)
@click.argument("name", shell_complete=complete_recipes)
@click.option("--with", "parts", multiple=True, metavar="PART", help="Also this part, such as rpc (repeatable).")
@click.option("--resolved", is_flag=True, help="Show what it means on this machine, and where each value comes from.")
@click.option("--version", metavar="VERSION", help="For this version of llama.cpp; default latest.")
@click.option(
    "--path", metavar="TREE", type=click.Path(path_type=Path, exists=True, file_okay=False), help="For this local tree."
)
@common_options
@pass_context
def show(
    context: Context, name: str, parts: tuple[str, ...], resolved: bool, version: str | None, path: Path | None
) -> None:
    """Show a recipe with what it builds on.

    With --resolved, what it means for one llama.cpp on this machine.
    """
    from llama_mgr.cli import recipe_page

    if not resolved and (version or path):
        raise BadInputError("--version and --path need --resolved")
    if version and path:
        raise BadInputError("cannot use --version and --path together")
    if not resolved:
        document = recipe_page.recipe_document(context.home, name, parts)
        context.answer(document, lambda output: recipe_page.print_recipe(output, document))
        return
    prepared = _prepared(context, name, parts, str(path.resolve()) if path else version or "latest")
    page = recipe_page.resolved_document(prepared)

    def show_resolved(output: Output) -> None:
        recipe_page.print_resolved(output, page)

    context.answer(page, show_resolved)


def _prepared(context: Context, name: str, parts: tuple[str, ...], version: str) -> "Prepared":
    from llama_mgr.build.builder import Builder, Request
    from llama_mgr.build.recipe import Recipes
    from llama_mgr.build.source import Wanted

    Recipes(context.home).chain(name, parts)  # a typo is told before anything is fetched
    builder = Builder(context.home, context.settings, context.environ, context.reporter)
    return builder.prepare(Request(Wanted(version=version), name, parts))
