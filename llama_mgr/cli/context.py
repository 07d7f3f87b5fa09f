"""What every command is handed: the home, the settings, the environment, and where to say things."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from llama_mgr.cli.console import ConsoleReporter, Output, reporter_for
from llama_mgr.paths import Home, home_from
from llama_mgr.report import SilentReporter

if TYPE_CHECKING:
    from llama_mgr.download import Patience
    from llama_mgr.errors import LlamaMgrError
    from llama_mgr.models.hub import Hub
    from llama_mgr.settings import Origins, Settings

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass
class Context:
    """One invocation of llama-mgr. Made by `app.main`, filled by `common_options`."""

    environ: dict[str, str] = field(default_factory=lambda: dict(os.environ))
    config_file: Path | None = None
    as_json: bool = False
    quiet: bool = False
    debug: bool = False
    answered: bool = False
    """The one document of --json was printed; what goes wrong later is said on stderr only."""

    @cached_property
    def home(self) -> Home:
        """The home directory, made and checked on first use."""
        home = replace(home_from(self.environ), config=self.config_file)
        home.prepare()
        return home

    @cached_property
    def models_home(self) -> Home:
        """The home with its models where the settings want them; apart, because settings need a home to be read."""
        return self.home.with_models(self.settings.models_dir)

    @cached_property
    def settings(self) -> "Settings":
        """config.toml and the LLAMA_MGR_* variables; whether a value can be used is asked where it is used."""
        from llama_mgr.settings import load_settings

        return load_settings(self.home, self.environ)

    def require_usable(self, *keys: str) -> None:
        """Raise what is wrong with the values of the settings `keys`, which the command is about to use."""
        from llama_mgr.build.setting_errors import require_usable

        require_usable(self.settings, self.origins, *keys)

    @cached_property
    def origins(self) -> "Origins":
        """Where the values of the settings come from."""
        from llama_mgr.settings import Origins

        return Origins(self.home, self.environ)

    @cached_property
    def hub(self) -> "Hub":
        """The Hugging Face hub of the settings; nothing is asked yet."""
        return self.hub_with()

    def hub_with(self, patience: "Patience | None" = None) -> "Hub":
        """Return the hub of the settings, which is given up after as many tries as `patience` says."""
        from llama_mgr.models.hub import Hub
        from llama_mgr.models.hub_settings import require_usable

        chosen = self.settings.hub
        require_usable(self.settings, self.origins, "hub.endpoint", "hub.token-file")
        token_file = Path(chosen.token_file) if chosen.token_file else None
        return Hub(self.environ, self.reporter, patience, endpoint=chosen.endpoint, token_file=token_file)

    @cached_property
    def reporter(self) -> ConsoleReporter | SilentReporter:
        """Where rooms say what they do."""
        return reporter_for(quiet=self.quiet)

    @cached_property
    def output(self) -> Output:
        """Where answers go."""
        return Output()

    def answer(
        self,
        document: Mapping[str, Any],
        show: Callable[[Output], None],
        error: "LlamaMgrError | None" = None,
    ) -> None:
        """Give the result: `document` with --json, otherwise whatever `show` prints (which --quiet silences not).

        Where a part of the work failed, its `error` joins the document, and is raised or ends the command.
        """
        import json

        self.answered = True
        if self.as_json:
            print(json.dumps({**document, **(error.as_document() if error else {})}, indent=1))  # noqa: T201
        else:
            show(self.output)
        if error is None:
            return
        if self.as_json:
            click.get_current_context().exit(error.exit_status)
        raise error


COMMON_OPTIONS = {
    "--debug": ("debug", "Show tracebacks."),
    "--quiet": ("quiet", "Say nothing on stderr but errors."),
    "--json": ("as_json", "Print one JSON document on stdout."),
}
"""The flags that every command has: where the Context stores each, and its help."""

pass_context = click.make_pass_decorator(Context)


def common_options(command: Command) -> Command:
    """Give a command `--json`, `--quiet` and `--debug`, which every command has; they are stored in the Context."""

    def store(name: str) -> Callable[[click.Context, click.Parameter, bool], None]:
        def callback(ctx: click.Context, _: click.Parameter, value: bool) -> None:
            if value:
                setattr(ctx.ensure_object(Context), name, True)

        return callback

    for flag, (name, text) in COMMON_OPTIONS.items():
        command = click.option(flag, is_flag=True, expose_value=False, callback=store(name), help=text)(command)
    return command


def examples(*lines: str) -> str:
    """Return the epilog of a command's help: two or three examples."""
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)
