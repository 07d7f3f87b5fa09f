"""The command `llama-mgr`: which commands there are, and how every error becomes one sentence and an exit status."""

import errno
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from llama_mgr import __version__
from llama_mgr.cli.context import COMMON_OPTIONS, Context
from llama_mgr.errors import (
    BadInputError,
    HungUpError,
    InternalError,
    InterruptedByUserError,
    LlamaMgrError,
    StorageError,
    TerminatedError,
)
from llama_mgr.text import did_you_mean, escaped, printable, story_without_secrets

PROGRAM_NAME = "llama-mgr"
COMPLETION_VARIABLE = "_LLAMA_MGR_COMPLETE"
ARGUMENT_LIMIT = 2000
ARGUMENT_CHARACTERS_LIMIT = 100_000
_NOT_WRITTEN = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS})

# Command name to "module:attribute" below llama_mgr.cli, in the order of the help page. Modules load on use only.
SECTIONS: dict[str, dict[str, str]] = {
    "Engine": {
        "install": "install:install",
        "uninstall": "uninstall:uninstall",
        "update": "update:update",
        "use": "use:use",
        "exec": "execute:execute",
        "instance": "instance:instance",
        "recipe": "recipe:recipe",
        "shims": "shims:shims",
        "doctor": "doctor:doctor",
    },
    "Models": {
        "pull": "pull:pull",
        "search": "search:search",
        "info": "info:info",
        "list": "list_models:list_models",
        "show": "show:show",
        "rm": "remove:remove",
        "import": "import_model:import_model",
        "index": "index:index",
        "alias": "alias:alias",
    },
    "Make": {
        "convert": "convert:convert",
        "quantize": "quantize:quantize",
        "imatrix": "imatrix:imatrix",
        "evaluate": "evaluate:evaluate",
        "make": "make:make",
        "stale": "stale:stale",
        "split": "split:split",
        "merge": "split:merge",
    },
    "Else": {
        "quickstart": "quickstart:quickstart",
        "config": "config:config",
        "completion": "completion:completion",
        "version": "version:version",
    },
}
COMMANDS = {name: target for section in SECTIONS.values() for name, target in section.items()}


class _Stopped(BaseException):
    """A signal asked us to end. Not an Exception: no `except` on the way may take it for a failure of its own work."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number)
        self.number = number


class LazyGroup(click.Group):
    """A group that imports a command only when it is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002, D102
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002, D102
        target = COMMANDS.get(cmd_name)
        if target is None:
            return None
        module, attribute = target.split(":")
        command: click.Command = getattr(importlib.import_module(f"llama_mgr.cli.{module}"), attribute)
        return command

    def resolve_command(  # noqa: D102
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        is_unknown = args and args[0] not in COMMANDS and not args[0].startswith("-")
        if is_unknown and not ctx.resilient_parsing:  # which completion uses: it must stay silent
            raise BadInputError(
                "unknown command", args[0], "see `llama-mgr --help`", hint=did_you_mean(args[0], COMMANDS)
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: D102
        for title, names in SECTIONS.items():
            rows = []
            for name in names:
                command = self.get_command(ctx, name)
                if command is not None:
                    rows.append((name, command.get_short_help_str(80)))
            with formatter.section(title):
                formatter.write_dl(rows)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="llama-mgr", message="%(prog)s %(version)s")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="Use this config.toml instead of the home's."
)
@click.pass_context
def app(ctx: click.Context, config_file: Path | None) -> None:
    """Build any llama.cpp into named instances, and run it.

    State lies in ~/.llama-mgr (LLAMA_MGR_HOME). Every command knows --help with examples, --json and --quiet.
    """
    ctx.ensure_object(Context).config_file = config_file


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit with the status that docs/exit-codes.md gives."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    own_words = words[: words.index("--")] if "--" in words else words
    as_json, debug = "--json" in own_words, "--debug" in own_words
    _leave_relative_programs_out()
    _prepare_streams()
    _install_signal_handlers()
    context = Context()
    try:
        _run(words, context)
    except LlamaMgrError as error:
        _leave(error, as_json=as_json and not context.answered, debug=debug)
    except _Stopped as stopped:
        kind = HungUpError if stopped.number == signal.SIGHUP else TerminatedError
        _leave(kind(f"stopped by {stopped.number.name}"), as_json=as_json and not context.answered, debug=debug)
    except BrokenPipeError:
        _leave_quietly()
    except OSError as error:
        _leave(_as_known_error(error), as_json=as_json and not context.answered, debug=debug)
    except Exception as error:  # noqa: BLE001 (whatever it is, the user gets one sentence)
        _leave(_as_internal_error(error), as_json=as_json and not context.answered, debug=debug)
    _flush_or_leave()
    sys.exit(0)


