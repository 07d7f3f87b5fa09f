"""`llama-mgr completion`."""

import click

from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context, common_options, examples, pass_context

_VARIABLE = "_LLAMA_MGR_COMPLETE"


@click.command(
    epilog=examples(
        "llama-mgr completion bash > ~/.local/share/bash-completion/completions/llama-mgr",
        "llama-mgr completion zsh > ~/.zfunc/_llama-mgr   # with fpath+=~/.zfunc before compinit",
        "llama-mgr completion fish > ~/.config/fish/completions/llama-mgr.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common_options
@pass_context
def completion(context: Context, shell: str) -> None:
    """Print SHELL's completion script.

    It completes commands, options, and the names of instances and recipes.
    """
    from click.shell_completion import get_completion_class

    from llama_mgr.cli.app import app

    kind = get_completion_class(shell)
    if kind is None:  # pragma: no cover - click knows the three
        return
    script = kind(app, {}, "llama-mgr", _VARIABLE).source()

    def show(output: Output) -> None:
        output.raw(script)

    context.answer({"shell": shell, "script": script}, show)
