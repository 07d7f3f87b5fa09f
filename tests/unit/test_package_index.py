"""The package-index door against a real HTTP server on this machine that misbehaves in every way we know."""

import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from llama_mgr.download import Patience
from llama_mgr.errors import HashMismatchError, NotFoundError, RemoteDeniedError, RemoteError
from llama_mgr.package_index import IndexFile, PackageIndex, endpoint_from
from llama_mgr.partial import partial_path
from llama_mgr.redirects import without_login
from llama_mgr.report import SilentReporter
from tests.tools.http_server import Quiet, serving

CONTENT = bytes(range(256)) * 8192  # 2 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Index(ThreadingHTTPServer):
    """Serves `/simple/demo/` and `/files/demo.whl`; `faults` are used up one per download request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.content = CONTENT
        self.faults: list[Callable[[Answers], None]] = []
        self.ranges: list[str] = []
        self.sent_bytes = 0
        self.page: bytes | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def file(self, sha256: str = SHA256, size_bytes: int | None = len(CONTENT)) -> IndexFile:
        return IndexFile("demo.whl", "1.0", f"{self.url}/files/demo.whl", sha256, size_bytes, "wheel", yanked=False)


class Answers(Quiet, BaseHTTPRequestHandler):
    server: Index
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/simple/demo/":
            self.send(200, self.server.page or listing(), "application/vnd.pypi.simple.v1+json")
        elif self.path == "/files/demo.whl":
            self.server.ranges.append(self.headers.get("Range", ""))
            self.server.faults.pop(0)(self) if self.server.faults else self.whole()
        else:
            self.send(404, b"no")

    def whole(self) -> None:
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start, content = int(found[1]) if found else 0, self.server.content
        extra = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if found else {}
        self.send(206 if found else 200, content[start:], **extra)

    def send(self, status: int, body: bytes, kind: str = "application/octet-stream", **headers: str) -> None:
        self.start(status, len(body), kind, **headers)
        self.write(body)

    def start(self, status: int, length: int, kind: str = "application/octet-stream", **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(length), **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def write(self, body: bytes) -> None:
        self.server.sent_bytes += len(body)
        self.wfile.write(body)


def listing() -> bytes:
    def entry(name: str, **more: object) -> dict[str, object]:
        return {"filename": name, "url": f"../../files/{name}", "hashes": {"sha256": SHA256}, "size": 5, **more}

    files = [
        entry("demo-1.0-py3-none-any.whl"),
        entry("demo-1.1.tar.gz", yanked="broken"),
        entry("demo-1.2.tar.gz", hashes={}),
        entry("demo-1.2.exe"),
    ]
    return json.dumps({"meta": {"api-version": "1.0"}, "name": "demo", "files": files}).encode()


@pytest.fixture
def index() -> Iterator[Index]:
    with serving(Index()) as server:
        yield server


def client(index: Index, stall_s: float = 5.0) -> PackageIndex:
    return PackageIndex({}, SilentReporter(), f"{index.url}/simple", Patience(first_delay_s=0.01, stall_s=stall_s))


def cut_after(count: int) -> Callable[[Answers], None]:
    def fault(answers: Answers) -> None:
        found = re.fullmatch(r"bytes=(\d+)-", answers.headers.get("Range", ""))
        start, content = int(found[1]) if found else 0, answers.server.content
        extra = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if found else {}
        answers.start(206 if found else 200, len(content) - start, **extra)
        answers.write(content[start : start + count])
        answers.close_connection = True

    return fault


def test_files_are_listed_with_kind_hash_and_yank(index: Index) -> None:
    wheel, yanked = client(index).files("demo")
    assert (wheel.name, wheel.version, wheel.kind, wheel.yanked, wheel.size_bytes) == (
        "demo-1.0-py3-none-any.whl", "1.0", "wheel", False, 5,
    )  # fmt: skip
    assert wheel.url == f"{index.url}/files/demo-1.0-py3-none-any.whl"
    assert (yanked.kind, yanked.yanked, yanked.sha256) == ("sdist", True, SHA256)


def test_an_unknown_project_is_not_found(index: Index) -> None:
    with pytest.raises(NotFoundError, match="'absent'"):
        client(index).files("absent")


def test_a_login_page_is_not_an_index(index: Index) -> None:
    index.page = b"<html>log in here"
    with pytest.raises(RemoteError, match="not a package index"):
        client(index).files("demo")


def test_a_dead_index_is_remote_and_named_without_its_password() -> None:
    dead = PackageIndex(
        {}, SilentReporter(), "http://me:secret@127.0.0.1:9/simple", patience=Patience(first_delay_s=0.001)
    )
    with pytest.raises(RemoteError, match=r"127\.0\.0\.1 cannot be reached") as caught:
        dead.files("demo")
    assert "secret" not in caught.value.message


def test_the_file_arrives_whole(index: Index, tmp_path: Path) -> None:
    target = tmp_path / "below" / "demo.whl"
    assert client(index).fetch(index.file(), target).read_bytes() == CONTENT
    assert [entry.name for entry in target.parent.iterdir()] == ["demo.whl"]


def test_a_finished_download_is_not_repeated(index: Index, tmp_path: Path) -> None:
    client(index).fetch(index.file(), tmp_path / "demo.whl")
    client(index).fetch(index.file(), tmp_path / "demo.whl")
    assert index.ranges == [""]
    assert [entry.name for entry in tmp_path.iterdir()] == ["demo.whl"]


@pytest.mark.parametrize("size_bytes", [len(CONTENT), None])
def test_a_cut_goes_on_by_range(index: Index, tmp_path: Path, size_bytes: int | None) -> None:
    index.faults = [cut_after(700_000), cut_after(300_000)]
    target = client(index).fetch(index.file(size_bytes=size_bytes), tmp_path / "demo.whl")
    assert target.read_bytes() == CONTENT
    assert index.ranges == ["", "bytes=700000-", "bytes=1000000-"]
    assert index.sent_bytes == len(CONTENT)


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(index: Index, tmp_path: Path) -> None:
    index.faults = [cut_after(1000)] + [cut_after(0)] * 4
    with pytest.raises(RemoteError, match="5 tries in a row"):
        client(index).fetch(index.file(), tmp_path / "demo.whl")
    assert not (tmp_path / "demo.whl").exists()
    assert client(index).fetch(index.file(), tmp_path / "demo.whl").read_bytes() == CONTENT
    assert index.ranges[-1] == "bytes=1000-"
    assert index.sent_bytes == len(CONTENT)


def test_a_whole_answer_to_a_range_restarts(index: Index, tmp_path: Path) -> None:
    index.faults = [cut_after(1000), lambda answers: answers.send(200, CONTENT)]
    assert client(index).fetch(index.file(), tmp_path / "demo.whl").read_bytes() == CONTENT


@pytest.mark.parametrize("status", [206, 416])
def test_a_wrong_range_restarts(index: Index, tmp_path: Path, status: int) -> None:
    wrong = {"Content-Range": "bytes 5-9/10"}
    index.faults = [cut_after(1000), lambda answers: answers.send(status, b"wrong", **wrong)]
    assert client(index).fetch(index.file(), tmp_path / "demo.whl").read_bytes() == CONTENT
    assert index.ranges == ["", "bytes=1000-", ""]


def test_busy_servers_are_asked_again(index: Index, tmp_path: Path) -> None:
    index.faults = [lambda answers: answers.send(503, b"", **{"Retry-After": "0"})] * 3
    assert client(index).fetch(index.file(), tmp_path / "demo.whl").read_bytes() == CONTENT


def test_a_stall_is_cut(index: Index, tmp_path: Path) -> None:
    stop = threading.Event()

    def stall(answers: Answers) -> None:
        answers.start(200, len(CONTENT))
        answers.write(CONTENT[:100_000])
        stop.wait(5)
        answers.close_connection = True

    index.faults = [stall]
    assert client(index, stall_s=0.2).fetch(index.file(), tmp_path / "demo.whl").read_bytes() == CONTENT
    stop.set()
    assert index.ranges[1] == "bytes=100000-"


def test_changed_bytes_are_refused_after_one_clean_retry(index: Index, tmp_path: Path) -> None:
    index.content = CONTENT[:-1] + b"!"
    with pytest.raises(HashMismatchError, match="sha256"):
        client(index).fetch(index.file(), tmp_path / "demo.whl")
    assert index.ranges == ["", ""]
    assert list(tmp_path.iterdir()) == []


def test_a_spoilt_beginning_is_fetched_anew(index: Index, tmp_path: Path) -> None:
    partial_path(tmp_path / "demo.whl", SHA256).write_bytes(b"rubbish")
    assert client(index).fetch(index.file(), tmp_path / "demo.whl").read_bytes() == CONTENT
    assert index.ranges == ["bytes=7-", ""]


def test_more_than_promised_is_not_kept(index: Index, tmp_path: Path) -> None:
    index.content = CONTENT * 8
    with pytest.raises(HashMismatchError):
        client(index).fetch(index.file(), tmp_path / "demo.whl")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("status", "kind"), [(401, RemoteDeniedError), (403, RemoteDeniedError), (404, RemoteError)])
def test_refusals_are_not_retried(index: Index, tmp_path: Path, status: int, kind: type[Exception]) -> None:
    index.faults = [lambda answers: answers.send(status, b"")]
    with pytest.raises(kind, match=str(status)):
        client(index).fetch(index.file(), tmp_path / "demo.whl")
    assert len(index.ranges) == 1


def test_two_at_once_download_once(index: Index, tmp_path: Path) -> None:
    results: list[bytes] = []

    def work() -> None:
        results.append(client(index).fetch(index.file(), tmp_path / "demo.whl").read_bytes())

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [CONTENT] * 8
    assert index.sent_bytes == len(CONTENT)
    assert [entry.name for entry in tmp_path.iterdir()] == ["demo.whl"]


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"PIP_INDEX_URL": "https://pip.test/simple"}, "https://pip.test/simple"),
        ({"PIP_INDEX_URL": "https://pip.test", "UV_INDEX_URL": "https://old.test"}, "https://old.test"),
        ({"UV_DEFAULT_INDEX": "mine=https://new.test", "UV_INDEX_URL": "https://old.test"}, "https://new.test"),
        ({"UV_DEFAULT_INDEX": " "}, None),
    ],
)
def test_the_environment_names_the_index(environ: dict[str, str], expected: str | None) -> None:
    assert endpoint_from(environ) == expected


def test_addresses_are_shown_without_secrets() -> None:
    assert without_login("https://me:secret@index.test:8/a/b?token=x#f") == "https://index.test:8/a/b"