def _run(words: list[str], context: Context) -> None:
    if len(words) > ARGUMENT_LIMIT or any(len(word) > ARGUMENT_CHARACTERS_LIMIT for word in words):
        raise BadInputError(
            "cannot read the command line",
            None,
            f"it is too long: at most {ARGUMENT_LIMIT} arguments of {ARGUMENT_CHARACTERS_LIMIT} characters",
        )
    try:
        if COMPLETION_VARIABLE in os.environ:
            app.main(words, prog_name=PROGRAM_NAME, obj=context)
        # Not app.main: it would answer a closed pipe with status 1 by itself.
        with app.make_context(PROGRAM_NAME, words, obj=context) as ctx:
            app.invoke(ctx)
    except click.exceptions.Exit as request:
        if request.exit_code:
            sys.exit(request.exit_code)
    except click.Abort as error:
        raise InterruptedByUserError("interrupted") from error
    except KeyboardInterrupt as error:
        raise InterruptedByUserError("interrupted") from error
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        sys.exit(2)
    except click.ClickException as error:
        raise _as_usage_error(error) from error


def _as_usage_error(error: click.ClickException) -> LlamaMgrError:
    hint = None
    message = error.format_message()
    if isinstance(error, click.UsageError) and error.ctx is not None:
        hint = f"see `{error.ctx.command_path} --help`"
    if isinstance(error, click.NoSuchOption):
        message = error.message  # without click's own "Did you mean", which is our hint
        hint = _other_option(error) or hint
    return BadInputError(printable(message.rstrip(".")), hint=hint)


def _other_option(error: click.NoSuchOption) -> str | None:
    """Return what to write instead of an option that a command does not have, or None when nobody knows."""
    if error.ctx is not None and isinstance(error.ctx.command, click.Group) and error.option_name in COMMON_OPTIONS:
        return f"it stands after the command: {error.ctx.command_path} COMMAND {error.option_name}"
    return f"did you mean '{error.possibilities[0]}'?" if error.possibilities else None


def _story(error: Exception) -> str:
    import traceback

    return story_without_secrets("".join(traceback.format_exception(error)))


def _as_internal_error(error: Exception) -> LlamaMgrError:
    where = _saved_traceback(_story(error))
    place = f"the traceback is in {where}" if where else "run it again with --debug to see the traceback"
    return InternalError(
        "llama-mgr has a bug", None, f"{type(error).__name__}: {printable(error)}; {place}", log_file=where
    )


def _as_known_error(error: OSError) -> LlamaMgrError:
    if error.errno == errno.ENAMETOOLONG:  # no file has such a name: a user wrote it
        return BadInputError("cannot use the name", error.filename, "it is longer than file systems allow")
    return _as_storage_error(error) if error.errno in _NOT_WRITTEN else _as_internal_error(error)


def _as_storage_error(error: OSError) -> LlamaMgrError:
    """Return the error for a full or failing disk; without a file name it is stdout that could not be written."""
    what = "cannot write" if error.filename else "cannot write the answer"
    return StorageError(what, error.filename, error.strerror or "")


def _saved_traceback(story: str) -> Path | None:
    try:
        from llama_mgr.paths import home_from
        from llama_mgr.store import now_at, write_bytes

        path = home_from(dict(os.environ)).logs_dir / f"bug-{now_at().replace(':', '')}-{os.getpid()}.txt"
        write_bytes(path, story.encode("utf-8", "backslashreplace"))
    except Exception:  # noqa: BLE001 (a second failure must not hide the first)
        return None
    return path


def _leave(error: LlamaMgrError, *, as_json: bool, debug: bool) -> NoReturn:
    import json

    try:
        if debug:
            print(_story(error), file=sys.stderr, end="")  # noqa: T201
        if as_json:
            print(json.dumps(error.as_document(), indent=1))  # noqa: T201
        else:
            _say(error)
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        _leave_quietly(error.exit_status)
    sys.exit(error.exit_status)


def _say(error: LlamaMgrError) -> None:
    for line in error.tail:
        print(f"  | {line}", file=sys.stderr)  # noqa: T201
    print(f"error: {escaped(error.message)}", file=sys.stderr)  # noqa: T201
    if error.log_file:
        print(f"log:   {printable(error.log_file)}", file=sys.stderr)  # noqa: T201
    if error.hint:
        print(f"hint:  {escaped(error.hint)}", file=sys.stderr)  # noqa: T201


def _leave_relative_programs_out() -> None:
    """Take the empty and relative entries from PATH: GitPython runs `git` from there as soon as it is imported."""
    entries = os.environ.get("PATH", "").split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join(entry for entry in entries if entry.startswith("/"))


def _prepare_streams() -> None:
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if stream is None:  # closed by the caller: what is said goes nowhere
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115
        else:
            stream.reconfigure(errors="backslashreplace")


def _install_signal_handlers() -> None:
    def stop(number: int, _: FrameType | None) -> None:
        raise _Stopped(signal.Signals(number))

    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # nohup stays nohup
            signal.signal(number, stop)


def _flush_or_leave() -> None:
    try:
        sys.stdout.flush()
    except (BrokenPipeError, ValueError):
        _leave_quietly()
    except OSError as error:  # the answer is lost, and a script must not take that for success
        _say(_as_storage_error(error))
        _leave_quietly(StorageError.exit_status)


def _leave_quietly(status: int = 0) -> NoReturn:
    """Exit without Python's complaint about a stdout that nobody reads."""
    devnull = os.open(os.devnull, os.O_WRONLY)
    os.dup2(devnull, 1)
    sys.exit(status)


if __name__ == "__main__":
    main()
