"""Hubs whose encryption is not to be trusted: the reason is said, once, and nothing is read or told."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from llama_mgr.arrival import Download
from llama_mgr.download import HttpClient, Patience
from llama_mgr.errors import LlamaMgrError, RefusedError, RemoteError
from llama_mgr.models.hub import Hub
from llama_mgr.report import SilentReporter
from tests.tools.http_server import Quiet, serving

TOKEN = "hf_canary"


class Server(ThreadingHTTPServer):
    """Answers everything with `answer`, and counts connections and what they told."""

    daemon_threads = True

    def __init__(self, certificate: trustme.LeafCert | None) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.connections = 0
        self.told: list[str] = []
        self.location = ""
        self.context: ssl.SSLContext | None = None
        if certificate:
            self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            certificate.configure_cert(self.context)

    @property
    def url(self) -> str:
        return f"{'https' if self.context else 'http'}://127.0.0.1:{self.server_address[1]}"

    def finish_request(self, request: object, address: object) -> None:
        self.connections += 1
        wrapped = self.context.wrap_socket(request, server_side=True) if self.context else request  # type: ignore[arg-type]
        super().finish_request(wrapped, address)  # type: ignore[arg-type]

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients that do not trust us hang up."""


class Answers(Quiet, BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.told.append(str(self.headers))
        self.send_response(302 if self.server.location else 200)
        if self.server.location:
            self.send_header("Location", self.server.location)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"GGUF")


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@contextmanager
def listening(certificate: trustme.LeafCert | None) -> Iterator[Server]:
    with serving(Server(certificate)) as server:
        yield server


def reading(url: str, **environ: str) -> bytes:
    client = HttpClient(environ, SilentReporter(), Patience(first_delay_s=0.001, stall_s=5))
    return client.read_part(Download("model.gguf", f"{url}/x"), 0, 4)


@pytest.fixture
def trusted(authority: trustme.CA, tmp_path: Path) -> str:
    authority.cert_pem.write_to_path(str(tmp_path / "authority.pem"))
    return str(tmp_path / "authority.pem")


def test_a_certificate_of_the_users_authority_is_accepted(authority: trustme.CA, trusted: str) -> None:
    with listening(authority.issue_cert("127.0.0.1")) as server:
        assert reading(server.url, SSL_CERT_FILE=trusted) == b"GGUF"


@pytest.mark.parametrize(
    ("certificate", "reason"),
    [
        (lambda ca: ca.issue_cert("127.0.0.1", not_after=datetime.now(UTC) - timedelta(days=1)), "has expired"),
        (lambda ca: ca.issue_cert("other.test"), "not valid for '127.0.0.1'"),
        (lambda _: trustme.CA().issue_cert("127.0.0.1"), "certificate"),
    ],
    ids=["expired", "another host", "another authority"],
)
def test_a_bad_certificate_is_named_at_once(
    certificate: object, reason: str, authority: trustme.CA, trusted: str
) -> None:
    with listening(certificate(authority)) as server:  # type: ignore[operator]
        with pytest.raises(RemoteError, match=f"its certificate is not accepted: .*{reason}") as caught:
            reading(server.url, SSL_CERT_FILE=trusted)
        assert server.connections == 1
        assert server.told == []
    assert "SSL_CERT_FILE" in (caught.value.hint or "")


def test_a_server_that_does_not_encrypt_is_named_at_once() -> None:
    with listening(None) as server:
        with pytest.raises(RemoteError, match="no encrypted connection can be made"):
            reading(server.url.replace("http:", "https:"))
        assert server.connections == 1


def test_a_missing_file_of_certificates_is_named() -> None:
    with pytest.raises(LlamaMgrError, match="cannot use SSL_CERT_FILE '/nonexistent': there is no such file"):
        reading("https://127.0.0.1:9", SSL_CERT_FILE="/nonexistent")


def test_encryption_is_never_given_up(authority: trustme.CA, trusted: str) -> None:
    with listening(authority.issue_cert("127.0.0.1")) as server, listening(None) as plain:
        server.location = f"{plain.url}/x"
        with pytest.raises(RefusedError, match="it gives up encryption"):
            reading(server.url, SSL_CERT_FILE=trusted)
        assert plain.connections == 0


def test_a_token_goes_to_an_encrypted_hub_and_not_to_the_next_place(authority: trustme.CA, trusted: str) -> None:
    with (
        listening(authority.issue_cert("127.0.0.1")) as server,
        listening(authority.issue_cert("127.0.0.1")) as storage,
    ):
        server.location = f"{storage.url}/x"
        environ = {"HF_ENDPOINT": server.url, "HF_TOKEN": TOKEN, "SSL_CERT_FILE": trusted}
        hub = Hub(environ, SilentReporter(), Patience(tries=1, stall_s=5))
        url = f"{server.url}/x"
        client = HttpClient(environ, SilentReporter(), Patience(tries=1, stall_s=5))
        assert client.read_part(Download("model.gguf", url, headers=hub.headers(url)), 0, 4) == b"GGUF"
        assert TOKEN in server.told[0]
        assert TOKEN not in storage.told[0]
