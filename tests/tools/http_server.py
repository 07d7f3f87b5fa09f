"""What the HTTP servers of tests share."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import HTTPServer
from typing import TypeVar

Server = TypeVar("Server", bound=HTTPServer)


class Quiet:
    """Keeps a request handler from writing every request to stderr; stands before `BaseHTTPRequestHandler`."""

    def log_message(self, *_words: object) -> None:
        pass


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Answer requests in a thread until the block ends; afterwards the port is closed."""
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    with server:
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
