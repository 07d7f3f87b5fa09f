"""How what is uploaded travels: short documents to the hub, files to where the hub says that they are stored."""

import io
import os
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llama_mgr.errors import HashMismatchError, RemoteError, UnknownRepositoryError
from llama_mgr.http_answer import is_worth_repeating
from llama_mgr.http_session import body_of, remote_errors
from llama_mgr.models.hub import Wire
from llama_mgr.report import Progress, SilentReporter
from llama_mgr.store import storage_errors
from llama_mgr.text import printable, size_words

if TYPE_CHECKING:
    from llama_mgr.http_session import Response, Session
    from llama_mgr.models.hub import Hub, Request

_SENT_BYTES = 64 * 1024  # each must get away within the time to connect: a slow line needs small ones
_ANSWER_LIMIT_BYTES = 16 * 1024 * 1024  # the addresses of 10,000 parts, as many as a storage takes, need half of it
_ANSWERS_LIMIT = 100
_ANSWER_STALLS = 4  # silences that an answer may take: putting parts together, or making a commit, is work
_IDENTITY = {"Accept-Encoding": "identity"}
_DOCUMENT_HEADERS = ("Accept", "Content-Type")
_KEPT_HEADERS = ("Content-Type", "ETag", "X-Error-Code", "X-Error-Message")

Answer = tuple[int, dict[str, str], bytes]


class Content(io.BufferedReader):
    """An open file that is to be uploaded; `progress` shows how far it was read.

    The library asks for its length and place, and reads it once for its sha256. It is no path, because the library
    would draw bars of its own for one, and hand it to hf-xet.

    Raises:
        StorageError: it cannot be opened, or read later.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with storage_errors("cannot read", path):
            super().__init__(path.open("rb", buffering=0))
        self.size_bytes = os.fstat(self.fileno()).st_size
        self._stamp = self._stamp_now()
        self.sent_bytes = 0
        with SilentReporter().progress("", None, "bytes") as progress:
            self.progress: Progress = progress

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next `size` bytes, fewer at the end."""
        with storage_errors("cannot read", self._path):
            data = super().read(size)
        self.progress.update(self.tell(), self.size_bytes)
        return data

    def require_unchanged(self) -> None:
        """Raise where the file was written to since it was opened.

        Raises:
            HashMismatchError: it was.
        """
        if self._stamp_now() != self._stamp:
            raise HashMismatchError("cannot upload", self._path.name, "somebody wrote to it meanwhile")

    def _stamp_now(self) -> tuple[int, int]:
        found = os.fstat(self.fileno())
        return found.st_size, found.st_mtime_ns


class _Part:
    """The `length` bytes of a content at `start`, as a request sends them: piece by piece, never all in memory."""

    def __init__(self, content: Content, start: int, length: int) -> None:
        self._content, self._start, self._length = content, start, length

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[bytes]:
        self._content.seek(self._start)
        left = self._length
        while left > 0:
            piece = self._content.read(min(_SENT_BYTES, left))
            if not piece:
                self._content.require_unchanged()
                return
            yield piece
            left -= len(piece)
            self._content.sent_bytes += len(piece)


class UploadWire(Wire):
    """How requests of an upload travel: within limits, by the rules for redirects, followed nowhere else.

    The login goes to the endpoint only. The places of files are chosen by the hub's answer, and have their permission
    in their address.

    Args:
        hub: whose client and login are used.
        session: of the hub's client, led from the endpoint.
        purpose: what it is for, as a verb: `upload model.gguf`.
        content: the file whose parts are sent, if one is.
    """

    def __init__(self, hub: "Hub", session: "Session", purpose: str, content: Content | None = None) -> None:
        super().__init__(hub, purpose)
        self._session, self._content = session, content
        self._answers = 0
        connect_s, self._stall_s = hub.client.timeouts_s
        self._timeouts_s = (connect_s, self._stall_s * _ANSWER_STALLS)

    def answer(self, request: "Request") -> Answer:
        """Return status, headers and body of the answer to a request of any kind."""
        if request.method == "GET":
            return super().answer(request)
        if request.method == "PUT":
            return self._put(str(request.url), int(request.headers["Content-Length"]))
        self._answers += 1
        if self._answers > _ANSWERS_LIMIT:
            raise self._trouble(f"the hub wants more than {_ANSWERS_LIMIT} requests, which is the limit")
        return self._post(request)

    def _post(self, request: "Request") -> Answer:
        """Send a document to where the library wants it, which is the hub."""
        url, document = str(request.url), request.read()
        headers = {name: request.headers[name] for name in _DOCUMENT_HEADERS if name in request.headers}
        headers |= {**_IDENTITY, **self.hub.headers(url)}

        def attempt() -> Answer:
            with (
                remote_errors(url),
                self._session.post(
                    url, data=document, headers=headers, stream=True, allow_redirects=False, timeout=self._timeouts_s
                ) as response,
            ):
                return self._read(response)

        answer = self._sent(url, attempt)
        self.require_few_parts(answer[2])
        return answer

    def _put(self, url: str, length: int) -> Answer:
        """Send the part of the file that begins where the library left it."""
        content = self._content
        if content is None:
            raise self._trouble("the hub wants a file that there is not")
        part = _Part(content, content.tell(), length)

        def attempt() -> Answer:
            with (
                remote_errors(url),
                self._session.put(
                    url, data=part, headers=_IDENTITY, stream=True, allow_redirects=False, timeout=self._timeouts_s
                ) as response,
            ):
                return self._read(response)

        status, headers, _ = self._sent(url, attempt)
        content.require_unchanged()
        if status >= HTTPStatus.BAD_REQUEST:
            host = printable(urlsplit(url).hostname)
            raise self._trouble(f"{host}, where it is to be stored, answered {status}", "run the same command again")
        return status, headers, b""

    def _sent(self, url: str, attempt: Callable[[], Answer]) -> Answer:
        status, headers, body = self.hub.client.retrying(self.purpose, attempt)
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            host = printable(urlsplit(url).hostname)
            why, hint = f"{host} sends on to another address", "if the repository was renamed, use its new name"
            raise UnknownRepositoryError(f"cannot {printable(self.purpose)}", None, why, hint=hint)
        return status, headers, body

    def _read(self, response: "Response") -> Answer:
        if is_worth_repeating(response):
            response.raise_for_status()
        body = bytearray()
        for chunk in body_of(response, self._stall_s):
            body += chunk
            if len(body) > _ANSWER_LIMIT_BYTES:
                raise self._trouble(f"an answer is longer than the limit of {size_words(_ANSWER_LIMIT_BYTES)}")
        kept = {name: response.headers[name] for name in _KEPT_HEADERS if name in response.headers}
        return response.status_code, kept, bytes(body)

    def _trouble(self, why: str, hint: str | None = None) -> RemoteError:
        return RemoteError(f"cannot {printable(self.purpose)}", None, why, hint=hint)
