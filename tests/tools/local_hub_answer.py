"""What a `LocalHub` says."""

import json
from dataclasses import dataclass

from tests.tools.local_hub_repo import LocalFile


@dataclass
class Answer:
    """What the hub is about to say."""

    status: int
    headers: dict[str, str]
    body: bytes | LocalFile = b""
    start: int = 0

    @property
    def length(self) -> int:
        return len(self.body) - self.start if isinstance(self.body, bytes) else self.body.size_bytes - self.start


class RefusalError(Exception):
    """The answer that ends the work on a request."""

    def __init__(self, status: int, message: str = "Not found", code: str | None = None, **more: object) -> None:
        super().__init__(message)
        self.answer = json_answer({"error": message, **more})
        self.answer.status = status
        self.answer.headers |= {"X-Error-Message": message, **({"X-Error-Code": code} if code else {})}


def json_answer(document: object) -> Answer:
    """Return a document as an answer."""
    return Answer(200, {"Content-Type": "application/json; charset=utf-8"}, json.dumps(document).encode())
