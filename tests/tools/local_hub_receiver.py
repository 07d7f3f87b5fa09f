"""The side of a `LocalHub` that is sent something, over the wire: who may send it, how it comes, where it goes."""

import json
from collections.abc import Iterator
from email.message import Message
from io import BufferedIOBase
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.tools import local_hub_upload
from tests.tools.local_hub_answer import Answer, RefusalError, json_answer
from tests.tools.local_hub_faults import Fault, Seen

if TYPE_CHECKING:
    from tests.tools.local_hub_repo import LocalRepo

_CHUNK_BYTES = 64 * 1024


class Receiver:
    """What the hub's handler does with POST and PUT; stands before `BaseHTTPRequestHandler`."""

    server: Any
    path: str
    command: str
    headers: Message
    rfile: BufferedIOBase
    close_connection: bool

    if TYPE_CHECKING:

        def _token(self) -> str | None: ...
        def _visible(self, name: str) -> "LocalRepo": ...
        def _send(self, answer: Answer, fault: Fault | None) -> None: ...
        def _paced(self, chunks: Iterator[bytes], fault: Fault | None) -> Iterator[bytes]: ...

    def receive(self) -> None:
        """Take one request with a body, and answer it."""
        hub, parts = self.server.hub, urlsplit(self.path)
        seen = Seen(self.server.origin, self.command, self.path, dict(self.headers.items()))
        fault = hub.fault_for(seen)
        if fault and fault.befall(self, hub.closing):
            self.close_connection = True
            return
        chunks = self._sent_chunks(fault)
        try:
            answer = Answer(0, {})
            if (
                self.server.origin == "hub" or fault is None or fault.status is None
            ):  # a storage that fails keeps nothing
                answer = self._taken(unquote(parts.path), parse_qs(parts.query), chunks)
        except RefusalError as refusal:
            answer = refusal.answer
        for _ in chunks:
            pass  # a client that still sends would not read the answer
        if fault:
            fault.change(answer)
        seen.status = answer.status
        self._send(answer, None)

    def _sent_chunks(self, fault: Fault | None) -> Iterator[bytes]:
        """Yield what the client sends, as slowly as storage is; `cut_after` and `stall_after` count these bytes."""
        left = int(self.headers.get("Content-Length", "0"))
        yield from self._paced(self._read_chunks(left), fault)

    def _read_chunks(self, left: int) -> Iterator[bytes]:
        while left > 0:
            chunk = self.rfile.read(min(left, _CHUNK_BYTES))
            if not chunk:
                raise ConnectionAbortedError
            left -= len(chunk)
            yield chunk

    def _taken(self, path: str, query: dict[str, list[str]], chunks: Iterator[bytes]) -> Answer:
        hub = self.server.hub
        if self.server.origin == "storage":
            etag = hub.store.take(query.get("X-Signature", [""])[0], chunks)
            return Answer(200, {"ETag": etag})
        body = b"".join(chunks)
        self._require_writer()
        words = path.strip("/").split("/")
        if words[:2] == ["api", "models"] and words[4:5] == ["commit"]:
            repo = self._visible("/".join(words[2:4]))
            return json_answer(local_hub_upload.commit(hub, repo, local_hub_upload.lines_of(body)))
        return json_answer(self._document(words, json.loads(body)))

    def _document(self, words: list[str], wanted: local_hub_upload.Document) -> local_hub_upload.Document:
        hub = self.server.hub
        if words == ["api", "repos", "create"]:
            return local_hub_upload.create(hub, wanted)
        if words == ["api", "validate-yaml"]:
            return local_hub_upload.check_card(wanted)
        if words[:2] == ["api", "models"] and words[4:5] == ["preupload"]:
            return local_hub_upload.upload_modes(hub, self._visible("/".join(words[2:4])), wanted)
        if words[2:] == ["info", "lfs", "objects", "batch"]:
            self._visible("/".join(words[:2]).removesuffix(".git"))
            return local_hub_upload.batch(hub, wanted)
        if words == ["lfs", "verify"]:
            hub.store.verify(wanted["oid"], wanted["size"])
            return {}
        if words[:2] == ["lfs", "complete"] and words[2] == wanted["oid"]:
            hub.store.put_together(wanted["oid"], wanted["parts"])
            return {}
        raise RefusalError(404)

    def _require_writer(self) -> None:
        hub, token = self.server.hub, self._token()
        if token not in hub.tokens:
            raise RefusalError(401, "Invalid credentials in Authorization header")
        if token in hub.readers:
            raise RefusalError(403, "You don't have the required permissions to perform this action.")
