"""The Python environment of an instance's converter: made at install, or whenever it is missing."""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from llama_mgr.cli.context import Context
from llama_mgr.errors import LlamaMgrError

if TYPE_CHECKING:
    from llama_mgr.build.record import BuildRecord
    from llama_mgr.instances.health import Problem
    from llama_mgr.instances.instance import Instance
    from llama_mgr.make.python_env import Environment, Environments, Requirements


def environments_of(context: Context, uv: Path = Path("uv")) -> "Environments":
    """Return the environments of the home; only making one runs `uv`."""
    from llama_mgr.make.python_env import Environments

    return Environments(context.home, uv, context.environ, context.reporter)


def ensure_environment(context: Context, build: "BuildRecord") -> "Environment":
    """Return the environment in which the converter of `build` runs, made now unless an equal one exists.

    Raises:
        RemoteError: packages cannot be fetched.
        ChildFailedError: uv cannot make it.
    """
    from llama_mgr.build.toolchain import tool

    overrides = context.settings.build.tool_paths
    uv = tool("uv", context.environ, overrides)
    return environments_of(context, uv).ensure(_requirements_of(context, build))


def prepare_converter(context: Context, instance: "Instance") -> str | None:
    """Make the converter's environment for an instance that wants one; a failure is a warning, not an error.

    Returns:
        The environment's directory, or None.
    """
    from llama_mgr.instances.instance import Instances

    build = Instances(context.home).build_of(instance)
    if build.converter is None or not instance.current.wanted.python:
        return None
    try:
        return str(ensure_environment(context, build).path)
    except LlamaMgrError as error:
        context.reporter.warn(f"no converter environment yet: {error.message}")
        if error.hint is not None:
            context.reporter.note(error.hint)
        if build.converter_requirements is not None:
            context.reporter.note(f"`llama-mgr instance repair {instance.name}` tries again")
        return None


def missing_environment(context: Context, instance: "Instance") -> "Problem | None":
    """Return the remark that the converter of `instance` has no environment that works.

    It is no damage, because an environment can be made whenever it is needed.

    Returns:
        None when there is one, when none is wanted, and when nobody said whether one is.

    Raises:
        CorruptStateError: the instance's build is gone or damaged.
    """
    from llama_mgr.instances.health import Problem
    from llama_mgr.instances.instance import Instances

    if instance.linked is not None or not instance.current.wanted.python:
        return None
    build = Instances(context.home).build_of(instance)
    if build.converter_requirements is None:
        return None
    environments, requirements = environments_of(context), _requirements_of(context, build)
    if environments.find(requirements) is not None:
        return None
    what = f"the Python environment of the converter of '{instance.name}' is missing or does not work"
    place = str(environments.path_of(requirements))
    return Problem(what, place, f"llama-mgr instance repair {instance.name}", is_damage=False)


def missing_environments(context: Context) -> "list[Problem]":
    """Return the remarks of all instances; those whose build is damaged have greater problems."""
    from llama_mgr.instances.instance import Instances

    found = []
    for instance in Instances(context.home):
        with suppress(LlamaMgrError):
            found.append(missing_environment(context, instance))
    return [problem for problem in found if problem is not None]


def repair_environment(context: Context, instance: "Instance") -> str | None:
    """Make the environment that `missing_environment` misses; return what was done, in words, or None.

    Raises:
        LlamaMgrError: as `missing_environment` and `ensure_environment`.
    """
    from llama_mgr.instances.instance import Instances

    if missing_environment(context, instance) is None:
        return None
    environment = ensure_environment(context, Instances(context.home).build_of(instance))
    return f"made the converter's environment {environment.path.name}"


def _requirements_of(context: Context, build: "BuildRecord") -> "Requirements":
    from llama_mgr.make.python_env import read_requirements

    convert_dir = context.home.builds_dir / build.build_id / "convert"
    return read_requirements(convert_dir, build.converter_requirements)
