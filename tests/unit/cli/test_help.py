"""What `--help` says of every command."""

from collections.abc import Iterator

import click
import pytest

from llama_mgr.cli.app import app


def commands(group: click.Group, words: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    for name in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), name)
        assert command is not None
        yield " ".join([*words, name]), command
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))


COMMANDS = dict(commands(app))


@pytest.mark.parametrize("name", COMMANDS)
def test_the_line_in_the_list_of_commands_is_a_whole_sentence(name: str) -> None:
    in_80_columns = 80 - 4 - max(len(words.split()[-1]) for words in COMMANDS)
    line = COMMANDS[name].get_short_help_str(in_80_columns)
    assert line.endswith("."), line
    assert not line.endswith("..."), line
