"""Which builds running servers need."""

from llama_mgr.paths import Home


def running_builds(home: Home) -> dict[str, list[str]]:
    """Return build id to the servers that run it now, in words."""
    from llama_mgr.serving.child_server import running_servers

    found: dict[str, list[str]] = {}
    for server in running_servers(home):
        pid = f" (pid {server.pid})" if server.pid else ""
        found.setdefault(server.build_id, []).append(f"the server '{server.name}'{pid}")
    return found
