"""Values that tests of the room `build` start from."""

from typing import Any

import msgspec

from llama_mgr.build.host import Host
from llama_mgr.build.recipe import Convert, Recipe, Verify
from llama_mgr.build.resolve import Resolved
from llama_mgr.toml_file import parsed_toml

GIB = 1024**3
HOST = Host("linux", "x86_64", "cpu", "0" * 16, 8, 32 * GIB, 16 * GIB, "debian", "apt")
RESOLVED = Resolved(
    recipe="cuda",
    parts=(),
    defines={},
    environ={},
    targets={},
    verify=Verify(),
    failures=[],
    convert=Convert(),
    patch_build_info=None,
    job_memory_mib=3072,
    disk_mib=1,
    device_prefix="CUDA",
)


def recipe(toml: str = "", name: str = "example", **changes: Any) -> Recipe:  # noqa: ANN401
    """The recipe of a file with this text, below its name and title."""
    parsed = parsed_toml(f'name = "{name}"\ntitle = "Example"\n{toml}'.encode(), f"{name}.toml", Recipe)
    return msgspec.structs.replace(parsed, **changes)
