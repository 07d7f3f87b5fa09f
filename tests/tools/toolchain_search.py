"""A search for the tools that one recipe asks for, on the example host."""

from pathlib import Path

from llama_mgr.build.toolchain import Toolchain, find_toolchain
from tests.tools.build_examples import HOST, recipe

NVCC = """
[[tool]]
name = "nvcc"
find = ["path:nvcc"]
version-pattern = 'release (\\d+\\.\\d+)'
[[tool.facts]]
name = "cuda.root"
parent = 2
[[tool.facts]]
name = "cuda.gcc-max"
file = "{cuda.root}/include/crt/host_config.h"
pattern = 'gcc versions later than (\\d+) are not supported'
"""


def found(toml: str, environ: dict[str, str], **options: object) -> Toolchain:
    """What a recipe of this text finds; `options` are the paths of `build.tools` in the user's configuration."""
    overrides = {name: Path(str(path)) for name, path in options.items()}
    return find_toolchain([recipe(toml)], None, HOST, environ, overrides)


def missing(toolchain: Toolchain) -> dict[str, str]:
    """What is missing, and why."""
    return {one.name: one.why for one in toolchain.missing}
