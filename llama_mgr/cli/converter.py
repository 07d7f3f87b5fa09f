"""The Python environment of an instance's converter: made at install, or whenever it is missing."""

from pathlib import Path
from typing import TYPE_CHECKING

from llama_mgr.cli.context import Context
from llama_mgr.errors import CorruptStateError, LlamaMgrError

if TYPE_CHECKING:
    from llama_mgr.build.record import BuildRecord
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

    overrides = {name: Path(path) for name, path in context.settings.build.tools.items()}
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


def environment_damage(context: Context, instance: "Instance") -> LlamaMgrError | None:
    """Return the error for a converter without an environment that works; None when all is well, or none is wanted."""
    from llama_mgr.instances.instance import Instances

    if instance.linked is not None or not instance.current.wanted.python:
        return None
    build = Instances(context.home).build_of(instance)
    if build.converter_requirements is None or environments_of(context).find(_requirements_of(context, build)):
        return None
    why = "the Python environment of its converter is missing or damaged"
    return CorruptStateError(
        "cannot convert with", instance.name, why, hint=f"llama-mgr instance repair {instance.name}"
    )


def _requirements_of(context: Context, build: "BuildRecord") -> "Requirements":
    from llama_mgr.make.python_env import read_requirements

    convert_dir = context.home.builds_dir / build.build_id / "convert"
    return read_requirements(convert_dir, build.converter_requirements)
