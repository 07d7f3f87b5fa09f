"""A real llama-server of an instance, for as long as a test asks it something."""

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import Cli

_READY_WITHIN_S = 120


class RealServer:
    """Where it listens."""

    def __init__(self, url: str) -> None:
        self.url = url

    def post(self, path: str, body: dict[str, Any]) -> Any:  # noqa: ANN401
        request = urllib.request.Request(  # noqa: S310
            f"{self.url}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=120) as response:  # noqa: S310
            return json.load(response)

    def chat(self, question: str) -> str:
        """Return the answer to one question, always the same."""
        messages = [{"role": "user", "content": question}]
        answer = self.post(
            "/v1/chat/completions", {"messages": messages, "temperature": 0, "seed": 1, "max_tokens": 40}
        )
        content: str = answer["choices"][0]["message"]["content"]
        return content

    def embedding(self, text: str) -> list[float]:
        answer = self.post("/v1/embeddings", {"input": text})
        vector: list[float] = answer["data"][0]["embedding"]
        return vector

    def is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as response:  # noqa: S310
                return bool(response.status == 200)
        except (urllib.error.URLError, OSError):
            return False


@contextmanager
def real_server(cli: Cli, model: Path, *words: str, instance: str = "new") -> Iterator[RealServer]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = ["-m", str(model), "--host", "127.0.0.1", "--port", str(port), "-c", "2048", *words]
    child = subprocess.Popen(
        cli.argv("exec", "-i", instance, "llama-server", "--", *arguments), env=dict(cli.environ), cwd=cli.cwd,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    server = RealServer(f"http://127.0.0.1:{port}")
    try:
        deadline = time.monotonic() + _READY_WITHIN_S
        while not server.is_ready():
            assert child.poll() is None, f"llama-server ended with {child.returncode}"
            assert time.monotonic() < deadline, "llama-server is not ready in time"
            time.sleep(0.1)
        yield server
    finally:
        child.terminate()
        child.wait(30)
