"""A Hugging Face hub on this machine, over real HTTP: repositories, revisions, gates, a second origin for big files.

It answers what `huggingface_hub` asks for, in the shapes of the public hub: `model_info`, the tree with its `Link`
pages, refs, search, `resolve` with its redirect to storage. What it does with uploads is in `local_hub_upload.py`, what
goes wrong on the way in `local_hub_faults.py`.
"""

import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

from tests.tools.http_server import Quiet, serving
from tests.tools.local_hub_answer import Answer, RefusalError, json_answer
from tests.tools.local_hub_faults import Fault, Fitting, Seen
from tests.tools.local_hub_receiver import Receiver
from tests.tools.local_hub_repo import LocalFile, LocalRepo
from tests.tools.local_hub_upload import Store

_CHUNK_BYTES = 64 * 1024
Content = bytes | Path


class LocalHub:
    """The hub; a context manager. `url` is its endpoint, `storage_url` the other origin, to which big files redirect.

    `requests` are all that came, in order; `served` counts the bytes of files that went out, by file name in the
    repository. `bytes_per_s` slows storage down. `page_entries` is how many entries a page of a listing has.
    """

    def __init__(self) -> None:
        self.repos: dict[str, LocalRepo] = {}
        self.tokens: set[str] = {"hf_good", "hf_reader"}
        self.readers: set[str] = {"hf_reader"}
        """Those of them that may not write."""
        self.requests: list[Seen] = []
        self.served: Counter[str] = Counter()
        self.bytes_per_s: int | None = None
        self.page_entries = 1000
        self.unknown_status = 401
        """What a repository that nobody has is answered with when no token came; the public hub says 401."""
        self.closing = threading.Event()
        self._fitting: list[Fitting] = []
        self._stack = ExitStack()
        self.lock = threading.Lock()

    def __enter__(self) -> Self:
        directory = self._stack.enter_context(tempfile.TemporaryDirectory(prefix="local-hub-"))
        self.store = Store(Path(directory))
        self._hub = self._stack.enter_context(serving(_Server(("127.0.0.1", 0), self, "hub")))
        self._storage = self._stack.enter_context(serving(_Server(("127.0.0.1", 0), self, "storage")))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.closing.set()
        self._stack.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._hub.server_address[1]}"

    @property
    def storage_url(self) -> str:
        return f"http://127.0.0.1:{self._storage.server_address[1]}"

    @property
    def environ(self) -> dict[str, str]:
        """The variables that make a program use this hub, and no token of this machine's user."""
        return {"HF_ENDPOINT": self.url, "HF_HOME": "/nonexistent/huggingface"}

    def add(self, name: str, files: Mapping[str, Content], **facts: object) -> LocalRepo:
        """Put a repository there; `facts` are fields of `LocalRepo`: `gated="manual"`, `private=True`, `license=…`."""
        repo = LocalRepo(name, **facts)  # type: ignore[arg-type]
        repo.commit(files)
        self.repos[name] = repo
        return repo

    def fault(
        self, fault: Fault, *, origin: str = "storage", part: str = "", skip: int = 0, times: int | None = None
    ) -> None:
        """From now on `fault` befalls requests to `origin` with `part` in their path: `times` of them, after `skip`."""
        self._fitting.append(Fitting(fault, origin, part, skip, times))

    def mend(self) -> None:
        """Forget all faults."""
        self._fitting.clear()

    def seen(self, origin: str | None = None, part: str = "") -> list[Seen]:
        """Return the requests to `origin` with `part` in their path."""
        with self.lock:
            return [one for one in self.requests if origin in {None, one.origin} and part in one.path]

    def fault_for(self, seen: Seen) -> Fault | None:
        with self.lock:
            self.requests.append(seen)
            for fitting in self._fitting:
                if fitting.takes(seen):
                    return fitting.fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], hub: LocalHub, origin: str) -> None:
        super().__init__(address, _Handler)
        self.hub = hub
        self.origin = origin

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients of these tests hang up whenever they like."""


class _Handler(Quiet, Receiver, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 60
    server: _Server

    def do_GET(self) -> None:
        hub, parts = self.server.hub, urlsplit(self.path)
        seen = Seen(self.server.origin, self.command, self.path, dict(self.headers.items()))
        fault = hub.fault_for(seen)
        if fault and fault.befall(self, hub.closing):
            return
        try:
            answer = self._answer(unquote(parts.path), parse_qs(parts.query))
        except RefusalError as refusal:
            answer = refusal.answer
        if fault:
            fault.change(answer)
        self._send(answer, fault)
        seen.status = answer.status

    do_HEAD = do_GET  # noqa: N815 (the standard library calls it so)
    do_POST = do_PUT = Receiver.receive  # noqa: N815

    def _answer(self, path: str, query: dict[str, list[str]]) -> Answer:
        if self.server.origin == "storage":
            return self._stored(path)
        words = path.strip("/").split("/")
        if words[:2] == ["api", "models"]:
            return self._api(words[2:], query)
        if words[:3] == ["api", "resolve-cache", "models"] and len(words) > 6:
            return self._resolved("/".join(words[3:5]), words[5], "/".join(words[6:]), plain=True)
        if len(words) > 4 and words[2] == "resolve":
            return self._resolved("/".join(words[:2]), words[3], "/".join(words[4:]))
        raise RefusalError(404)

    # -- the API -------------------------------------------------------------------------------------------------

    def _api(self, words: list[str], query: dict[str, list[str]]) -> Answer:
        if not words:
            return self._search(query)
        repo = self._visible("/".join(words[:2]))
        route, rest = (words[2], words[3:]) if len(words) > 2 else ("revision", ["main"])
        if route == "refs":
            return json_answer(repo.refs())
        if route == "tree":
            return self._tree(repo, rest, query)
        if route == "revision":
            commit = _commit(repo, "/".join(rest))
            return json_answer(repo.info(commit, with_blobs="blobs" in query, expand=query.get("expand")))
        raise RefusalError(404)

    def _tree(self, repo: LocalRepo, rest: list[str], query: dict[str, list[str]]) -> Answer:
        entries = repo.tree(_commit(repo, rest[0]), "/".join(rest[1:]), recursive=query.get("recursive") == ["true"])
        if rest[1:] and not entries:
            raise RefusalError(404, "Entry not found", "EntryNotFound")
        return self._page(entries, query)

    def _search(self, query: dict[str, list[str]]) -> Answer:
        words = " ".join(query.get("search", [])).lower().split()
        tags = set(query.get("filter", []))
        found = [
            repo
            for repo in self.server.hub.repos.values()
            if all(word in repo.name.lower() for word in words) and tags <= set(repo.all_tags) and not repo.private
        ]
        (order,) = query.get("sort", ["trendingScore"])
        found.sort(key=lambda repo: repo.sort_value(order), reverse=True)
        expand = query.get("expand")
        documents = [repo.info(repo.branches["main"], with_blobs=False, expand=expand) for repo in found]
        return self._page(documents, query, int(query.get("limit", ["1000"])[0]))

    def _page(self, entries: list[dict[str, object]], query: dict[str, list[str]], limit: int | None = None) -> Answer:
        size = min(limit or self.server.hub.page_entries, self.server.hub.page_entries)
        start = int(query.get("cursor", ["0"])[0])
        answer = json_answer(entries[start : start + size])
        if start + size < len(entries):
            kept = "&".join(
                f"{name}={quote(value)}" for name, values in query.items() for value in values if name != "cursor"
            )
            path = urlsplit(self.path).path
            answer.headers["Link"] = f'<{self.server.hub.url}{path}?{kept}&cursor={start + size}>; rel="next"'
        return answer

    # -- files ---------------------------------------------------------------------------------------------------

    def _resolved(self, name: str, revision: str, path: str, *, plain: bool = False) -> Answer:
        repo = self._visible(name)
        self._pass_gate(repo)
        commit = _commit(repo, revision)
        file = repo.commits[commit].get(path)
        if file is None:
            raise RefusalError(404, "Entry not found", "EntryNotFound")
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes", "Set-Cookie": "session=hub; Path=/"}
        if plain:
            return self._content(file, file.git_sha1, headers)
        if not file.lfs:
            cache = f"/api/resolve-cache/models/{quote(name)}/{commit}/{quote(path)}"
            return Answer(307, {**headers, "Location": cache, "ETag": f'"{file.git_sha1}"'})
        location = f"{self.server.hub.storage_url}/{quote(name)}/{file.sha256}/{quote(path)}?X-Signature=signed"
        linked = {"X-Linked-Etag": f'"{file.sha256}"', "X-Linked-Size": str(file.size_bytes), "Location": location}
        return Answer(302, {**headers, **linked}, b"Found. Redirecting")

    def _stored(self, path: str) -> Answer:
        words = path.strip("/").split("/")
        repo = self.server.hub.repos.get("/".join(words[:2]))
        file = repo.stored(words[2], "/".join(words[3:])) if repo and len(words) > 3 else None
        if file is None:
            raise RefusalError(403, "no such key")
        return self._content(file, file.sha256, {"Accept-Ranges": "bytes"})

    def _content(self, file: LocalFile, etag: str, headers: dict[str, str]) -> Answer:
        whole = Answer(200, {**headers, "ETag": f'"{etag}"', "Content-Type": "application/octet-stream"}, file)
        wanted = self.headers.get("Range")
        if not wanted or self.headers.get("If-Range", f'"{etag}"') != f'"{etag}"':
            return whole
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last or file.size_bytes - 1), file.size_bytes - 1)
        if start >= file.size_bytes:
            return Answer(416, {**headers, "Content-Range": f"bytes */{file.size_bytes}"})
        whole.headers["Content-Range"] = f"bytes {start}-{end}/{file.size_bytes}"
        return Answer(206, whole.headers, file.part(start, end + 1))

    # -- who may see what ----------------------------------------------------------------------------------------

    def _token(self) -> str | None:
        return self.headers.get("Authorization", "").removeprefix("Bearer ") or None

    def _visible(self, name: str) -> LocalRepo:
        hub, token, repo = self.server.hub, self._token(), self.server.hub.repos.get(name)
        if token and token not in hub.tokens:
            raise RefusalError(401, "Invalid credentials in Authorization header")
        if repo and (not repo.private or token):
            return repo
        if token or hub.unknown_status == 404:
            raise RefusalError(404, "Repository not found", "RepoNotFound")
        raise RefusalError(hub.unknown_status, "Invalid username or password.")

    def _pass_gate(self, repo: LocalRepo) -> None:
        token = self._token()
        if not repo.gated or token in repo.granted:
            return
        words = f"Access to model {repo.name} is restricted"
        if token is None:
            raise RefusalError(401, f"{words}. You must be authenticated. Please log in.", "GatedRepo")
        raise RefusalError(403, f"{words} and you are not in the authorized list.", "GatedRepo")

    # -- the wire ------------------------------------------------------------------------------------------------

    def _send(self, answer: Answer, fault: Fault | None) -> None:
        length = answer.length
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        chunked = fault is not None and fault.chunked
        if chunked:
            self.send_header("Transfer-Encoding", "chunked")
        elif "Content-Length" not in answer.headers:
            self.send_header("Content-Length", str(length))
        self.end_headers()
        if self.command == "HEAD":
            return
        for chunk in self._paced(_chunks(answer), fault):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(chunk), chunk) if chunked else chunk)
            if isinstance(answer.body, LocalFile):
                with self.server.hub.lock:
                    self.server.hub.served[answer.body.name] += len(chunk)
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def _paced(self, chunks: Iterator[bytes], fault: Fault | None) -> Iterator[bytes]:
        hub = self.server.hub
        if fault:
            chunks = fault.stream(self, chunks, hub.closing)
        rate = hub.bytes_per_s if self.server.origin == "storage" else None
        for chunk in chunks:
            if not rate:
                yield chunk
                continue
            step = max(rate // 100, 1)
            for start in range(0, len(chunk), step):
                yield chunk[start : start + step]
                time.sleep(step / rate)
                if hub.closing.is_set():
                    return


def _chunks(answer: Answer) -> Iterator[bytes]:
    if isinstance(answer.body, bytes):
        yield from (answer.body[at : at + _CHUNK_BYTES] for at in range(0, len(answer.body), _CHUNK_BYTES))
    else:
        yield from answer.body.chunks(_CHUNK_BYTES)


def _commit(repo: LocalRepo, revision: str) -> str:
    commit = repo.commit_of(revision)
    if commit is None:
        raise RefusalError(404, f"Invalid rev id: {revision}", "RevisionNotFound")
    return commit
