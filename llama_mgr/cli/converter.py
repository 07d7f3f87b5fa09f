"""Making the Python environment of a build's converter."""

from typing import TYPE_CHECKING

from llama_mgr.cli.context import Context

if TYPE_CHECKING:
    from llama_mgr.build.record import BuildRecord
    from llama_mgr.make.python_env import Environment


def ensure_environment(context: Context, build: "BuildRecord") -> "Environment":
    """Return the environment in which the converter of `build` runs, made now unless an equal one exists.

    Raises:
        RemoteError: packages cannot be fetched.
        ChildFailedError: uv cannot make it.
    """
    from pathlib import Path

    from llama_mgr.build.toolchain import tool
    from llama_mgr.make.python_env import Environments, read_requirements

    overrides = {name: Path(path) for name, path in context.settings.build.tools.items()}
    environments = Environments(context.home, tool("uv", context.environ, overrides), context.environ, context.reporter)
    convert_dir = context.home.builds_dir / build.build_id / "convert"
    return environments.ensure(read_requirements(convert_dir, build.converter_requirements))
