"""Running a program of an instance in our place."""

import os
from collections.abc import Callable
from pathlib import Path

from llama_mgr.build import use
from llama_mgr.build.record import Builds
from llama_mgr.instances.instance import Instance, Instances
from llama_mgr.paths import Home
from llama_mgr.report import Reporter


def program_for_life(home: Home, chosen: Callable[[], Instance], name: str, reporter: Reporter) -> Path:
    """Return the absolute path of a program, whose build stays until this process, and what it becomes, has ended.

    Args:
        home: where builds lie.
        chosen: the instance; asked again when an update and a `gc` took the build away meanwhile.
        name: the program, or its canonical name.
        reporter: hears that we wait for a deletion.

    Raises:
        UnknownToolError: the instance has no such program.
        CorruptStateError: its build is gone or damaged.
    """
    instance = chosen()
    if instance.linked is None:
        build_id = instance.current.build_id
        held = use.used_for_life(home, build_id, f"run {name}", reporter)
        if held is not None and not Builds(home).directory(build_id).is_dir():
            os.close(held)
            instance = chosen()
            if instance.linked is None:
                use.used_for_life(home, instance.current.build_id, f"run {name}", reporter)
    return Instances(home).program(instance, name)
