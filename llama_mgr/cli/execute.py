"""`llama-mgr exec`: become a llama.cpp program."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from llama_mgr.cli.completing import complete_instances
from llama_mgr.cli.context import Context, common_options, examples, pass_context

if TYPE_CHECKING:
    from llama_mgr.instances.instance import Instance


@click.command(
    "exec",
    context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False},
    epilog=examples(
        "llama-mgr exec llama-bench -- -m model.gguf",
        "llama-mgr exec -i old llama-server -- --version",
        "llama-mgr exec server -- -m model.gguf --port 8080   # canonical names work, too",
    ),
)
@click.option("--instance", "-i", metavar="NAME", help="The instance to use.", shell_complete=complete_instances)
@click.argument("program")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@common_options
@pass_context
def execute(context: Context, instance: str | None, program: str, arguments: tuple[str, ...]) -> None:
    """Run a PROGRAM of an instance, such as llama-bench.

    llama-mgr becomes it, and nothing of llama-mgr stays. As long as it runs, `gc` and `uninstall` leave its build
    alone.

    ARGUMENTS after `--` are the program's. LLAMA_ARG_* variables are passed on here, because the program is the
    user's own.
    """
    from llama_mgr.instances.choice import choose
    from llama_mgr.instances.execution import become

    def chosen() -> "Instance":
        return choose(context.home, instance, context.environ, Path.cwd()).instance

    own = arguments[1:] if arguments[:1] == ("--",) else arguments
    become(context.home, chosen, program, own, context.environ, context.reporter)
