"""A llama-server as a child: the real executable where it was built, else a small one that speaks the same."""

import http.client
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from llama_mgr.build import use
from llama_mgr.errors import (
    BadInputError,
    ChildFailedError,
    ConflictError,
    CorruptStateError,
    InUseError,
    NotFoundError,
)
from llama_mgr.paths import Home
from llama_mgr.report import SilentReporter
from llama_mgr.serving import child_server
from llama_mgr.serving.child_server import Launch, started
from llama_mgr.serving.server_record import ServerDir, ServerRecord, claimed_lock, running_servers, server_dir
from llama_mgr.store import write_document

TOLD = SilentReporter()

# Speaks llama-server's HTTP: 503 until the "model" is loaded, then 200, one chat answer; misbehaves as the model's
# name asks.
SERVER = """#!{python}
import json, os, socketserver, sys, time
from http.server import BaseHTTPRequestHandler, HTTPServer
words = dict(zip(sys.argv[1::2], sys.argv[2::2]))
mood = os.path.basename(words["-m"])
print("argv", json.dumps(sys.argv[1:]), flush=True)
print("environ", json.dumps(dict(os.environ)), flush=True)
if mood == "illegal":
    os.kill(os.getpid(), 4)
if mood == "broken":
    print("gguf_init_from_file: failed to read magic", flush=True)
    sys.exit(1)
if mood == "thief" and not os.path.exists(words["-m"] + ".told"):
    open(words["-m"] + ".told", "w").close()
    print("srv start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: " + words["--port"], flush=True)
    sys.exit(1)
ready_at = time.monotonic() + (3600 if mood == "slow" else 0.3)
class Answers(BaseHTTPRequestHandler):
    def reply(self, status, document):
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def do_GET(self):
        self.reply(200, {{"status": "ok"}}) if time.monotonic() > ready_at else self.reply(503, {{"error": {{}}}})
    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if mood == "crash":
            print("GGML_ASSERT failed", flush=True)
            os.abort()
        if mood == "odd":
            return self.reply(200, {{"choices": []}})
        if mood == "refusing":
            return self.reply(500, {{"error": {{"message": "no slot"}}}})
        text = " You said: " + asked["messages"][0]["content"]
        self.reply(200, {{"choices": [{{"message": {{"content": text}}}}], "usage": {{"completion_tokens": 7}},
                         "timings": {{"predicted_per_second": 170.5}}}})
    def log_message(self, *_):
        pass
HTTPServer.allow_reuse_address = True
HTTPServer(("127.0.0.1", int(words["--port"])), Answers).serve_forever()
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bin") / "llama-server"
    path.write_text(SERVER.format(python=sys.executable))
    path.chmod(0o755)
    return path


def launch(program: Path, tmp_path: Path, mood: str = "fine", flags: tuple[str, ...] = ()) -> Launch:
    model = tmp_path / mood
    model.touch()
    return Launch("b11434-cpu-1a2b3c4d", program, model, flags)


def said(home: Home, word: str) -> str:
    lines = server_dir(home, "demo").log_file.read_text().splitlines()
    return next(line for line in lines if line.startswith(word))


def test_a_server_starts_answers_and_stops(home: Home, program: Path, tmp_path: Path) -> None:
    wanted = launch(program, tmp_path, flags=("--no-ui", "--no-webui", "-m"))
    with started(home, "demo", wanted, {**os.environ, "LLAMA_ARG_PORT": "1"}, TOLD) as server:
        answer = server.ask("hello")
        assert (answer.text, answer.tokens, answer.tokens_per_second) == ("You said: hello", 7, 170.5)
        (running,) = running_servers(home)
        assert (running.name, running.build_id, running.port) == ("demo", "b11434-cpu-1a2b3c4d", server.port)
        assert running.pid == server.pid
    assert running_servers(home) == []
    assert said(home, "argv").endswith(
        f'["--host", "127.0.0.1", "--port", "{server.port}", "-m", "{wanted.model}", "-c", "4096", "--no-ui"]'
    )
    assert "LLAMA_ARG_" not in said(home, "environ")
    assert f'"XDG_CONFIG_HOME": "{home.servers_dir}/demo/config"' in said(home, "environ")
    assert stat.S_IMODE((home.servers_dir / "demo").stat().st_mode) == 0o700
    with pytest.raises(ProcessLookupError):
        os.kill(server.pid, 0)


@pytest.mark.parametrize(("flags", "last"), [(("--no-webui",), "--no-webui"), ((), "4096")])
def test_only_known_options_are_given(
    home: Home, program: Path, tmp_path: Path, flags: tuple[str, ...], last: str
) -> None:
    with started(home, "demo", launch(program, tmp_path, flags=flags), os.environ, TOLD):
        assert said(home, "argv").endswith(f'"{last}"]')


def test_device_choices_reach_the_server(home: Home, program: Path, tmp_path: Path) -> None:
    chosen = {**os.environ, "CUDA_VISIBLE_DEVICES": "1", "HF_TOKEN": "secret", "LLAMA_API_KEY": "x"}
    with started(home, "demo", launch(program, tmp_path), chosen, TOLD):
        assert '"CUDA_VISIBLE_DEVICES": "1"' in said(home, "environ")
        assert "secret" not in said(home, "environ")
        assert "LLAMA_API_KEY" not in said(home, "environ")


@pytest.mark.parametrize("port", [0, -1, 65536, 70000])
def test_a_port_out_of_range_is_bad_input(home: Home, program: Path, tmp_path: Path, port: int) -> None:
    with (
        pytest.raises(BadInputError, match="65535"),
        started(home, "demo", launch(program, tmp_path), os.environ, TOLD, port=port),
    ):
        pass
    assert not home.servers_dir.exists()


def test_a_taken_port_is_named_and_its_owner_left_alone(home: Home, program: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as owner:
        port = owner.getsockname()[1]
        with (
            pytest.raises(ConflictError, match=str(port)),
            started(home, "demo", launch(program, tmp_path), os.environ, TOLD, port=port),
        ):
            pass
        socket.create_connection(("127.0.0.1", port)).close()


def test_a_port_lost_in_the_race_is_replaced_by_another(home: Home, program: Path, tmp_path: Path) -> None:
    with started(home, "demo", launch(program, tmp_path, "thief"), os.environ, TOLD) as server:
        assert server.ask("again").tokens == 7


def test_an_asked_port_lost_in_the_race_is_a_conflict(home: Home, program: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with (
        pytest.raises(ConflictError, match=str(port)),
        started(home, "demo", launch(program, tmp_path, "thief"), os.environ, TOLD, port=port),
    ):
        pass


def test_a_death_while_loading_is_told_with_its_last_lines(home: Home, program: Path, tmp_path: Path) -> None:
    begun = time.monotonic()
    with (
        pytest.raises(ChildFailedError, match="status 1") as caught,
        started(home, "demo", launch(program, tmp_path, "broken"), os.environ, TOLD),
    ):
        pass
    assert time.monotonic() - begun < 5
    assert caught.value.tail[-1] == "gguf_init_from_file: failed to read magic"
    assert running_servers(home) == []


def test_an_illegal_instruction_says_rebuild(home: Home, program: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(ChildFailedError, match="SIGILL") as caught,
        started(home, "demo", launch(program, tmp_path, "illegal"), os.environ, TOLD),
    ):
        pass
    assert "another CPU" in (caught.value.hint or "")
    assert "rebuild" in (caught.value.hint or "")


def test_a_death_while_answering_is_told(home: Home, program: Path, tmp_path: Path) -> None:
    with started(home, "demo", launch(program, tmp_path, "crash"), os.environ, TOLD) as server:
        with pytest.raises(ChildFailedError, match="SIGABRT") as caught:
            server.ask("boom")
        assert caught.value.tail[-1] == "GGML_ASSERT failed"


@pytest.mark.parametrize(("mood", "words"), [("odd", "cannot understand"), ("refusing", "no slot")])
def test_an_answer_that_is_none_is_told(home: Home, program: Path, tmp_path: Path, mood: str, words: str) -> None:
    with (
        started(home, "demo", launch(program, tmp_path, mood), os.environ, TOLD) as server,
        pytest.raises(ChildFailedError, match=words),
    ):
        server.ask("?")


def test_waiting_has_an_end(home: Home, program: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(ChildFailedError, match="not ready within"),
        started(home, "demo", launch(program, tmp_path, "slow"), os.environ, TOLD, ready_timeout_s=0.5),
    ):
        pass
    assert running_servers(home) == []


def test_a_second_server_of_that_name_is_refused(home: Home, program: Path, tmp_path: Path) -> None:
    with started(home, "demo", launch(program, tmp_path), os.environ, TOLD) as server:
        with (
            pytest.raises(InUseError, match=str(server.port)),
            started(home, "demo", launch(program, tmp_path), os.environ, TOLD),
        ):
            pass
        assert server.ask("still here").tokens == 7


def test_an_interrupt_while_loading_leaves_nothing(home: Home, program: Path, tmp_path: Path) -> None:
    threading.Timer(0.5, signal.raise_signal, (signal.SIGINT,)).start()
    with pytest.raises(KeyboardInterrupt), started(home, "demo", launch(program, tmp_path, "slow"), os.environ, TOLD):
        pass
    assert running_servers(home) == []


def test_where_nothing_ends_a_server_it_outlives_a_killed_parent_and_still_counts(
    home: Home, program: Path, tmp_path: Path
) -> None:
    script = (
        "import os, sys, pathlib\n"
        "from llama_mgr.paths import Home\nfrom llama_mgr.report import SilentReporter\n"
        "from llama_mgr.serving.child_server import Launch, started\n"
        "home, program, model = map(pathlib.Path, sys.argv[1:])\n"
        "with started(Home(home), 'demo', Launch('b1', program, model, ()), os.environ, SilentReporter()):\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    model = launch(program, tmp_path).model
    root = Path(__file__).resolve().parents[2]
    subprocess.run(
        [sys.executable, "-c", script, home.root, program, model], check=False, cwd=root, timeout=30,
        env={**os.environ, "PYTHONPATH": str(root), "PATH": str(tmp_path)},  # without setpriv
    )  # fmt: skip
    (running,) = running_servers(home)
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=5)
    connection.request("GET", "/health")
    assert connection.getresponse().status == 200
    connection.close()
    os.kill(running.pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while running_servers(home) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert running_servers(home) == []


def test_a_pid_without_the_lock_is_no_server(home: Home) -> None:
    directory = server_dir(home, "ghost")
    record = ServerRecord(build_id="b1", model="/m", port=8080, pid=os.getpid(), started_at="2026-01-01T00:00:00Z")
    write_document(directory.record_file, "server", record)
    directory.alive_file.touch()
    assert running_servers(home) == []


def test_a_living_server_with_a_damaged_record_stops_who_would_delete(
    home: Home, program: Path, tmp_path: Path
) -> None:
    with started(home, "demo", launch(program, tmp_path), os.environ, TOLD):
        server_dir(home, "demo").record_file.write_text("{")
        with pytest.raises(CorruptStateError):
            running_servers(home)


def test_the_message_about_a_second_server_names_the_pid_of_the_first(
    home: Home, program: Path, tmp_path: Path
) -> None:
    wanted = launch(program, tmp_path)
    with started(home, "demo", wanted, os.environ, TOLD) as server:
        with (
            pytest.raises(InUseError, match=rf"pid {server.pid}") as caught,
            started(home, "demo", wanted, os.environ, TOLD),
        ):
            pass
        assert f"kill {server.pid}" in str(caught.value.hint)


STARTER = """
import os, sys
from pathlib import Path
from llama_mgr.paths import Home
from llama_mgr.report import SilentReporter
from llama_mgr.serving.child_server import Launch, started
home, program, model = map(Path, sys.argv[1:])
with started(Home(home), "demo", Launch("", program, model, ()), os.environ, SilentReporter()) as server:
    print(server.pid, flush=True)
    sys.stdin.read()
