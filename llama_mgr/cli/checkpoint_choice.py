"""From what a user typed to a checkpoint on this disk."""

from pathlib import Path
from typing import TYPE_CHECKING

from llama_mgr.cli.context import Context

if TYPE_CHECKING:
    from llama_mgr.make.checkpoint_dir import CheckpointDir
    from llama_mgr.make.checkpoint_source import CheckpointSource
    from llama_mgr.models.checkpoint import CheckpointPuller


def chosen_checkpoint(context: Context, text: str, *, with_code: bool = False) -> "CheckpointSource":
    """Return the checkpoint that `text` means: a directory, or a repository of the hub, pulled if it is not here."""
    from llama_mgr.make.checkpoint_source import checkpoint_source

    def puller() -> "CheckpointPuller":
        from llama_mgr.models.checkpoint import CheckpointPuller

        return CheckpointPuller(context.models_home, context.hub, context.reporter)

    return checkpoint_source(context.models_home, text, puller, context.reporter, with_code=with_code)


def adapter_base(
    context: Context, checkpoint: "CheckpointDir", chosen: str | None, *, trusts: bool
) -> "CheckpointDir | None":
    """Return the checkpoint that an adapter belongs to: the chosen one, or one that was pulled before; None for models.

    Of the base, only its configuration and tokenizer are read.
    """
    from llama_mgr.make.checkpoint_dir import inspect_checkpoint
    from llama_mgr.models.checkpoint import DIRECTORY_NAME

    if chosen is not None:
        source = chosen_checkpoint(context, chosen, with_code=trusts)
        return inspect_checkpoint(source.directory, trust_remote_code=trusts, needs_weights=False)
    parts = Path(checkpoint.adapter_base or "").parts
    if checkpoint.kind != "adapter" or len(parts) != 2 or ".." in parts:  # noqa: PLR2004 (owner, repo)
        return None
    here = context.models_home.models_dir.joinpath(*parts, DIRECTORY_NAME)
    return inspect_checkpoint(here, trust_remote_code=trusts, needs_weights=False) if here.is_dir() else None
