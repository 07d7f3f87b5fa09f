"""What a whole process does that asks the hub: which environment counts, and how much memory hostile answers take."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.tools.local_hub import LocalHub
from tests.tools.local_hub_faults import Fault
from tests.tools.local_hub_repo import LocalFile

ROOT = Path(__file__).resolve().parents[3]
REPO = "owner/model-GGUF"
MEBIBYTE = 1024 * 1024

ASKING = """
import json, pathlib, re, resource, sys
from llama_mgr.download import Patience
from llama_mgr.errors import LlamaMgrError
from llama_mgr.models.hub import Hub
from llama_mgr.report import SilentReporter
environ = json.loads(sys.argv[1])
said = []
for repo in sys.argv[2:]:
    hub = Hub(environ, SilentReporter(), Patience(tries=1, stall_s=20))
    try:
        hub.search("model", 1)
        said.append(["ok", str(len(hub.repository(repo).files))])
    except LlamaMgrError as error:
        said.append([error.code, error.message])
status = pathlib.Path("/proc/self/status")  # what getrusage says includes the process before exec, on Linux
rss = int(re.search("VmHWM:[^0-9]*([0-9]+) kB", status.read_text())[1]) * 1024 if status.exists() else (
    resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
)
print(json.dumps({"said": said, "rss": rss}))
"""


@pytest.fixture
def local() -> Iterator[LocalHub]:
    with LocalHub() as hub:
        hub.add(REPO, {"model.gguf": b"GGUF"})
        yield hub


def ask(local: LocalHub, *repos: str, **surroundings: str) -> tuple[list[list[str]], int]:
    """Return what a fresh process says of each repository, and the most memory that it took, in bytes."""
    inherited = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "HOME": "/nonexistent", **surroundings}
    argv = [sys.executable, "-c", ASKING, json.dumps(local.environ), *repos]
    answer = subprocess.run(argv, env=inherited, capture_output=True, text=True, timeout=100, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stderr == ""
    document: dict[str, Any] = json.loads(answer.stdout)
    return document["said"], document["rss"]


@pytest.mark.parametrize("offline", ["1", ""])
def test_nothing_of_the_real_environment_counts(offline: str, local: LocalHub) -> None:
    local.add(REPO, {"model.gguf": b"GGUF", "README.md": b"x"})
    local.page_entries = 1
    with LocalHub() as other:
        said, _ = ask(
            local, REPO, HF_ENDPOINT=other.url, HF_TOKEN="hf_canary", HF_HUB_OFFLINE=offline, http_proxy=other.url,
            HF_HUB_USER_AGENT_ORIGIN="canary", AI_AGENT="canary", HF_DEBUG="1", HF_HUB_ENABLE_HF_TRANSFER="0",
        )  # fmt: skip
        assert said == [["ok", "2"]]
        assert other.requests == []
    headers = [one.headers for one in local.requests]
    assert "canary" not in str(headers)
    assert {str(one["User-Agent"]).split("/")[0] for one in headers} == {"llama-mgr"}
    assert all("/api/models" in one.path for one in local.requests)


def test_a_variable_on_which_the_library_breaks_is_named(local: LocalHub) -> None:
    ((code, message),), _ = ask(local, REPO, HF_HUB_ETAG_TIMEOUT="soon")
    assert code == "bad_input"
    assert "'soon'" in message


HOSTILE = {
    "million/entries": "longer than the limit of 2.0 MiB",
    "half/gigabyte": "longer than the limit of 2.0 MiB",
    "end/less-chunks": "longer than the limit of 2.0 MiB",
    "end/less-pages": "more than 100 pages, which is the limit",
    "full/pages": "more than 20,000 entries, which is the limit",
    "fat/pages": "longer than 16 MiB, which is the limit",
    "many/objects": "more than 100,000 parts, which is the limit",
    "long/names": "longer than 1024 bytes",
}


def entry(name: str) -> dict[str, object]:
    return {"type": "file", "path": name, "size": 4, "oid": "a" * 40}


def make_hostile(local: LocalHub, place: Path) -> None:
    """Let the hub have repositories whose listings are too much, each in its own way."""
    for repo in HOSTILE:
        local.add(repo, {"model.gguf": b"GGUF"})
    million = b"[" + b",".join([json.dumps(entry("a.gguf")).encode()] * 1_000_000) + b"]"
    big = place / "big.json"
    with big.open("wb") as file:
        file.truncate(500 * MEBIBYTE)

    def pages(repo: str, body: bytes) -> None:
        link = f'<{local.url}/api/models/{repo}/tree/{"0" * 40}?cursor=1>; rel="next"'
        local.fault(Fault(status=200, body=body, headers={"Link": link}), origin="hub", part=f"{repo}/tree/")

    def listing(repo: str, fault: Fault) -> None:
        local.fault(fault, origin="hub", part=f"{repo}/tree/")

    listing("million/entries", Fault(status=200, body=million))
    listing("half/gigabyte", Fault(status=200, body=LocalFile("x", big)))
    listing("end/less-chunks", Fault(status=200, body=LocalFile("x", big), chunked=True))
    pages("end/less-pages", json.dumps([entry("a.gguf")]).encode())
    pages("full/pages", json.dumps([entry(f"{number}.gguf") for number in range(1000)]).encode())
    pages("fat/pages", json.dumps([entry(f"{number:01500}.gguf") for number in range(1000)]).encode())
    listing("many/objects", Fault(status=200, body=b"[" + b"{}," * 690_000 + b"{}]"))
    listing("long/names", Fault(status=200, body=json.dumps([entry("n" * MEBIBYTE)]).encode()))


def test_no_listing_takes_much_memory_or_goes_on_for_ever(local: LocalHub, tmp_path: Path) -> None:
    make_hostile(local, tmp_path)
    said, used_bytes = ask(local, *HOSTILE)
    for (code, message), (repo, words) in zip(said, HOSTILE.items(), strict=True):
        assert words in message, (repo, message)
        assert code == ("refused" if repo == "long/names" else "remote_unavailable"), repo
    assert used_bytes < 100_000_000
