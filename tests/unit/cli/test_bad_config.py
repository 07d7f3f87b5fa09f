"""Bad inputs 39-49: config.toml.

Row 48: there is no older schema yet, so a missing one counts as the first, and others are refused.
"""

import json
import os
from collections.abc import Callable

import pytest

from tests.tools.bad_input import ROOT_ONLY, Case, World, assert_refused, case

CHECK = ("config", "show")


def wrote(content: str | bytes) -> Callable[[World], None]:
    def before(world: World) -> None:
        raw = content.encode() if isinstance(content, str) else content
        world.config.write_bytes(raw.replace(b"HOME", str(world.home.root).encode()))

    return before


def config_is_a_directory(world: World) -> None:
    world.config.mkdir()


def config_is_a_fifo(world: World) -> None:
    os.mkfifo(world.config)


def config_is_endless(world: World) -> None:
    world.config.symlink_to("/dev/zero")


def config_is_huge(world: World) -> None:
    with world.config.open("wb") as file:
        file.truncate(1 << 30)


def config_is_a_loop(world: World) -> None:
    world.config.symlink_to("config.toml")


def models_dir(kind: str) -> Callable[[World], None]:
    def before(world: World) -> None:
        directory = world.root / "models"
        directory.mkdir()
        if kind == "open":
            directory.chmod(0o777)
        else:
            os.chown(directory, 65534, 65534)
        world.config.write_text(f'models-dir = "{directory}"\n')

    return before


CONFIG = [
    case(39, "syntax", *CHECK, status=2, says=("config.toml:2:", "parallel ="), before=wrote("[build]\nparallel = \n")),
    case(40, "nul", *CHECK, status=2, says="UTF-8", before=wrote(b'default-arch = "c\0pu"\n')),
    case(40, "utf-16", *CHECK, status=2, says="UTF-8", before=wrote('default-arch = "cpu"\n'.encode("utf-16"))),
    case(40, "byte-order-mark", *CHECK, status=2, says="UTF-8", before=wrote(b'\xef\xbb\xbfdefault-arch = "cpu"\n')),
    case(40, "latin-1", *CHECK, status=2, says="UTF-8", before=wrote('default-arch = "é"\n'.encode("latin-1"))),
    case(41, "key", *CHECK,
         status=2, says=("build.cmake-arg'", "'cmake-args'"), before=wrote("[build]\ncmake-arg = []\n")),
    case(41, "key-with-escape", *CHECK, status=2, says="\\x1b", before=wrote('"\\u001b[31m" = 1\n')),
    case(42, "number", *CHECK,
         status=2, says=("build.parallel", "found '4'"), before=wrote('[build]\nparallel = "4"\n')),
    case(42, "list", *CHECK, status=2, says="build.cmake-args", before=wrote('[build]\ncmake-args = "-DA=1"\n')),
    case(42, "zero", *CHECK, status=2, says="build.parallel", before=wrote("[build]\nparallel = 0\n")),
    *[
        case(43, f"cmake-switch-{number}", *CHECK, status=2, says="only -DNAME=VALUE",
             before=wrote(f"[build]\ncmake-args = {json.dumps(arguments)}\n"))
        for number, arguments in enumerate((["-C evil.cmake"], ["-P", "evil.cmake"], ["; touch canary"], ["-DA B=1"]))
    ],
    *[
        case(44, name, *CHECK, status=11, says="models-dir", before=wrote(f'models-dir = "{place}"\n'))
        for name, place in (
            ("root", "/"), ("etc", "/etc"), ("tilde", "~root"), ("home", "HOME"), ("builds", "HOME/builds/x"),
            ("etc-in-disguise", "/usr/../etc"),
        )
    ],
    case(45, "open", *CHECK, status=11, says="chmod o-w", before=models_dir("open")),
    case(45, "stranger", *CHECK, status=11, says="chown", before=models_dir("stranger"), marks=(ROOT_ONLY,)),
    case(46, "directory", *CHECK, status=10, says="config.toml", before=config_is_a_directory),
    case(46, "fifo", *CHECK, status=10, says="not a regular file", before=config_is_a_fifo),
    case(46, "endless", *CHECK, status=10, says="not a regular file", before=config_is_endless),
    case(46, "huge", *CHECK, status=10, says="limit", before=config_is_huge),
    case(46, "loop", *CHECK, status=10, says="config.toml", before=config_is_a_loop),
    case(47, "newer", *CHECK, status=12, says="upgrade llama-mgr", before=wrote("schema = 99\n")),
    case(48, "word", *CHECK, status=2, says="schema", before=wrote('schema = "x"\n')),
    case(48, "negative", *CHECK, status=2, says="schema", before=wrote("schema = -1\n")),
    case(49, "no-such-file", "--config", "ROOT/missing.toml", *CHECK, status=2, says="config init"),
]  # fmt: skip


@pytest.mark.parametrize("one", [one.parameter for one in CONFIG])
def test_refused(world: World, one: Case) -> None:
    assert_refused(world, one)
