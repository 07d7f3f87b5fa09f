"""Running a program of an instance in our place."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NoReturn

from llama_mgr.build import use
from llama_mgr.build.record import Builds
from llama_mgr.errors import ChildFailedError, MissingToolsError
from llama_mgr.instances.instance import Instance, Instances
from llama_mgr.paths import Home
from llama_mgr.process import replace
from llama_mgr.report import Reporter


def become(
    home: Home,
    chosen: Callable[[], Instance],
    name: str,
    arguments: Sequence[str],
    environ: Mapping[str, str],
    reporter: Reporter,
) -> NoReturn:
    """Become a program of an instance; its build stays until that ends.

    Args:
        home: where builds lie.
        chosen: the instance; asked again when an update and a `gc` took the build away meanwhile.
        name: the program, or its canonical name.
        arguments: the program's.
        environ: the program's.
        reporter: hears that we wait for a deletion.

    Raises:
        UnknownToolError: the instance has no such program.
        IntegrityError: its build is gone or damaged.
        MissingToolsError: the program cannot be run, although the build is whole.
    """
    instance = _used_for_life(home, chosen, name, reporter)
    with damage_found(home, instance):
        replace([Instances(home).program(instance, name), *arguments], environ=environ)


@contextmanager
def damage_found(home: Home, instance: Instance) -> Iterator[None]:
    """When the body cannot run a program of `instance`, or that fails, see whether its build is damaged.

    Raises:
        IntegrityError: it is; `instance repair` makes it again.
    """
    try:
        yield
    except (MissingToolsError, ChildFailedError):
        if instance.linked is None:
            Instances(home).require_whole(instance, instance.current.build_id, by_hash=True)
        raise


def _used_for_life(home: Home, chosen: Callable[[], Instance], name: str, reporter: Reporter) -> Instance:
    """Return the instance, its build kept until this process, and what it becomes, has ended."""
    instance = chosen()
    if instance.linked is None:
        build_id = instance.current.build_id
        held = use.used_for_life(home, build_id, f"run {name}", reporter)
        if held is not None and not Builds(home).directory(build_id).is_dir():
            os.close(held)
            instance = chosen()
            if instance.linked is None:
                use.used_for_life(home, instance.current.build_id, f"run {name}", reporter)
    return instance
