"""`llama-mgr split` and `llama-mgr merge`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from llama_mgr.cli.completing import complete_models
from llama_mgr.cli.context import Context, common_options, examples, pass_context
from llama_mgr.cli.making import (
    chosen_gguf,
    force_option,
    instance_option,
    made_document,
    output_option,
    place_of,
    print_made,
    workshop_of,
)
from llama_mgr.errors import BadInputError

if TYPE_CHECKING:
    from llama_mgr.make.output import Made


@click.command(
    epilog=examples(
        "llama-mgr split my-model:Q8_0 --max-size 40G --output ./shards",
        "llama-mgr split ./model.gguf --max-tensors 128 -o .",
    )
)
@click.argument("model", metavar="MODEL|FILE", shell_complete=complete_models)
@click.option("--max-size", default="", metavar="N[M|G]", help="Of a shard; powers of 1000.")
@click.option("--max-tensors", type=click.IntRange(1), metavar="N", help="In a shard.")
@output_option
@instance_option
@force_option
@common_options
@pass_context
def split(
    context: Context, model: str, max_size: str, max_tensors: int | None, output: Path | None, instance: str | None,
    force: bool,
) -> None:  # fmt: skip
    """Split a GGUF into shards; the model itself stays."""
    with workshop_of(context, instance) as workshop:
        from llama_mgr.make.gguf_input import gguf_input
        from llama_mgr.make.output import Replacing
        from llama_mgr.make.splitting import Splitter

        chosen = chosen_gguf(context, model)
        if output is not None and output.suffix == ".gguf":
            raise BadInputError("cannot write shards to", output, "it names one file", hint="name a directory")
        place = place_of(context, chosen.name, output, chosen.directory)
        source = gguf_input(chosen.files, context.reporter)
        _answer(context, Splitter(workshop, Replacing(force=force)).split(source, place, max_size, max_tensors or 0))


@click.command(
    epilog=examples(
        "llama-mgr merge ./model-00001-of-00003.gguf --output model.gguf",
        "llama-mgr merge my-model:Q8_0 -o /big/disk",
    )
)
@click.argument("model", metavar="MODEL|FILE", shell_complete=complete_models)
@output_option
@instance_option
@force_option
@common_options
@pass_context
def merge(context: Context, model: str, output: Path | None, instance: str | None, force: bool) -> None:
    """Join the shards of a GGUF to one file; the shards stay."""
    with workshop_of(context, instance) as workshop:
        from llama_mgr.make.gguf_input import gguf_input
        from llama_mgr.make.output import Replacing
        from llama_mgr.make.splitting import Splitter

        chosen = chosen_gguf(context, model)
        place = place_of(context, chosen.name, output, chosen.directory)
        source = gguf_input(chosen.files, context.reporter)
        _answer(context, Splitter(workshop, Replacing(force=force)).merge(source, place))


def _answer(context: Context, made: "Made") -> None:
    context.answer(made_document(made), lambda output: print_made(output, [made]))
