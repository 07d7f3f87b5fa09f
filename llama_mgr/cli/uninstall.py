"""`llama-mgr uninstall`."""

import click

from llama_mgr.cli.completing import complete_instances
from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context, common_options, examples, pass_context


@click.command(
    epilog=examples("llama-mgr uninstall old", "llama-mgr uninstall old --force   # although a server runs it")
)
@click.argument("name", shell_complete=complete_instances)
@click.option("--force", is_flag=True, help="Remove it although a program of it runs; that keeps its files.")
@common_options
@pass_context
def uninstall(context: Context, name: str, force: bool) -> None:
    """Remove an instance, and the builds that nothing else needs."""
    from functools import partial

    from llama_mgr.cli.running import running_builds
    from llama_mgr.instances.installation import Installer

    installer = Installer(context.home, context.settings, context.environ, context.reporter)
    removed = installer.uninstall(name, partial(running_builds, context.home), force=force)

    def show(output: Output) -> None:
        output.line(f"{name} is removed" + (f", with {', '.join(removed)}" if removed else ""))

    context.answer({"removed": name, "builds": removed}, show)
