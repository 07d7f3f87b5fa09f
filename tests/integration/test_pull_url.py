"""`llama-mgr pull https://… --sha256 …`, from a server of this machine that speaks TLS."""

import hashlib
import ssl
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from llama_mgr.paths import Home
from tests.conftest import Cli
from tests.tools.gguf_file import model_bytes
from tests.tools.http_server import Quiet, serving

MODEL = model_bytes(layers=4)
SHA256 = hashlib.sha256(MODEL).hexdigest()


class Site(ThreadingHTTPServer):
    """Gives `body` at every path, the beginning only as often as `cuts` says."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.body = MODEL
        self.cuts = 0
        self.claimed_bytes = 0
        self.asked: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"https://localhost:{self.server_address[1]}"


class Answers(Quiet, BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append((self.path, wanted))
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted else 0
        body = self.server.body[start:]
        self.send_response(206 if wanted else 200)
        if wanted:
            last = len(self.server.body) - 1
            self.send_header("Content-Range", f"bytes {start}-{last}/{len(self.server.body)}")
        self.send_header("Content-Length", str(self.server.claimed_bytes or len(body)))
        self.end_headers()
        if self.server.cuts:
            self.server.cuts -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)


@pytest.fixture
def site(tmp_path: Path, cli: Cli) -> Iterator[Site]:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    server = Site()
    server.socket = context.wrap_socket(server.socket, server_side=True)
    cli.environ = {**cli.environ, "REQUESTS_CA_BUNDLE": str(tmp_path / "authority.pem")}
    with serving(server):
        yield server


def names(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def test_a_url_with_its_sha256_becomes_a_model(site: Site, cli: Cli, home: Home) -> None:
    url = f"{site.url}/files/Tiny%20Model-Q4_K_M.gguf?token=tok3n"
    site.cuts = 1
    document = cli.json("pull", url, "--sha256", SHA256.upper())
    place = home.models_dir / f"localhost-{site.server_address[1]}" / "Tiny-Model"
    assert document["name"] == f"localhost-{site.server_address[1]}/Tiny-Model"
    assert (document["quant"], document["size_bytes"]) == ("Q4_K_M", len(MODEL))
    assert document["paths"] == [str(place / "Tiny Model-Q4_K_M.gguf")]
    assert names(place) == ["Tiny Model-Q4_K_M.gguf", "Tiny Model-Q4_K_M.gguf.json"]
    record = (place / "Tiny Model-Q4_K_M.gguf.json").read_text()
    assert f'"source": "{site.url}/files/Tiny%20Model-Q4_K_M.gguf"' in record
    assert "tok3n" not in record
    assert [wanted for _, wanted in site.asked] == [None, f"bytes={len(MODEL) // 2}-"]
    assert cli.json("pull", url, "--sha256", SHA256)["was_there"]
    assert len(site.asked) == 2


def test_other_bytes_are_refused(site: Site, cli: Cli, home: Home) -> None:
    answer = cli("pull", f"{site.url}/tiny.gguf?token=tok3n", "--sha256", "0" * 64)
    assert answer.status == 5
    assert "sha256" in answer.stderr
    assert "tok3n" not in answer.stderr
    assert names(home.models_dir) == []


def test_a_certificate_that_nobody_trusts_is_refused(site: Site, cli: Cli, home: Home, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    answer = cli("pull", f"{site.url}/tiny.gguf", "--sha256", SHA256, REQUESTS_CA_BUNDLE=str(other))
    assert answer.status == 6
    assert "certificate is not accepted" in answer.stderr
    assert site.asked == []
    assert names(home.models_dir) == []


def test_a_disk_without_room_is_told_before_the_first_byte(site: Site, cli: Cli, home: Home) -> None:
    site.claimed_bytes = 1 << 50
    answer = cli("pull", f"{site.url}/tiny.gguf", "--sha256", SHA256)
    assert answer.status == 10, answer.stderr
    assert "TiB more, and " in answer.stderr
    assert "--force tries it all the same" in answer.stderr
    assert names(home.models_dir) == []


def test_who_forces_it_is_not_asked_for_room(site: Site, cli: Cli, home: Home) -> None:
    site.claimed_bytes = 1 << 50  # and then the connection ends
    cli.done("pull", f"{site.url}/tiny.gguf", "--sha256", SHA256, "--force")
    assert len(names(home.models_dir)) == 2
