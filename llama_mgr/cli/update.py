"""`llama-mgr update`."""

from pathlib import Path

import click

from llama_mgr.cli.completing import complete_instances
from llama_mgr.cli.context import Context, common_options, examples, pass_context
from llama_mgr.cli.parallel import parallel_option


@click.command(
    epilog=examples("llama-mgr update", "llama-mgr update gpu b11549", "llama-mgr instance rollback gpu   # undo it")
)
@click.argument("name", required=False, shell_complete=complete_instances)
@click.argument("version", required=False)
@parallel_option
@click.option("--ignore-python", is_flag=True, help="From now on make no Python environment for the converter.")
@common_options
@pass_context
def update(context: Context, name: str | None, version: str | None, parallel: int | None, ignore_python: bool) -> None:
    """Bring an instance to the newest version, or to VERSION.

    Recipe and options stay what they are. The old build stays, and stays current if anything fails; `instance
    rollback` returns to it at once.
    """
    from llama_mgr.cli.converter import prepare_converter
    from llama_mgr.cli.install import answer_outcome
    from llama_mgr.instances.choice import choose
    from llama_mgr.instances.installation import Installer

    chosen = name or choose(context.home, None, context.environ, Path.cwd()).instance.name
    outcome = Installer(context.home, context.settings, context.environ, context.reporter).update(
        chosen, version, parallel, ignore_python=ignore_python
    )
    answer_outcome(context, outcome, prepare_converter(context, outcome.instance))
