"""Every trouble that a hub can make, met on the first try and when a download is resumed: the right file, or the error.

Whatever happened, the same call brings the right file once the hub is well again.
"""

import hashlib
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llama_mgr.download import Patience
from llama_mgr.errors import (
    HashMismatchError,
    LlamaMgrError,
    RefusedError,
    RemoteDeniedError,
    RemoteError,
    UnknownRepositoryError,
)
from llama_mgr.models.hub import Hub, HubFile
from llama_mgr.partial import partial_path
from llama_mgr.report import SilentReporter
from tests.tools.hub_models import fetched
from tests.tools.listener import Listener
from tests.tools.local_hub import LocalHub
from tests.tools.local_hub_faults import Fault

REPO, NAME = "owner/model-GGUF", "model-Q4_K_M.gguf"
CONTENT = b"GGUF" + bytes(range(256)) * 1200  # 300 KiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
BEGUN = 100_000
CUT = Fault(cut_after=50_000)
PAGE = b"<!DOCTYPE html><title>Log in to Hotel WiFi</title>"


@dataclass(frozen=True)
class Case:
    """Faults in order, each for so many requests to an origin; how it ends; what is said on the way."""

    name: str
    faults: tuple[tuple[Fault, str, int | None], ...]
    error: type[LlamaMgrError] | None = None
    words: str = ""
    note: str = ""
    keeps_partial: bool = True
    served_at_most: float = field(default=1.05)
    """How often the content goes over the wire, at most; for cases that end well."""


def storage(fault: Fault, times: int | None = None) -> tuple[Fault, str, int | None]:
    return fault, "storage", times


def hub(fault: Fault, times: int | None = None) -> tuple[Fault, str, int | None]:
    return fault, "hub", times


CASES = (
    Case("no fault", ()),
    Case("a cut", (storage(CUT, 1),)),
    Case("cuts without end", (storage(Fault(cut_after=20_000)),), RemoteError, "3 tries in a row failed"),
    Case("a reset connection", (storage(Fault(reset=True), 1),)),
    Case("hung up on by the hub", (hub(Fault(hang_up=True), 1),)),
    Case("hung up on for ever", (hub(Fault(hang_up=True)),), RemoteError, "127.0.0.1 cannot be reached"),
    Case("a silent hub", (hub(Fault(silence=True), 1),)),
    Case("a stall", (storage(Fault(stall_after=50_000), 1),)),
    Case("a stall for ever", (storage(Fault(stall_after=9_000)),), RemoteError, "cannot be reached"),
    Case("one byte now and then", (storage(Fault(drip_after=100)),), RemoteError, "bytes came in"),
    Case("head lines byte by byte", (storage(Fault(raw=b"HTTP/1.1 200 OK\r\n" * 900, raw_byte_s=0.1), 1),)),
    Case("no ranges", (storage(CUT, 1), storage(Fault(ignore_range=True))), note="sends no parts", served_at_most=1.2),
    Case(
        "another range",
        (storage(CUT, 1), storage(Fault(headers={"Content-Range": f"bytes 7-9/{len(CONTENT)}"}), 1)),
        note="another part",
        served_at_most=2.2,
    ),
    Case("no such range", (storage(CUT, 1), storage(Fault(status=416), 1)), note="another part", served_at_most=1.2),
    Case(
        "a file that changes and comes back",
        (storage(CUT, 1), storage(Fault(headers={"ETag": '"other"'}), 1)),
        note="changed at the server",
        served_at_most=2.2,
    ),
    Case("a wrong byte", (storage(Fault(edit=lambda chunk: b"?" + chunk[1:]), 1),), note="once more", served_at_most=2),
    Case(
        "wrong bytes for ever",
        (storage(Fault(edit=lambda chunk: b"?" + chunk[1:])),),
        HashMismatchError,
        f"and {SHA256[:16]}… was promised",
        keeps_partial=False,
    ),
    Case(
        "more than was promised",
        (storage(Fault(edit=lambda chunk: chunk * 300, chunked=True)),),
        HashMismatchError,
        "was promised",
        keeps_partial=False,
    ),
    Case(
        "less than was promised",
        (storage(Fault(status=200, body=CONTENT[:70_000])),),
        HashMismatchError,
        f"the server has 70000 bytes of it, and {len(CONTENT)} were promised",
        keeps_partial=False,
    ),
    Case("no length", (storage(Fault(chunked=True)),)),
    Case("no length and a cut", (storage(Fault(chunked=True, cut_after=50_000), 1),)),
    Case("too many requests", (hub(Fault(status=429, headers={"Retry-After": "soon"}), 2),), note="answered 429"),
    Case("server errors", (hub(Fault(status=500), 1), storage(Fault(status=502), 1)), note="answered 50"),
    Case("server errors for ever", (storage(Fault(status=503)),), RemoteError, "answered 503"),
    Case(
        "a login page",
        (hub(Fault(status=200, body=PAGE, headers={"Content-Type": "text/html"})),),
        RemoteError,
        "what 127.0.0.1 sent is not a GGUF, but a web page",
    ),
    Case(
        "a login page that claims to be a file", (storage(Fault(status=200, body=PAGE)),), RemoteError, "is not a GGUF"
    ),
    Case("something that is not HTTP", (storage(Fault(raw=b"220 mail.test ESMTP\r\n"), 1),)),
    Case("nothing", (storage(Fault(status=204)),), RemoteError, "answered 204"),
    Case(
        "a file that is gone",
        (hub(Fault(status=404, headers={"X-Error-Code": "EntryNotFound"})),),
        UnknownRepositoryError,
        "no such file",
    ),
    Case("a gate", (hub(Fault(status=403, headers={"X-Error-Code": "GatedRepo"})),), RemoteDeniedError, "accepted"),
    Case("storage that refuses", (storage(Fault(status=403)),), RemoteError, "where it is stored, answered 403"),
    Case("a circle", (storage(Fault(status=302, headers={"Location": "/x"})),), RefusedError, "leads in a circle"),
    Case(
        "a redirect whose body never ends",
        (hub(Fault(edit=lambda chunk: chunk + b"x" * 500_000, stall_after=400_000, chunked=True)),),
    ),
)


