"""`llama-mgr stale`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from llama_mgr.cli.completing import complete_models
from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context, common_options, examples, pass_context
from llama_mgr.cli.making import instance_option, workshop_of

if TYPE_CHECKING:
    from llama_mgr.make.outdated import Judged
    from llama_mgr.models.model import Model


@click.command(
    epilog=examples(
        "llama-mgr stale                      # all models that were made here",
        "llama-mgr stale my-model -i newest   # against the code of another instance",
        "llama-mgr make --again my-model      # make again what is stale",
    )
)
@click.argument("models", nargs=-1, metavar="[MODEL...]", shell_complete=complete_models)
@instance_option
@common_options
@pass_context
def stale(context: Context, models: tuple[str, ...], instance: str | None) -> None:
    """List models whose converter or quantizer has changed.

    Compared are the code that made each model, as its record tells it, and that of the instance. Changes of code that
    all architectures share are a maybe; formatting, comments and new tokenizers of other models are no change.
    """
    from llama_mgr.make.outdated import judged

    with workshop_of(context, instance) as workshop:
        rows = judged(workshop, made_models(context, models))
        build = workshop.build.build_id
    documents = [_document(one) for one in rows]
    context.answer({"build": build, "models": documents}, lambda output: _print(output, documents, build))


def made_models(context: Context, texts: Sequence[str]) -> "list[Model]":
    """Return the models that were made here: those that `texts` name (a name alone means all its quants), or all."""
    from llama_mgr.cli.model_choice import chosen_model
    from llama_mgr.errors import AmbiguousModelError
    from llama_mgr.models.library import Library
    from llama_mgr.models.matching import matches

    catalog = Library(context.models_home, context.reporter).catalog()
    wanted: set[str] = set()
    for text in texts:
        try:
            wanted.add(chosen_model(context, text, catalog).name)
        except AmbiguousModelError:
            wanted |= {one.name for one in matches(text, catalog.models)}
    made = [one for one in catalog.models if one.record is not None and one.record.origin == "made"]
    return [one for one in made if not texts or one.name in wanted]


def _document(one: "Judged") -> dict[str, Any]:
    return {
        "model": one.model.key,
        "state": one.staleness.state,
        "reasons": list(one.staleness.reasons),
        "made_by": one.made_by,
        "files": [str(file) for file in one.model.files],
    }


def _print(output: Output, documents: Sequence[dict[str, Any]], build: str) -> None:
    if not documents:
        output.line("no model here was made by llama-mgr")
        return
    rows = [(one["model"], one["state"], one["made_by"], "; ".join(one["reasons"])) for one in documents]
    output.table(("model", "state", "made by", "why"), rows)
    count = sum(one["state"] == "stale" for one in documents)
    output.line(f"{count} of {len(documents)} stale against {build}")
