"""One download: what is asked for when it goes on, what is said while waiting, what is too much."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from llama_mgr.arrival import Download
from llama_mgr.download import HttpClient, Patience
from llama_mgr.errors import RemoteError
from llama_mgr.http_answer import retry_after_s
from llama_mgr.partial import held_partial, partial_path
from llama_mgr.report import SilentReporter
from tests.tools.listener import Listener
from tests.tools.local_hub import LocalHub
from tests.tools.local_hub_faults import Fault

CONTENT = b"GGUF" + bytes(200_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PATIENCE = Patience(tries=3, first_delay_s=0.001, stall_s=2)


@pytest.fixture
def local() -> Iterator[LocalHub]:
    with LocalHub() as hub:
        hub.add("o/r", {"m.gguf": CONTENT})
        yield hub


def wanted(local: LocalHub) -> Download:
    return Download("m.gguf", f"{local.storage_url}/o/r/{SHA256}/m.gguf", SHA256, len(CONTENT))


def client(reporter: SilentReporter | None = None) -> HttpClient:
    return HttpClient({}, reporter or SilentReporter(), PATIENCE)


def test_what_goes_on_asks_for_the_rest_of_the_same_file(local: LocalHub, tmp_path: Path) -> None:
    local.fault(Fault(cut_after=50_000), times=1)
    client().fetch(wanted(local), tmp_path / "m.gguf")
    first, second = local.requests
    assert (first.header("Range"), first.header("If-Range")) == (None, None)
    assert (second.header("Range"), second.header("If-Range")) == ("bytes=50000-", f'"{SHA256}"')
    assert {one.header("Accept-Encoding") for one in local.requests} == {"identity"}


def test_a_weak_etag_is_no_promise(local: LocalHub, tmp_path: Path) -> None:
    local.fault(Fault(cut_after=50_000, headers={"ETag": 'W/"x"'}), times=1)
    client().fetch(wanted(local), tmp_path / "m.gguf")
    assert local.requests[1].header("If-Range") is None
    assert local.served["m.gguf"] == len(CONTENT)


def test_a_file_that_changes_at_the_server_is_fetched_anew(local: LocalHub, tmp_path: Path) -> None:
    listener = Listener()
    local.fault(Fault(cut_after=50_000, headers={"ETag": '"old"'}), times=1)
    client(listener).fetch(wanted(local), tmp_path / "m.gguf")
    assert (tmp_path / "m.gguf").read_bytes() == CONTENT
    (_, note) = listener.notes
    assert note == "download m.gguf: the file changed at the server meanwhile; starting from the beginning"


def test_how_much_came_is_told(local: LocalHub, tmp_path: Path) -> None:
    target = tmp_path / "m.gguf"
    partial_path(target, SHA256).write_bytes(CONTENT[:150_000])
    with held_partial(target, SHA256) as partial, SilentReporter().progress("", None, "bytes") as progress:
        assert client().fill(partial, wanted(local), progress) == len(CONTENT) - 150_000
        assert client().fill(partial, wanted(local), progress) == 0


def test_a_wait_is_shown_and_kept(local: LocalHub, tmp_path: Path) -> None:
    listener = Listener()
    local.fault(Fault(status=429, headers={"Retry-After": "1"}), times=1)
    client(listener).fetch(wanted(local), tmp_path / "m.gguf")
    assert listener.notes == ["download m.gguf: the server answered 429; trying again in 1.0 s"]


def test_an_unknown_size_is_no_obstacle(local: LocalHub, tmp_path: Path) -> None:
    file = Download("m.gguf", wanted(local).url, SHA256)
    local.fault(Fault(cut_after=50_000), times=2)
    client().fetch(file, tmp_path / "m.gguf")
    assert (tmp_path / "m.gguf").read_bytes() == CONTENT


@pytest.mark.parametrize("kind", ["sha256", "git"])
def test_what_is_there_is_not_fetched(kind: str, local: LocalHub, tmp_path: Path) -> None:
    target = tmp_path / "m.gguf"
    target.write_bytes(CONTENT)
    blob = hashlib.sha1(b"blob %d\0" % len(CONTENT) + CONTENT).hexdigest()  # noqa: S324
    hashes = {"sha256": SHA256} if kind == "sha256" else {"git_sha1": blob}
    client().fetch(Download("m.gguf", local.storage_url, size_bytes=len(CONTENT), **hashes), target)
    assert local.requests == []


def test_a_whole_answer_has_limits(local: LocalHub) -> None:
    url = wanted(local).url
    reply = client().read("read it", url, {}, 10**6)
    assert (reply.status, reply.body, reply.header("etag")) == (200, CONTENT, f'"{SHA256}"')
    with pytest.raises(RemoteError, match=r"cannot read it: the answer is longer than the limit of 9\.8 KiB"):
        client().read("read it", url, {}, 10_000)
    local.fault(Fault(drip_after=10, drip_s=0.02))
    with pytest.raises(RemoteError, match=r"takes longer than the limit of 0\.1 s"):
        client().read("read it", url, {}, 10**6, time_limit_s=0.1)


def test_an_answer_that_is_no_success_is_told_as_it_is(local: LocalHub) -> None:
    assert client().read("read it", f"{local.url}/none", {}, 1000).status == 404


def test_busy_servers_are_asked_again(local: LocalHub) -> None:
    local.fault(Fault(status=503), times=2)
    assert client().read("read it", wanted(local).url, {}, 10**6).body == CONTENT
    local.fault(Fault(status=503))
    with pytest.raises(RemoteError, match="answered 503; 3 tries in a row failed"):
        client().read("read it", wanted(local).url, {}, 10**6)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10", 10), ("0", 0), (" 7 ", 7), ("99999", 60), ("9" * 5000, 0), ("-5", 0), ("1.5", 0), ("nan", 0), ("inf", 0),
     ("soon", 0), ("", 0), ("1e9", 0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("Wed, 21 Oct 9999 07:28:00 GMT", 60),
     ("Wed, 99 Oct 2015 07:28:00 GMT", 0), ("\x00", 0)],
)  # fmt: skip
def test_retry_after(text: str, seconds: float) -> None:
    assert retry_after_s(text) == seconds


def test_retry_after_takes_a_date() -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    assert 30 < retry_after_s(soon) <= 40


def test_no_cookie_is_kept(local: LocalHub) -> None:
    with client().session() as session:
        for _ in range(2):
            assert session.get(f"{local.url}/o/r/resolve/main/m.gguf").status_code == 200
    assert len(local.seen("hub")) == 2
    assert not any(one.header("Cookie") for one in local.requests)
