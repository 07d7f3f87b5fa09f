"""`llama-mgr instance lock` and `sync`: a directory of manifests, and the machine that follows it."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context, common_options, examples, pass_context
from llama_mgr.cli.parallel import parallel_option
from llama_mgr.errors import BadInputError, InterruptedByUserError, LlamaMgrError, OutOfDateError

if TYPE_CHECKING:
    from llama_mgr.instances.installation import Installer
    from llama_mgr.instances.manifest import ManifestFile
    from llama_mgr.instances.sync import Done, Step

_directory = click.argument("directory", metavar="[DIR]", required=False, type=click.Path(path_type=Path))


@click.command(
    epilog=examples("llama-mgr instance lock", "llama-mgr instance lock team/   # then commit team/llama-mgr.lock")
)
@_directory
@common_options
@pass_context
def lock(context: Context, directory: Path | None) -> None:
    """Write the commit of every manifest into DIR/llama-mgr.lock.

    DIR is ./instances if that exists, else the working directory. `instance sync --locked` uses exactly these commits.
    """
    import msgspec

    from llama_mgr.instances.lock import LOCK_NAME, write_lock

    place, files = _manifests(context, directory)
    locked = write_lock(place, files, _installer(context), context.settings)

    def show(output: Output) -> None:
        output.table(
            ("name", "version", "commit", "from"),
            [(one.name, one.version, one.commit[:21], one.location) for one in locked.instances],
        )
        output.line(f"written to {place / LOCK_NAME}")

    context.answer({"file": str(place / LOCK_NAME), **msgspec.to_builtins(locked)}, show)


@click.command(
    epilog=examples(
        "llama-mgr instance sync                    # make what ./instances/*.toml says",
        "llama-mgr instance sync team/ --locked --prune -y",
        "llama-mgr instance sync --check            # status 4 if something differs; nothing is installed",
    )
)
@_directory
@click.option("--prune", is_flag=True, help="Uninstall the instances that no manifest lists.")
@click.option("--locked", is_flag=True, help="Use exactly the commits in DIR/llama-mgr.lock.")
@click.option("--check", is_flag=True, help="Install nothing; end with status 4 if something differs.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask before uninstalling.")
@parallel_option
@common_options
@pass_context
def sync(context: Context, /, directory: Path | None, **options: Any) -> None:  # noqa: ANN401 (click hands options by name)
    """Make this machine equal to the manifests in DIR.

    What is equal stays as it is, but a converter's Python environment that is missing is made. A manifest that cannot
    be installed does not stop the others; nothing is uninstalled then. DIR is ./instances if that exists, else the
    working directory.
    """
    from functools import partial

    from llama_mgr.cli.converter import prepare_converter
    from llama_mgr.instances.lock import read_lock
    from llama_mgr.instances.sync import Sync

    place, files = _manifests(context, directory)
    installer = _installer(context)
    machine = Sync(installer, context.settings, read_lock(place) if options["locked"] else None)
    steps = machine.steps(files, prune=options["prune"])
    if options["check"]:
        _answer_check(context, steps, _command(directory, options))
        return
    surplus = [step for step in steps if step.state == "surplus"]
    _confirm(surplus, yes=options["yes"])

    after = partial(prepare_converter, context)
    done = [machine.install(step, options["parallel"], after) for step in steps if step.state != "surplus"]
    done += _pruned(context, machine, surplus, done)
    _answer_done(context, done)


def _manifests(context: Context, directory: Path | None) -> "tuple[Path, list[ManifestFile]]":
    from llama_mgr.instances.manifest import default_directory, read_manifests

    place = directory or default_directory(Path.cwd())
    files = read_manifests(place)
    for file in files:
        context.require_usable(*file.manifest.settings_used(context.settings))
    return place, files


def _installer(context: Context) -> "Installer":
    from llama_mgr.instances.installation import Installer

    return Installer(context.home, context.settings, context.environ, context.reporter)


def _confirm(surplus: "list[Step]", *, yes: bool) -> None:
    if not surplus or yes:
        return
    names = ", ".join(step.name for step in surplus)
    if not sys.stdin.isatty():
        raise BadInputError("cannot ask whether to uninstall", names, "there is no terminal", hint="say yes with --yes")
    if not click.confirm(f"Uninstall {names}, which no manifest lists?", err=True):
        raise InterruptedByUserError("nothing was changed")


def _pruned(context: Context, machine: Any, surplus: "list[Step]", done: "list[Done]") -> "list[Done]":  # noqa: ANN401 (Sync is imported late)
    from functools import partial

    from llama_mgr.cli.running import running_builds

    if surplus and any(one.error for one in done):
        context.reporter.warn("nothing is uninstalled, because not everything could be installed")
        return []
    return [machine.remove(step, partial(running_builds, context.home)) for step in surplus]


def _command(directory: Path | None, options: dict[str, Any]) -> str:
    """Return the command that makes what `--check` compared."""
    from llama_mgr.process import argv_words

    flags = [f"--{flag}" for flag in ("prune", "locked") if options[flag]]
    return argv_words(["llama-mgr", "instance", "sync", *([directory] if directory else []), *flags])


def _answer_check(context: Context, steps: "list[Step]", command: str) -> None:
    different = [step for step in steps if step.state != "equal"]
    rows = [{"name": step.name, "state": step.state, "why": step.why} for step in steps]
    names = ", ".join(step.name for step in different)
    error = OutOfDateError("this machine differs from the manifests", names, hint=command) if different else None
    _answer_rows(context, "instances", ("name", "state", "why"), rows, error)


def _answer_done(context: Context, done: "list[Done]") -> None:
    rows: list[dict[str, Any]] = [{"name": one.name, "action": one.action, "why": one.words} for one in done]
    errors = [one.error for one in done if one.error is not None]
    for row, one in zip(rows, done, strict=True):
        if one.error is not None:
            row["error"] = one.error.as_document()["error"]
    _answer_rows(context, "instances", ("name", "action", "why"), rows, errors[0] if errors else None)


def _answer_rows(
    context: Context, key: str, columns: tuple[str, ...], rows: list[dict[str, Any]], error: LlamaMgrError | None
) -> None:
    """Print the rows, then end with the status of `error`; with --json both are one document."""
    cells = [tuple(row[one] for one in columns) for row in rows]
    context.answer({key: rows}, lambda output: output.table(columns, cells), error)
