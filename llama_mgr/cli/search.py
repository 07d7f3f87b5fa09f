"""`llama-mgr search`."""

import dataclasses
from typing import TYPE_CHECKING

import click

from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context, common_options, examples, pass_context
from llama_mgr.errors import BadInputError
from llama_mgr.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_mgr.models.hub import HubModel, Order

_REACH = 500


@click.command(
    epilog=examples(
        "llama-mgr search qwen2.5 coder",
        "llama-mgr search smollm2 --sort updated --limit 5",
        "llama-mgr search llama --page 2 --json | jq '.models[].repo'",
    )
)
@click.argument("words", nargs=-1)
@click.option("--limit", type=click.IntRange(1, 100), default=20, show_default=True, help="How many to show.")
@click.option("--page", type=click.IntRange(1, _REACH), default=1, show_default=True, help="Show the next ones.")
@click.option(
    "--sort",
    "order",
    type=click.Choice(["downloads", "updated", "likes"]),
    default="downloads",
    show_default=True,
    help="What comes first.",
)
@common_options
@pass_context
def search(context: Context, words: tuple[str, ...], limit: int, page: int, order: "Order") -> None:
    """Search the Hugging Face hub for models in the GGUF format.

    Only repositories that list GGUF files are shown.
    """
    if limit * page > _REACH:
        why = f"a search reaches {_REACH} models far; with --limit {limit}, that is page {_REACH // limit}"
        raise BadInputError("cannot show --page", page, why, hint="name more words")
    found = context.hub.search(" ".join(words), limit, page, order)
    document = {"words": list(words), "page": page, "models": [dataclasses.asdict(model) for model in found]}
    context.answer(document, lambda output: _print_models(output, found, page, is_full=len(found) == limit))


def _print_models(output: Output, found: "Sequence[HubModel]", page: int, *, is_full: bool) -> None:
    if not found:
        output.line("the hub has no such model in the GGUF format" if page == 1 else "there are no more")
        return
    rows = [
        (
            printable(model.repo),
            str(model.ggufs),
            f"{model.downloads:,}",
            f"{model.likes:,}",
            (model.updated_at or "")[:10],
            "yes" if model.gated else "",
        )
        for model in found
    ]
    output.table(("repository", "ggufs", "downloads", "likes", "updated", "gated"), rows)
    output.line("`llama-mgr info REPOSITORY` shows its quants" + (f"; --page {page + 1} shows more" if is_full else ""))
