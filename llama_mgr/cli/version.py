"""`llama-mgr version`."""

import platform
import sys

import click

from llama_mgr import __version__
from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context, common_options, examples, pass_context


@click.command(epilog=examples("llama-mgr version", "llama-mgr version --json"))
@common_options
@pass_context
def version(context: Context) -> None:
    """Show the version of llama-mgr, its Python and its home."""
    document = {
        "version": __version__,
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": f"{platform.system()} {platform.machine()}",
        "home": str(context.home.root),
    }

    def show(output: Output) -> None:
        for name, value in document.items():
            output.line(f"{name}: {value}")

    context.answer(document, show)
