"""Where a hub may send a client: never with its secrets to another origin, never from outside to something inside."""

import re
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import pytest

from llama_mgr.arrival import Download
from llama_mgr.download import HttpClient, Patience
from llama_mgr.errors import LlamaMgrError, RefusedError, RemoteError
from llama_mgr.models.hub import Hub
from llama_mgr.report import SilentReporter
from tests.tools.http_server import Quiet, serving
from tests.tools.hub_models import fetched
from tests.tools.local_hub import LocalHub
from tests.tools.local_hub_faults import Fault

REPO, NAME = "owner/model-GGUF", "model.gguf"
CONTENT = b"GGUF" + bytes(5000)
TOKEN = "hf_canary"
_SECRET = re.compile("auth|cookie|token", re.IGNORECASE)
PATIENCE = Patience(tries=2, first_delay_s=0.001, stall_s=2)

# -- secrets -----------------------------------------------------------------------------------------------------------


def redirect(status: int, location: str) -> Fault:
    return Fault(status=status, headers={"Location": location})


# What the hub answers for which requests; B is the other origin, A the hub's own.
SHAPES: dict[str, tuple[str, Fault]] = {
    **{f"a file, {status}": ("/resolve/", redirect(status, "B/x")) for status in (301, 302, 303, 307, 308)},
    "a file, without a scheme": ("/resolve/", redirect(302, "//HOST_B/x")),
    "a file, by way of the hub": ("/resolve/", redirect(302, "/api/resolve-cache/models/o/r/c/x")),
    "by way of another name of the hub": ("/resolve/", redirect(302, "http://localhost:PORT_A/x")),
    "a file, with a login": ("/resolve/", redirect(302, "http://me:secret@HOST_B/x")),
    "facts of a repository": ("/api/models/owner/model-GGUF?", redirect(307, "B/api/models/owner/model-GGUF")),
    "a tree": ("/tree/", redirect(307, "B/tree")),
    "the next page of a tree": ("/tree/", Fault(headers={"Link": '<B/api/models/x/tree/y?cursor=1>; rel="next"'})),
    "the next page of a search": ("filter=gguf", Fault(headers={"Link": '<B/api/models?cursor=1>; rel="next"'})),
    "a search": ("filter=gguf", redirect(302, "B/api/models")),
    "a realm": (
        "/api/models/",
        Fault(status=401, headers={"WWW-Authenticate": 'Bearer realm="B/token",service="x"'}),
    ),
    "a refresh": ("/api/models/", Fault(headers={"Refresh": "0; url=B/x", "Content-Location": "B/x"})),
    "a cookie": ("/resolve/", Fault(headers={"Set-Cookie": "hub=canary; Path=/", "Location": "B/x"}, status=302)),
}


@pytest.fixture
def hub() -> Iterator[LocalHub]:
    with LocalHub() as made:
        made.add(REPO, {NAME: CONTENT, "README.md": b"# hello"})
        made.tokens.add(TOKEN)
        yield made


