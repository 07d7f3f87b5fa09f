"""`llama-mgr config …`: what is set, where it comes from, and changing it."""

from pathlib import Path
from typing import Any

import click

from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context, common_options, examples, pass_context
from llama_mgr.errors import ConflictError


@click.group()
def config() -> None:
    """Show and change the settings."""


def _complete_keys(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    from llama_mgr.settings import settings_keys

    return [key for key, _ in settings_keys() if key.startswith(incomplete)]


def _file(context: Context) -> Path:
    return context.config_file or context.home.config_file


@config.command(epilog=examples("llama-mgr config path", "$EDITOR $(llama-mgr config path)"))
@common_options
@pass_context
def path(context: Context) -> None:
    """Print where the settings lie."""
    file = _file(context)
    context.answer({"path": str(file), "exists": file.exists()}, lambda output: output.line(str(file)))


@config.command(epilog=examples("llama-mgr config show", "LLAMA_MGR_DEFAULT_ARCH=cuda llama-mgr config show"))
@common_options
@pass_context
def show(context: Context) -> None:
    """Show every setting, its value and where that comes from."""
    from llama_mgr.cli.config_page import setting_rows

    rows = setting_rows(context.settings, _file(context), context.environ)

    def page(output: Output) -> None:
        output.table(("key", "value", "from"), [(row["key"], _shown(row["value"]), row["origin"]) for row in rows])

    context.answer({"settings": rows}, page)


@config.command(epilog=examples("llama-mgr config init", "llama-mgr config init && $EDITOR $(llama-mgr config path)"))
@common_options
@pass_context
def init(context: Context) -> None:
    """Write a config.toml that explains every setting.

    None is set there.
    """
    from llama_mgr.cli.config_page import template
    from llama_mgr.store import write_bytes

    file = _file(context)
    if file.exists() or file.is_symlink():
        raise ConflictError("cannot write", file, "it exists", hint="llama-mgr config show")
    write_bytes(file, template().encode())
    context.answer({"path": str(file)}, lambda output: output.line(f"{file} is there now"))


@config.command(epilog=examples("llama-mgr config get default-arch", "llama-mgr config get build.cache.max-size"))
@click.argument("key", shell_complete=_complete_keys)
@common_options
@pass_context
def get(context: Context, key: str) -> None:
    """Print one setting."""
    from llama_mgr.cli.config_page import value_of

    value = value_of(context.settings, key)
    context.answer({"key": key, "value": value}, lambda output: output.line(_shown(value)))


@config.command(
    "set",
    epilog=examples(
        "llama-mgr config set default-arch cuda",
        "llama-mgr config set build.parallel 8",
        "llama-mgr config set build.cache.remote redis://build-cache:6379",
        "llama-mgr config set build.tools.cmake /usr/bin/cmake",
    ),
)
@click.argument("key", shell_complete=_complete_keys)
@click.argument("value")
@common_options
@pass_context
def set_value(context: Context, key: str, value: str) -> None:
    """Change one setting in config.toml; comments and order stay. A value that would not be accepted is not written.

    Lists are written as shell words: 'llama-server llama-cli'.
    """
    from llama_mgr.cli.config_page import edited
    from llama_mgr.locks import held_lock
    from llama_mgr.settings import parsed_settings
    from llama_mgr.store import read_bounded, write_bytes
    from llama_mgr.toml_file import LIMIT_BYTES

    file = _file(context).resolve()  # a link to somebody's dotfiles stays a link
    with held_lock(context.home, "config", f"config set {key}", context.reporter):
        before = read_bounded(file, LIMIT_BYTES) if file.exists() else b""
        parsed_settings(before, file, context.home)
        content, written = edited(before.decode("utf-8"), key, value)
        parsed_settings(content, file, context.home)
        write_bytes(file, content, keep_mode=True)
    context.answer({"key": key, "value": written}, lambda output: output.line(f"{key} = {_shown(written)}"))


def _shown(value: Any) -> str:  # noqa: ANN401 (any setting)
    import shlex

    if isinstance(value, list):
        return shlex.join(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
