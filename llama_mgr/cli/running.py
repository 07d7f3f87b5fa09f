"""Which builds and model files running servers need."""

from pathlib import Path
from typing import TYPE_CHECKING

from llama_mgr.paths import Home

if TYPE_CHECKING:
    from llama_mgr.serving.server_record import RunningServer


def running_builds(home: Home) -> dict[str, list[str]]:
    """Return build id to the servers that run it now, in words."""
    from llama_mgr.serving.server_record import running_servers

    found: dict[str, list[str]] = {}
    for server in running_servers(home):
        found.setdefault(server.build_id, []).append(_words(server))
    return found


def running_models(home: Home) -> dict[Path, list[str]]:
    """Return the resolved path of each model file that a server was started with to those servers, in words."""
    from llama_mgr.models.roots import real_path
    from llama_mgr.serving.server_record import running_servers

    found: dict[Path, list[str]] = {}
    for server in running_servers(home):
        if server.model:
            found.setdefault(real_path(Path(server.model)), []).append(_words(server))
    return found


def _words(server: "RunningServer") -> str:
    pid = f" (pid {server.pid})" if server.pid else ""
    return f"the server '{server.name}'{pid}"
