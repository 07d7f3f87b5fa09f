"""`llama-mgr config …`: what is set, where it comes from, and changing it."""

from typing import TYPE_CHECKING, Any

import click

from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context, common_options, examples, pass_context
from llama_mgr.errors import ConflictError

if TYPE_CHECKING:
    from llama_mgr.settings import Settings


@click.group()
def config() -> None:
    """Show and change the settings."""


def _complete_keys(_: click.Context, __: click.Parameter, incomplete: str) -> list[str]:
    from llama_mgr.settings import settings_keys

    return [key for key, _ in settings_keys() if key.startswith(incomplete)]


@config.command(epilog=examples("llama-mgr config path", "$EDITOR $(llama-mgr config path)"))
@common_options
@pass_context
def path(context: Context) -> None:
    """Print where the settings lie."""
    file = context.origins.file
    context.answer({"path": str(file), "exists": file.exists()}, lambda output: output.raw(str(file)))


@config.command(epilog=examples("llama-mgr config show", "LLAMA_MGR_DEFAULT_ARCH=cuda llama-mgr config show"))
@common_options
@pass_context
def show(context: Context) -> None:
    """Show every setting, its value and where that comes from.

    The logins and the values of queries in URLs are left out, so that the page can be shown to others; `config get`
    prints them.
    """
    from llama_mgr.cli.config_page import setting_rows

    rows = setting_rows(context.settings, context.origins)

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

    file = context.origins.file
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
    from llama_mgr.cli.config_page import edited, without_secrets_in
    from llama_mgr.locks import held_lock
    from llama_mgr.settings import Settings
    from llama_mgr.store import read_bounded, write_bytes
    from llama_mgr.toml_file import LIMIT_BYTES, parsed_toml

    file = context.origins.file.resolve()  # a link to somebody's dotfiles stays a link
    with held_lock(context.home, "config", f"config set {key}", context.reporter):
        before = read_bounded(file, LIMIT_BYTES) if file.exists() else b""
        parsed_toml(before, file, Settings)
        content, written = edited(before.decode("utf-8"), key, value)
        _refuse_value(context, parsed_toml(content, file, Settings), key)
        write_bytes(file, content, keep_mode=True)
    shown = without_secrets_in(written)
    context.answer({"key": key, "value": shown}, lambda output: output.line(f"{key} = {_shown(shown)}"))


def _refuse_value(context: Context, settings: "Settings", key: str) -> None:
    """Raise what is wrong with the value of `key`; bad values of other keys do not keep anybody from mending it."""
    from llama_mgr.build.setting_errors import setting_errors
    from llama_mgr.models import hub_settings
    from llama_mgr.settings import Origins, raise_first, unsafe_values

    origins = Origins(context.home, {}, set_now=key)
    errors = [
        *unsafe_values(settings, origins),
        *setting_errors(settings, origins),
        *hub_settings.setting_errors(settings, origins),
    ]
    raise_first((bad, error) for bad, error in errors if bad == key)


def _shown(value: Any) -> str:  # noqa: ANN401 (any setting)
    import shlex

    if isinstance(value, list):
        return shlex.join(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value)