"""


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs util-linux's setpriv")
def test_a_server_dies_with_whoever_started_it_even_by_kill_9(home: Home, program: Path, tmp_path: Path) -> None:
    model = tmp_path / "fine"
    model.touch()
    words = [sys.executable, "-c", STARTER, str(home.root), str(program), str(model)]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(
        words, env={**os.environ, "PYTHONPATH": str(root)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        assert [one.pid for one in running_servers(home)] == [pid]
        starter.kill()
        starter.wait()
        deadline = time.monotonic() + 10
        while running_servers(home) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert running_servers(home) == []


@pytest.mark.parametrize("setpriv", ["none", "without the option"])
def test_a_server_starts_where_nothing_can_end_it_with_us(
    home: Home, program: Path, tmp_path: Path, setpriv: str
) -> None:
    place = tmp_path / "programs"
    place.mkdir()
    if setpriv == "without the option":
        (place / "setpriv").write_text("#!/bin/sh\necho 'unrecognized option: pdeathsig' >&2\nexit 1\n")
        (place / "setpriv").chmod(0o755)
    with started(home, "demo", launch(program, tmp_path), {**os.environ, "PATH": str(place)}, TOLD) as server:
        assert server.ask("hello").text == "You said: hello"


def test_a_build_that_was_deleted_before_the_start_is_named(home: Home, tmp_path: Path) -> None:
    gone = launch(tmp_path / "builds" / "gone" / "llama-server", tmp_path)
    with pytest.raises(NotFoundError, match="deleted meanwhile"), started(home, "demo", gone, os.environ, TOLD):
        pass
    assert running_servers(home) == []


def test_nobody_deletes_a_build_between_its_lookup_and_the_life_of_the_server(
    home: Home, program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = launch(program, tmp_path)
    seen: list[bool] = []

    def watching(directory: ServerDir) -> int:
        seen.append(use.user_of(home, wanted.build_id) is not None)
        return claimed_lock(directory)

    monkeypatch.setattr(child_server, "claimed_lock", watching)
    with started(home, "demo", wanted, os.environ, TOLD):
        assert seen == [True]
        assert use.user_of(home, wanted.build_id) is None
