"""`llama-mgr show`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from llama_mgr.cli.completing import complete_models
from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context, common_options, examples, pass_context

if TYPE_CHECKING:
    from llama_mgr.models.model import Model


@click.command(
    epilog=examples(
        "llama-mgr show smollm2",
        "llama-mgr show qwen2.5:q4_k_m --context 32768   # would it fit with this context?",
        "llama-mgr show ./model.gguf --template          # a file outside the library",
    )
)
@click.argument("model", shell_complete=complete_models)
@click.option(
    "--context",
    "tokens",
    type=click.IntRange(1, 2**31),
    metavar="N",
    help="Plan the memory for N tokens; default 4096.",
)
@click.option("--tensors", is_flag=True, help="List every tensor.")
@click.option("--metadata", is_flag=True, help="List all keys of the header.")
@click.option("--template", is_flag=True, help="Print the chat template.")
@common_options
@pass_context
def show(context: Context, model: str, tokens: int | None, tensors: bool, metadata: bool, template: bool) -> None:
    """Show what is known of a model.

    What it is and can do, where it came from, and how much memory it takes.

    MODEL is a name, a part of one, an alias, or the path of a GGUF file.
    """
    from llama_mgr.cli.evaluate_page import evaluation_documents
    from llama_mgr.cli.machine import machine_of
    from llama_mgr.cli.made_page import measured_of, print_making, print_measured
    from llama_mgr.cli.show_page import Wanted, model_document, print_model

    wanted = Wanted(tokens, tensors=tensors, metadata=metadata, template=template)
    found = _found(context, model)
    document = model_document(found, machine_of(context, fresh=True), wanted)
    document["evaluations"] = evaluation_documents(measured_of(context, found))

    def show_all(output: Output) -> None:
        print_model(output, document, wanted)
        print_making(output, document["provenance"])
        print_measured(output, document["evaluations"])

    context.answer(document, show_all)


def _found(context: Context, text: str) -> "Model":
    from llama_mgr.cli.model_choice import chosen_model, path_in
    from llama_mgr.models.library import Library

    path = path_in(text)
    catalog = Library(context.models_home, context.reporter).catalog()
    if path is not None and catalog.holding(path) is None:
        return _outside(context, path)
    return chosen_model(context, text, catalog)


def _outside(context: Context, path: Path) -> "Model":
    """Return the model that a file outside the library is, with its shards and its projector."""
    from llama_mgr.models.headers import Headers
    from llama_mgr.models.import_source import any_gguf_at

    return any_gguf_at(path, Headers(context.models_home, context.reporter)).model
