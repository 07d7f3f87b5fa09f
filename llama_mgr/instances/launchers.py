"""Launchers: small scripts on the user's PATH that start the current instance's programs."""

import shlex
import sys
from pathlib import Path

from llama_mgr import store
from llama_mgr.errors import UnknownInstanceError
from llama_mgr.instances.instance import Instances
from llama_mgr.instances.own_build import programs
from llama_mgr.paths import Home, join_below

_SIGN = "# Written by `llama-mgr shims`; changes are lost."


def write_launchers(home: Home) -> list[str]:
    """Write a launcher for every program that any instance has, remove those that none has; return the names.

    On disk afterwards: `bin/<program>` (0755) for each. Files there that are not launchers of ours stay as they are.

    Raises:
        UnknownInstanceError: there is no instance yet.
    """
    instances = Instances(home)
    if not instances.names():
        raise UnknownInstanceError("there is no instance yet", hint="make one with `llama-mgr install`")
    wanted = {path.name for instance in instances for path in programs(instances.prefix(instance))}
    launchers = {name: join_below(home.launchers_dir, name) for name in sorted(wanted)}
    written = [name for name, path in launchers.items() if not path.exists() or _is_ours(path)]
    for name in written:
        store.write_bytes(launchers[name], _script(home, name).encode(), mode=0o755)
    for stale in home.launchers_dir.iterdir() if home.launchers_dir.is_dir() else ():
        if stale.name not in wanted and _is_ours(stale):
            stale.unlink()
    return written


def _is_ours(path: Path) -> bool:
    return path.is_file() and _SIGN in path.read_text("utf-8", "replace")


def _script(home: Home, program: str) -> str:
    command = shlex.join([sys.executable, "-P", "-m", "llama_mgr", "exec", program, "--"])
    return f'#!/bin/sh\n{_SIGN}\nLLAMA_MGR_HOME={shlex.quote(str(home.root))} exec {command} "$@"\n'