@pytest.mark.parametrize("shape", SHAPES)
def test_no_secret_reaches_another_origin(
    shape: str, hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text(f"machine 127.0.0.1 login me password {TOKEN}\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    part, fault = SHAPES[shape]
    places = {
        "HOST_B": urlsplit(hub.storage_url).netloc,
        "PORT_A": str(urlsplit(hub.url).port),
        "B/": f"{hub.storage_url}/",
    }
    headers = dict(fault.headers)
    for word, place in places.items():
        headers = {name: value.replace(word, place) for name, value in headers.items()}
    hub.fault(Fault(status=fault.status, headers=headers), origin="hub", part=part)
    client = Hub({**hub.environ, "HF_TOKEN": TOKEN}, SilentReporter(), PATIENCE)
    for work in (
        lambda: fetched(client, client.repository(REPO).files[0], tmp_path / NAME),
        lambda: client.fetch_small(client.repository(REPO).files[1], 100),
        lambda: client.source(client.repository(REPO).files[0]).read(0, 10),
        lambda: client.search("model", 5),
    ):
        with suppress(LlamaMgrError):
            work()
    own = urlsplit(hub.url).netloc
    assert any(TOKEN in str(one.headers) for one in hub.seen("hub")), "the token was never sent"
    for one in hub.seen():
        is_own = one.origin == "hub" and one.header("Host") == own
        secret = {name: value for name, value in one.headers.items() if _SECRET.search(name)}
        assert is_own or not secret, (one.path, secret)
        assert one.header("Cookie") is None
        assert "Basic" not in (one.header("Authorization") or "")
    if "page" in shape or shape == "a realm":
        assert hub.seen("storage", "api") == []


def test_the_usual_redirect_to_storage_works_with_a_token(hub: LocalHub, tmp_path: Path) -> None:
    client = Hub({**hub.environ, "HF_TOKEN": TOKEN}, SilentReporter(), PATIENCE)
    assert fetched(client, client.repository(REPO).files[0], tmp_path / NAME).read_bytes() == CONTENT
    assert [one.header("Authorization") for one in hub.seen("hub", "/resolve/")] == [f"Bearer {TOKEN}"]


def test_a_fifty_fold_redirect_is_given_up_after_ten(hub: LocalHub, tmp_path: Path) -> None:
    client = Hub(hub.environ, SilentReporter(), PATIENCE)
    file = client.repository(REPO).files[0]
    for number in range(50):
        hub.fault(
            redirect(302, f"/hop-{number}"), origin="hub", part="/resolve/" if number == 0 else f"/hop-{number - 1}"
        )
    with pytest.raises(RefusedError, match="redirect number 11, and the limit is 10"):
        fetched(client, file, tmp_path / NAME)
    assert len(hub.seen("hub", "/hop-")) == 10


# -- places ------------------------------------------------------------------------------------------------------------

INSIDE = (
    "127.0.0.1", "127.1", "127.0.1", "127.8.9.10", "2130706433", "0x7f000001", "0x7f.0.0.1", "0177.0.0.1",
    "017700000001", "0", "0.0.0.0",  # noqa: S104 (nothing is bound to it)
    "localhost", "LOCALHOST", "localhost.", "x.localhost", "[::1]", "[::]",
    "[0:0:0:0:0:0:0:1]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::127.0.0.1]",
    "[2002:7f00:1::]", "169.254.169.254", "[::ffff:169.254.169.254]", "2852039166", "[fe80::1]", "[fd00:ec2::254]",
    "100.100.100.200", "168.63.129.16", "10.0.0.1", "172.16.0.1", "192.168.1.1", "100.64.0.1", "224.0.0.1",
    "255.255.255.255", "240.0.0.1", "user@127.0.0.1", "hub.test@127.0.0.1", "127.0.0.1\\@hub.test", "127。0。0。1",
    "%31%32%37.0.0.1",
)  # fmt: skip
LOCATIONS = (
    *(f"http://{host}:PORT/secret" for host in INSIDE),
    "//127.0.0.1:PORT/secret", "///127.0.0.1:PORT/secret", "http:127.0.0.1:PORT", "HTTP://127.0.0.1:PORT/",
    "\thttp://127.0.0.1:PORT/", "file:///etc/passwd", "ftp://127.0.0.1:PORT/x", "gopher://127.0.0.1:PORT/_x",
    "http://\u00ff\u00fe.test:PORT/", "unix:/run/x.sock", "http://127.0.0.1:0x50/", "http://[::1",
    "http://127.0.0.1:99999/", "http://" + "a" * 70 + ".test/",
)  # fmt: skip


class Trap:
    """Counts who connects to its port, at any address of this machine, and keeps what they say; a context manager."""

    def __init__(self) -> None:
        self._servers = [socket.create_server(("", 0))]
        self.port = self._servers[0].getsockname()[1]
        with suppress(OSError):
            self._servers.append(socket.create_server(("::", self.port), family=socket.AF_INET6))
        self._connections = 0
        self.heard = b""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._listen, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.count()
        for server in self._servers:
            server.close()

    def count(self) -> int:
        """Stop listening, and return how many came."""
        self._stop.set()
        self._thread.join()
        return self._connections

    def _listen(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stop.is_set()
            for server in select.select(self._servers, [], [], 0.01)[0]:
                client, _ = server.accept()
                self._connections += 1
                client.settimeout(2)
                with client, suppress(OSError):
                    self.heard += client.recv(1000)


class Proxy(ThreadingHTTPServer):
    """A proxy behind which the public web lies: http://hub.test redirects, http://cdn.test has the file."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), PublicWeb)
        self.location = ""


class PublicWeb(Quiet, BaseHTTPRequestHandler):
    server: Proxy

    def do_GET(self) -> None:
        is_file = self.path.startswith("http://cdn.test/")
        self.send_response(200 if is_file else 302)
        if not is_file:
            self.send_header("Location", self.server.location.encode().decode("latin-1"))
        self.send_header("Content-Length", str(len(CONTENT) if is_file else 0))
        self.end_headers()
        if is_file:
            self.wfile.write(CONTENT)


@pytest.fixture
def trap() -> Iterator[Trap]:
    with Trap() as made:
        yield made


@contextmanager
def public_client(location: str) -> Iterator[HttpClient]:
    """A client for which `hub.test` is on the public web, and redirects to `location`; else it connects by itself."""
    with serving(Proxy()) as proxy:
        proxy.location = location
        excepted = "127.0.0.1"
        with suppress(ValueError):
            host = urlsplit(location).hostname or ""
            excepted = f"{excepted},{host}" if host not in {"hub.test", "cdn.test", "elsewhere.test"} else excepted
        address = f"http://127.0.0.1:{proxy.server_address[1]}"
        environ = {"http_proxy": address, "no_proxy": excepted}
        yield HttpClient(environ, SilentReporter(), PATIENCE)


@pytest.mark.parametrize("location", LOCATIONS)
def test_nothing_inside_is_reached_from_outside(location: str, trap: Trap) -> None:
    client_there = public_client(location.replace("PORT", str(trap.port)))
    with client_there as client, pytest.raises((RefusedError, RemoteError)):
        client.read_part(Download("x", "http://hub.test/x"), 0, 10)
    assert trap.count() == 0


@pytest.mark.parametrize("location", [one for one in LOCATIONS if one.startswith("http://1") and "\\" not in one])
def test_the_refusal_says_why(location: str, trap: Trap) -> None:
    client_there = public_client(location.replace("PORT", str(trap.port)))
    with client_there as client, pytest.raises(RefusedError, match=r"from outside to|for one network link|malformed"):
        client.read_part(Download("x", "http://hub.test/x"), 0, 10)


def test_another_public_host_is_reached() -> None:
    with public_client("http://cdn.test/file") as client:
        assert client.read_part(Download("x", "http://hub.test/x"), 0, 10) == CONTENT[:10]


def resolving(monkeypatch: pytest.MonkeyPatch, *answers: str) -> None:
    """Let the names of this machine's resolver be answered by `answers`, one after the other, the last for ever."""
    real, left = socket.getaddrinfo, list(answers)

    def answer(host: str, port: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (the resolver's signature)
        if host != "elsewhere.test":
            return real(host, port, *args, **kwargs)
        return real(left.pop(0) if len(left) > 1 else left[0], port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", answer)


def test_a_name_for_something_inside_is_refused(trap: Trap, monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, "127.0.0.1")
    with public_client(f"http://elsewhere.test:{trap.port}/") as client:
        client._environ = {**client._environ, "no_proxy": "elsewhere.test"}
        with pytest.raises(RefusedError, match="from outside to this machine itself"):
            client.read_part(Download("x", "http://hub.test/x"), 0, 10)
    assert trap.count() == 0


def test_a_name_that_changes_its_address_after_the_look_is_told_nothing(
    trap: Trap, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolving(monkeypatch, "93.184.216.34", "127.0.0.1")
    with public_client(f"http://elsewhere.test:{trap.port}/") as client:
        client._environ = {**client._environ, "no_proxy": "elsewhere.test"}
        with pytest.raises(RefusedError, match="from outside to this machine itself"):
            client.read_part(Download("x", "http://hub.test/x"), 0, 10)
    assert trap.count() <= 1
    assert trap.heard == b""
