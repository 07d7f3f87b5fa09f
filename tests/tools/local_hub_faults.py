"""What can go wrong between a `LocalHub` and its client."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.tools.local_hub import Answer
    from tests.tools.local_hub_repo import LocalFile


@dataclass
class Seen:
    """A request that came: to which origin (`hub` or `storage`), and with which headers."""

    origin: str
    method: str
    path: str
    headers: dict[str, str]
    status: int = 0

    def header(self, name: str) -> str | None:
        """Return a header, whatever its letter case."""
        return next((value for known, value in self.headers.items() if known.lower() == name.lower()), None)


@dataclass(frozen=True)
class Fault:
    """One trouble. `hang_up` to `raw` come instead of an answer, `status` and `body` replace it, the rest change it."""

    hang_up: bool = False
    """The connection is closed without a word."""
    reset: bool = False
    """The connection is reset."""
    silence: bool = False
    """No answer comes."""
    raw: bytes | None = None
    """Bytes that are sent as they are; then the connection is closed."""
    raw_byte_s: float = 0.0
    """How long each of them takes."""
    status: int | None = None
    body: "bytes | LocalFile | None" = None
    headers: dict[str, str] = field(default_factory=dict)
    """More headers, and others than the right ones; an empty value takes a header away."""
    ignore_range: bool = False
    """The whole file comes, whatever was asked for."""
    edit: Callable[[bytes], bytes] | None = None
    """What becomes of each chunk of the body; the length that is announced stays."""
    chunked: bool = False
    """No length is announced."""
    cut_after: int | None = None
    """The connection is closed after so many bytes of the body."""
    stall_after: int | None = None
    """Nothing comes after so many bytes of the body, and the connection stays open."""
    drip_after: int | None = None
    """After so many bytes of the body, one byte comes every `drip_s` seconds."""
    drip_s: float = 0.05

    def befall(self, handler: BaseHTTPRequestHandler, closing: threading.Event) -> bool:
        """Do what comes instead of an answer; tell whether that was all."""
        if not (self.hang_up or self.reset or self.silence or self.raw is not None):
            return False
        handler.close_connection = True
        if self.silence:
            closing.wait(60)
        for value in self.raw or b"" if self.raw_byte_s else ():
            handler.wfile.write(bytes([value]))
            if closing.wait(self.raw_byte_s):
                return True
        if not self.raw_byte_s:
            handler.wfile.write(self.raw or b"")
        if self.reset:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()
        return True

    def change(self, answer: "Answer") -> None:
        """Change what is about to be said."""
        if self.ignore_range and answer.status == 206 and not isinstance(answer.body, bytes):
            answer.status, answer.body = 200, answer.body.part(0, None)  # type: ignore[arg-type]
            del answer.headers["Content-Range"]
        if self.status is not None or self.body is not None:
            answer.status, answer.body = self.status or answer.status, self.body or b""
            answer.headers.pop("Content-Range", None)
        merged = {**answer.headers, **self.headers}
        answer.headers.clear()
        answer.headers.update({name: value for name, value in merged.items() if value})

    def stream(
        self, handler: BaseHTTPRequestHandler, chunks: Iterator[bytes], closing: threading.Event
    ) -> Iterator[bytes]:
        """Yield the body as the trouble lets it through."""
        done = 0
        limits = [limit for limit in (self.cut_after, self.stall_after, self.drip_after) if limit is not None]
        limit = min(limits, default=None)
        for whole in chunks:
            chunk = self.edit(whole) if self.edit else whole
            if limit is None or done + len(chunk) <= limit:
                yield chunk
                done += len(chunk)
                continue
            yield chunk[: limit - done]
            if self.drip_after is not None:
                for value in chunk[limit - done :]:
                    if closing.wait(self.drip_s):
                        return
                    yield bytes([value])
                done, limit = done + len(chunk), done + len(chunk)
                continue
            handler.close_connection = True
            handler.wfile.flush()
            if self.stall_after is not None:
                closing.wait(60)
            raise ConnectionAbortedError  # no end mark for chunked bodies


@dataclass
class Fitting:
    """A fault, and which requests it befalls."""

    fault: Fault
    origin: str
    part: str
    skip: int
    times: int | None

    def takes(self, seen: Seen) -> bool:
        """Tell whether this request has the fault; count it."""
        if seen.origin != self.origin or self.part not in seen.path:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        if self.times is None:
            return True
        self.times -= 1
        return self.times >= 0
