"""`llama-mgr list`."""

from typing import TYPE_CHECKING, Any

import click

from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context, common_options, examples, pass_context

if TYPE_CHECKING:
    from llama_mgr.models.library import Catalog

SORTS = ("name", "size", "params", "ctx", "quant", "arch", "modified")


@click.command(
    "list",
    epilog=examples(
        "llama-mgr list",
        "llama-mgr list --filter 'qwen q4' --sort size   # the largest first",
        "llama-mgr list --json",
    ),
)
@click.option("--sort", type=click.Choice(SORTS), default="name", help="What to sort by; default name.")
@click.option(
    "--filter",
    "words",
    metavar="WORDS",
    default="",
    help="Only models with all these words in name, quant, arch or abilities.",
)
@common_options
@pass_context
def list_models(context: Context, sort: str, words: str) -> None:
    """Show all models on this disk.

    These are your own and those of watched directories (`llama-mgr index add`). "fits?" tells where a model can run
    with a context of 4096 tokens: `gpu`, `gpu+ram` (partly on the GPU; --json says `partly`), `ram`, or `no`.
    """
    from llama_mgr.cli.list_page import checkpoint_rows, model_row, print_models, sorted_rows
    from llama_mgr.cli.machine import machine_of
    from llama_mgr.models.library import Library

    catalog = Library(context.models_home, context.reporter).catalog()
    machine = machine_of(context)
    rows = sorted_rows([model_row(model, machine) for model in catalog.models], sort, words)
    checkpoints = checkpoint_rows(catalog.checkpoints, words, context.reporter)
    _remark(context, catalog)
    document: dict[str, Any] = {
        "models": rows,
        "broken": [{"path": str(one.path), "why": one.why} for one in catalog.broken],
        "checkpoints": checkpoints,
        "totals": {"models": len(rows), "size_bytes": sum(row["size_bytes"] + row["projector_bytes"] for row in rows)},
    }

    def show(output: Output) -> None:
        print_models(output, rows, all_models=len(catalog.models), checkpoints=checkpoints)

    context.answer(document, show)


def _remark(context: Context, catalog: "Catalog") -> None:
    """Say what is not in the table."""
    count = len(catalog.broken)
    if count:
        what = "1 file is" if count == 1 else f"{count} files are"
        context.reporter.warn(f"{what} no whole model and not listed; see `llama-mgr index verify --quick`")
