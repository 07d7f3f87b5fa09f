"""`llama-mgr rm`."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from llama_mgr.cli.completing import complete_models
from llama_mgr.cli.confirmation import confirm_removal
from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context, common_options, examples, pass_context
from llama_mgr.text import printable, size_words

if TYPE_CHECKING:
    from llama_mgr.models.checkpoint_removal import Checkpoint
    from llama_mgr.models.library import Catalog
    from llama_mgr.models.removal import Doomed, Remover


@click.command(
    "rm",
    epilog=examples(
        "llama-mgr rm bartowski/Qwen2.5-7B-Instruct-GGUF:Q4_K_M   # one quant",
        "llama-mgr rm bartowski/Qwen2.5-7B-Instruct-GGUF -y       # all quants and the checkpoint",
        "llama-mgr rm ~/.llama-mgr/models/o/r/broken.gguf         # a file that is no whole model",
    ),
)
@click.argument("models", nargs=-1, required=True, metavar="MODEL...", shell_complete=complete_models)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@common_options
@pass_context
def remove(context: Context, models: tuple[str, ...], yes: bool) -> None:
    """Remove models from this disk.

    MODEL is `owner/repo` for all its quants and its checkpoint, `owner/repo:QUANT`, part of a name if it means one
    model, or the path of a file in the models directory. All shards go, and the projector when nothing else needs it.
    What a running server uses stays; so do the files of watched directories.
    """
    from functools import partial

    from llama_mgr.cli.running import running_models
    from llama_mgr.models.checkpoint_removal import CheckpointRemover
    from llama_mgr.models.library import Library
    from llama_mgr.models.removal import Remover

    home = context.models_home
    remover = Remover(home, partial(running_models, home), context.reporter)
    checkpoint_remover = CheckpointRemover(home, context.reporter)
    catalog = Library(home, context.reporter).catalog()
    wanted = {text: checkpoint_remover.named(name) if (name := _whole_name(text)) else [] for text in models}
    checkpoints = list(dict.fromkeys(one for found in wanted.values() for one in found))
    chosen = [one for text in models for one in _doomed(context, remover, catalog, text, or_none=bool(wanted[text]))]
    doomed = list(dict.fromkeys(chosen))
    remover.require_unused(doomed)
    files = remover.files_of(doomed)
    fetched = {one: checkpoint_remover.files_of(one) for one in checkpoints}
    labels = [*(one.label for one in doomed), *(f"{one.name} (checkpoint)" for one in checkpoints)]
    shown = [*map(str, files), *(_checkpoint_words(one, fetched[one]) for one in checkpoints)]
    files += [file for one in checkpoints for file in fetched[one]]
    confirm_removal(", ".join(map(printable, labels)), size_words(_size_bytes(files)), shown, yes=yes)
    freed_bytes = remover.remove(doomed) + checkpoint_remover.remove(checkpoints)
    document = {"removed": labels, "files": [str(file) for file in files], "freed_bytes": freed_bytes}

    def show(output: Output) -> None:
        kept = "" if freed_bytes or not files else " (the bytes have other names on this disk, or lie elsewhere)"
        labels_words = ", ".join(printable(label) for label in labels)
        output.line(f"removed {labels_words}; freed {size_words(freed_bytes)}{kept}")

    context.answer(document, show)


def _whole_name(text: str) -> str | None:
    """Return the `owner/repo` that `text` is, however it is written; None when it says more, or is something else."""
    from llama_mgr.errors import BadReferenceError
    from llama_mgr.models.reference import HubRef, parse_reference

    try:
        reference = parse_reference(text)
    except BadReferenceError:
        return None
    # `:latest` is left out of a reference, but whoever types a tag does not mean all quants.
    if not isinstance(reference, HubRef) or str(reference) != reference.name or ":" in text.rpartition("/")[2]:
        return None
    return reference.name


def _checkpoint_words(one: "Checkpoint", files: Sequence[Path]) -> str:
    count = "1 file" if len(files) == 1 else f"{len(files)} files"
    return f"{one.directory} (checkpoint: {count}, {size_words(_size_bytes(files))})"


def _size_bytes(files: Sequence[Path]) -> int:
    return sum(file.lstat().st_size for file in files if os.path.lexists(file))


def _doomed(context: Context, remover: "Remover", catalog: "Catalog", text: str, *, or_none: bool) -> "list[Doomed]":
    """Return what `text` means; only a whole `owner/repo` means several models, or `or_none`."""
    from llama_mgr.cli.model_choice import model_to_remove, path_in
    from llama_mgr.names import canonical

    path = path_in(text)
    if path is not None:
        return [remover.doomed_at(path, catalog)]
    name = canonical(_whole_name(text) or text)
    models = [*catalog.models, *catalog.duplicates]
    named = [model for model in models if model.root.is_own and canonical(model.name) == name]
    if named:
        return remover.doomed_models(named)
    if or_none:
        return []
    return remover.doomed_models([model_to_remove(context, text, catalog)])  # says whose it is, if it is not ours
