"""Directories with a llama.cpp in them, and which are the user's own, so that instances may be linked to them."""

from pathlib import Path

from llama_mgr.errors import NotFoundError, RefusedError
from llama_mgr.names import is_name
from llama_mgr.paths import Home


def programs(prefix: Path) -> list[Path]:
    """Return the llama.cpp programs in `prefix` or its `bin/`."""
    found = [path for place in (prefix / "bin", prefix) if place.is_dir() for path in place.iterdir()]
    return [
        path
        for path in found
        if path.is_file()
        and (path.name.startswith("llama") or "rpc-server" in path.name)
        and ".so" not in path.name
        and path.stat().st_mode & 0o111
    ]


def checked_own_build(directory: Path, home: Home) -> Path:
    """Return `directory`, absolute and without links, if it holds a llama.cpp and llama-mgr never deletes in it.

    Raises:
        NotFoundError: it holds no llama.cpp program.
        RefusedError: it, or a program of it, lies in our home.
    """
    found = programs(directory)
    if not any(is_name(program.name) for program in found):
        raise NotFoundError(
            "cannot link",
            directory,
            "there is no llama-server in it or in its bin/",
            hint="name the directory that holds llama-server",
        )
    root = home.root.resolve()
    if any(place.resolve().is_relative_to(root) for place in (directory, *found)):
        raise RefusedError(
            "cannot link",
            directory,
            f"it leads into {root}, where llama-mgr deletes what no instance needs",
            hint="`llama-mgr install NAME VERSION` gives a build of ours a second name; nothing is compiled",
        )
    return directory.resolve()