@pytest.fixture
def local_hub() -> Iterator[LocalHub]:
    with LocalHub() as made:
        made.add(REPO, {NAME: CONTENT})
        yield made


def file_of(local_hub: LocalHub) -> HubFile:
    return HubFile(REPO, NAME, local_hub.repos[REPO].branches["main"], SHA256, len(CONTENT))


@pytest.mark.parametrize("is_resumed", [False, True], ids=["first", "resumed"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_hub(case: Case, is_resumed: bool, local_hub: LocalHub, tmp_path: Path) -> None:
    target, notes = tmp_path / NAME, Listener()
    partial = partial_path(target, SHA256)
    if is_resumed:
        partial.write_bytes(CONTENT[:BEGUN])
    for fault, origin, times in case.faults:
        local_hub.fault(fault, origin=origin, times=times)
    client = Hub(local_hub.environ, notes, Patience(tries=3, first_delay_s=0.01, stall_s=0.25))
    with pytest.raises(case.error) if case.error else nullcontext() as caught:
        fetched(client, file_of(local_hub), target)
    if caught:
        assert case.words in caught.value.message
        assert not target.exists()
        assert local_hub.served[NAME] < 50_000_000
        assert partial.exists() == (case.keeps_partial and (is_resumed or local_hub.served[NAME] > 0))
        local_hub.mend()
        fetched(client, file_of(local_hub), target)
    else:
        assert case.note in " ".join(notes.notes)
        begun = BEGUN if is_resumed and case.served_at_most < 1.1 else 0
        assert local_hub.served[NAME] <= case.served_at_most * len(CONTENT) - begun
    assert target.read_bytes() == CONTENT
    assert [entry.name for entry in tmp_path.iterdir()] == [NAME]


def test_many_cuts_cost_hardly_more_bytes_than_the_file_has(local_hub: LocalHub, tmp_path: Path) -> None:
    content = b"GGUF" + bytes(30 * 1024 * 1024)
    local_hub.add(REPO, {NAME: content})
    local_hub.fault(Fault(cut_after=1_500_000))
    file = HubFile(
        REPO, NAME, local_hub.repos[REPO].branches["main"], hashlib.sha256(content).hexdigest(), len(content)
    )
    fetched(Hub(local_hub.environ, SilentReporter(), Patience(first_delay_s=0.001)), file, tmp_path / NAME)
    assert (tmp_path / NAME).read_bytes() == content
    assert local_hub.served[NAME] <= 1.05 * len(content)
