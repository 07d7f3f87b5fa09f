"""Which builds running servers need."""

from llama_mgr.paths import Home


def running_builds(home: Home) -> dict[str, list[str]]:
    """Return build id to the names of the servers that run it now."""
    from llama_mgr.serving.child_server import running_servers

    found: dict[str, list[str]] = {}
    for server in running_servers(home):
        found.setdefault(server.build_id, []).append(server.name)
    return found
