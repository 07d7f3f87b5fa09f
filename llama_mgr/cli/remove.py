"""`llama-mgr rm`."""

import os
from typing import TYPE_CHECKING

import click

from llama_mgr.cli.completing import complete_models
from llama_mgr.cli.confirmation import confirm_removal
from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context, common_options, examples, pass_context
from llama_mgr.errors import UnknownModelError
from llama_mgr.text import printable, size_words

if TYPE_CHECKING:
    from llama_mgr.models.library import Catalog
    from llama_mgr.models.removal import Doomed, Remover


@click.command(
    "rm",
    epilog=examples(
        "llama-mgr rm bartowski/Qwen2.5-7B-Instruct-GGUF:Q4_K_M   # one quant",
        "llama-mgr rm bartowski/Qwen2.5-7B-Instruct-GGUF -y       # all quants, without asking",
        "llama-mgr rm ~/.llama-mgr/models/o/r/broken.gguf         # a file that is no whole model",
    ),
)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", shell_complete=complete_models)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@common_options
@pass_context
def remove(context: Context, models: tuple[str, ...], yes: bool) -> None:
    """Remove models from this disk.

    MODEL is `owner/repo` for all its quants, `owner/repo:QUANT`, part of a name if it means one model, or the path of a
    file in the models directory. All shards go, and the projector when nothing else needs it. What a running server
    uses stays; so do the files of watched directories.
    """
    from functools import partial

    from llama_mgr.cli.running import running_models
    from llama_mgr.models.library import Library
    from llama_mgr.models.removal import Remover

    home = context.models_home
    remover = Remover(home, partial(running_models, home), context.reporter)
    catalog = Library(home, context.reporter).catalog()
    doomed = list(dict.fromkeys(one for text in models for one in _doomed(context, remover, catalog, text)))
    remover.require_unused(doomed)
    files = remover.files_of(doomed)
    size_bytes = sum(file.lstat().st_size for file in files if os.path.lexists(file))
    confirm_removal(", ".join(printable(one.label) for one in doomed), size_words(size_bytes), files, yes=yes)
    freed_bytes = remover.remove(doomed)
    labels = [one.label for one in doomed]
    document = {"removed": labels, "files": [str(file) for file in files], "freed_bytes": freed_bytes}

    def show(output: Output) -> None:
        kept = "" if freed_bytes or not files else " (the bytes have other names on this disk, or lie elsewhere)"
        labels_words = ", ".join(printable(label) for label in labels)
        output.line(f"removed {labels_words}; freed {size_words(freed_bytes)}{kept}")

    context.answer(document, show)


def _doomed(context: Context, remover: "Remover", catalog: "Catalog", text: str) -> "list[Doomed]":
    """Return what `text` means; only a whole `owner/repo` means several models."""
    from llama_mgr.cli.model_choice import chosen_model, path_in
    from llama_mgr.models.library import Catalog
    from llama_mgr.names import canonical

    path = path_in(text)
    if path is not None:
        return [remover.doomed_at(path, catalog)]
    models = [*catalog.models, *catalog.duplicates]
    own = [model for model in models if model.root.is_own]
    named = [model for model in own if canonical(model.name) == canonical(text)]
    if named:
        return remover.doomed_models(named)
    try:
        return remover.doomed_models([chosen_model(context, text, Catalog(tuple(own), ()))])
    except UnknownModelError as unknown:
        try:
            return remover.doomed_models([chosen_model(context, text, catalog)])  # says whose it is
        except UnknownModelError:
            raise unknown from None
