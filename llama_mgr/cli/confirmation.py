"""Asking before something is removed."""

import sys
from collections.abc import Iterable

import click

from llama_mgr.errors import BadInputError, InterruptedByUserError
from llama_mgr.text import printable


def confirm_removal(what: str, size: str, files: Iterable[object], *, yes: bool) -> None:
    """Show `files`, and ask whether to remove them; return when the user wants it.

    Args:
        what: to call them, printable.
        size: how much they are, in words.
        files: what goes: paths, or a line about several of them.
        yes: the user said so beforehand.

    Raises:
        BadInputError: there is nobody to ask.
        InterruptedByUserError: the user does not want it.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise BadInputError("cannot ask whether to remove", what, "there is no terminal", hint="say yes with -y")
    for file in files:
        click.echo(f"  {printable(file, 1000)}", err=True)
    if not click.confirm(f"Remove {what} ({size})?", err=True):
        raise InterruptedByUserError("nothing was removed")
