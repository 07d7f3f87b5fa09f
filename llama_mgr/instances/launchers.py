"""Launchers: small scripts on the user's PATH that start the current instance's programs."""

import shlex
import sys

from llama_mgr import store
from llama_mgr.build.record import Builds
from llama_mgr.errors import UnknownInstanceError
from llama_mgr.instances.instance import Instances
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
    builds = Builds(home)
    wanted = {
        program
        for instance in instances
        if instance.linked is None
        for program in builds.find(instance.current.build_id).programs.values()
    }
    for name in sorted(wanted):
        store.write_bytes(join_below(home.launchers_dir, name), _script(home, name).encode(), mode=0o755)
    for stale in home.launchers_dir.iterdir():
        if stale.name not in wanted and stale.is_file() and _SIGN in stale.read_text("utf-8", "replace"):
            stale.unlink()
    return sorted(wanted)


def _script(home: Home, program: str) -> str:
    command = shlex.join([sys.executable, "-m", "llama_mgr", "exec", program, "--"])
    return f'#!/bin/sh\n{_SIGN}\nLLAMA_MGR_HOME={shlex.quote(str(home.root))} exec {command} "$@"\n'
