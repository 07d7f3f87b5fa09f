"""`llama-mgr use`."""

import click

from llama_mgr.cli.completing import complete_instances
from llama_mgr.cli.context import Context, common_options, examples, pass_context


@click.command(epilog=examples("llama-mgr use b11434-cpu", "llama-mgr instance which   # what is used here, and why"))
@click.argument("name", shell_complete=complete_instances)
@common_options
@pass_context
def use(context: Context, name: str) -> None:
    """Make NAME the default instance."""
    from llama_mgr.instances.choice import set_default

    set_default(context.home, name)
    context.answer({"default": name}, lambda output: output.line(f"{name} is the default instance now"))
