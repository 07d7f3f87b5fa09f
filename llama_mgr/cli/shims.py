"""`llama-mgr shims`: launchers that follow the current instance."""

import click

from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context, common_options, examples, pass_context


@click.command(epilog=examples("llama-mgr shims", 'export PATH="$HOME/.llama-mgr/bin:$PATH"'))
@common_options
@pass_context
def shims(context: Context) -> None:
    """Write launchers that follow the current instance.

    They are llama-server, llama-bench, … in bin/ of the home.

    Each starts the program of the instance that `instance which` names, so that `use`, LLAMA_MGR_INSTANCE and
    llama-mgr.toml work for them, too. Put the directory on PATH once.
    """
    from llama_mgr.instances.launchers import write_launchers

    names = write_launchers(context.home)

    def show(output: Output) -> None:
        output.line(f"{len(names)} launchers are in {context.home.launchers_dir}")
        output.line(f'next: export PATH="{context.home.launchers_dir}:$PATH"')

    context.answer({"directory": str(context.home.launchers_dir), "launchers": names}, show)
