"""`make` from the hub and back to it, on the tiny llama.cpp and a local hub."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_mgr.paths import Home
from tests.conftest import Cli
from tests.tools.checkpoints import write_checkpoint
from tests.tools.local_hub import LocalHub

TOKEN = "hf_good"


@pytest.fixture
def hub(tiny: Cli, tmp_path: Path) -> Iterator[LocalHub]:
    with LocalHub() as hub:
        directory = write_checkpoint(tmp_path / "origin")
        hub.add("owner/small-llama", {file.name: file.read_bytes() for file in directory.iterdir()})
        tiny.environ |= {**hub.environ, "HF_TOKEN": TOKEN}
        yield hub


def test_a_repository_is_pulled_made_and_pushed(tiny: Cli, home: Home, hub: LocalHub) -> None:
    words = ("make", "owner/small-llama", "--quants", "Q8_0,Q4_0", "--upload", "me/small-llama-GGUF")
    document = tiny.json(*words)
    assert document["source"]["repo"] == "owner/small-llama"
    assert len(document["source"]["revision"]) == 40
    assert document["uploaded_to"].endswith("/me/small-llama-GGUF")
    made = {Path(file).name: Path(file) for step in document["steps"] for file in step["files"]}
    tiny.done("pull", "me/small-llama-GGUF:Q4_0")
    file = home.models_dir / "me" / "small-llama-GGUF" / "small-llama-Q4_0.gguf"
    assert _sha256(file) == _sha256(made["small-llama-Q4_0.gguf"])
    info = tiny.json("info", "me/small-llama-GGUF")
    assert {row["quant"] for row in info["quants"]} == {"F16", "Q8_0", "Q4_0"}
    puts = len([seen for seen in hub.seen() if seen.method == "PUT"])
    assert puts == 3
    tiny.done(*words)
    assert len([seen for seen in hub.seen() if seen.method == "PUT"]) == puts


def test_without_a_login_nothing_is_begun(tiny: Cli, hub: LocalHub) -> None:  # noqa: ARG001
    answer = tiny("make", "owner/small-llama", "--quants", "Q8_0", "--upload", "me/x", HF_TOKEN="")
    assert answer.status == 7
    assert tiny.json("list")["models"] == []


def test_without_the_hub_the_checkpoint_that_is_here_is_used(tiny: Cli, hub: LocalHub) -> None:  # noqa: ARG001
    tiny.done("make", "owner/small-llama", "--quants", "Q8_0")
    answer = tiny.done("make", "owner/small-llama", "--quants", "Q8_0", HF_HUB_OFFLINE="1")
    assert "the checkpoint that is here is used" in answer.stderr
    assert "nothing had to be done" in answer.stdout


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
