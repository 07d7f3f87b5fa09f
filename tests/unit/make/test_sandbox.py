"""The converter's surroundings, as a program in them finds them."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from llama_mgr import process
from llama_mgr.errors import StorageError
from llama_mgr.make.sandbox import Sandbox, sandbox
from tests.conftest import ROOT
from tests.tools.fake_program import make_program

CANARY = "tok3n-canary"
ENVIRON = {
    "PATH": os.environ["PATH"], "HOME": "/home/of-the-user", "USER": "user", "TZ": "UTC", "HF_TOKEN": CANARY,
    "HUGGING_FACE_HUB_TOKEN": CANARY, "GITHUB_TOKEN": CANARY, "AWS_SECRET_ACCESS_KEY": CANARY,
    "SSH_AUTH_SOCK": f"/run/{CANARY}", "http_proxy": f"http://{CANARY}@proxy:1", "HTTPS_PROXY": f"http://{CANARY}:1",
    "LLAMA_ARG_MODEL": CANARY, "LLAMA_MGR_HOME": CANARY, "PYTHONPATH": CANARY, "LD_PRELOAD": "", "HF_HOME": CANARY,
    "HF_ENDPOINT": CANARY, "XDG_CACHE_HOME": CANARY, "SSL_CERT_FILE": CANARY,
}  # fmt: skip
WITHOUT_NETWORK = pytest.mark.skipif(
    subprocess.run(
        ["unshare", "--map-root-user", "--net", "true"] if shutil.which("unshare") else ["false"],
        check=False, capture_output=True,
    ).returncode != 0,
    reason="this system takes the network from nobody",
)  # fmt: skip
DYING = pytest.mark.skipif(not shutil.which("setpriv"), reason="there is no setpriv")
LOOK = """
import json, os, resource, socket, sys, tempfile
from pathlib import Path

def tried(action):
    try:
        return repr(action())
    except OSError as error:
        return f"{type(error).__name__} {error.errno}"

(Path.home() / "written").write_text("x")
print(json.dumps({
    "environ": dict(os.environ), "home": str(Path.home()), "temporary": tempfile.gettempdir(), "argv": sys.argv,
    "connected": tried(lambda: socket.create_connection(("127.0.0.1", int(sys.argv[1])), 5)),
    "interfaces": tried(lambda: [name for _, name in socket.if_nameindex()]),
    "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
    "status": Path("/proc/self/status").read_text() if Path("/proc").exists() else "",
    "mode": os.stat(Path.home()).st_mode & 0o777,
}))
"""


def look(box: Sandbox, *words: object) -> dict[str, Any]:
    done = process.run([*box.argv_prefix, sys.executable, "-c", LOOK, *map(str, words)], environ=box.environ)
    return dict(json.loads(done.stdout))


@pytest.fixture
def listening() -> Any:  # noqa: ANN401 (a generator of sockets)
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_a_program_finds_neither_tokens_nor_the_home_of_the_user(tmp_path: Path, listening: socket.socket) -> None:
    seen = look(sandbox(tmp_path / "scratch", ENVIRON), listening.getsockname()[1])
    assert CANARY not in json.dumps(seen)
    assert "of-the-user" not in json.dumps(seen)
    names = seen["environ"].keys()
    assert {name for name in names if "TOKEN" in name} == {"HF_HUB_DISABLE_IMPLICIT_TOKEN", "TOKENIZERS_PARALLELISM"}
    assert not [name for name in names if name.startswith(("LLAMA_", "SSH_", "LD_")) or "proxy" in name.lower()]
    assert (tmp_path / "scratch" / "home" / "written").read_text() == "x"
    assert seen["temporary"].startswith(str(tmp_path / "scratch"))
    assert {name: seen["environ"].get(name) for name in ("USER", "TZ", "LANG")} == {
        "USER": "user", "TZ": "UTC", "LANG": "C.UTF-8",
    }  # fmt: skip


def test_every_place_of_its_own_is_there_and_private(tmp_path: Path) -> None:
    box = sandbox(tmp_path / "scratch", ENVIRON)
    places = {name: Path(value) for name, value in box.environ.items() if value.startswith(str(tmp_path))}
    assert places.keys() == {
        "HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR",
        "HF_HOME", "HF_MODULES_CACHE", "TORCH_HOME",
    }  # fmt: skip
    for directory in (tmp_path / "scratch", *(tmp_path / "scratch").rglob("*")):
        assert directory.stat().st_mode & 0o777 == 0o700, directory
    assert all(place.is_dir() for place in places.values())
    assert sandbox(tmp_path / "scratch", ENVIRON) == box


def test_libraries_are_told_to_stay_offline(tmp_path: Path) -> None:
    environ = sandbox(tmp_path / "scratch", ENVIRON).environ
    told = {
        "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1", "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip
    assert environ.items() >= told.items()


@WITHOUT_NETWORK
def test_a_program_reaches_no_network_not_even_this_machine(tmp_path: Path, listening: socket.socket) -> None:
    port = listening.getsockname()[1]
    box = sandbox(tmp_path / "scratch", ENVIRON)
    assert not box.has_network
    seen = look(box, port)
    assert seen["connected"].startswith("OSError")
    assert seen["interfaces"] in {"['lo']", "[]"}
    unbound = Sandbox((), box.environ, has_network=True)
    assert "socket" in look(unbound, port)["connected"], "the listener is there"


@WITHOUT_NETWORK
@DYING
def test_a_program_gains_nothing_and_leaves_no_core(tmp_path: Path) -> None:
    seen = look(sandbox(tmp_path / "scratch", ENVIRON), 1)
    assert "NoNewPrivs:\t1" in seen["status"]
    if shutil.which("prlimit"):
        assert seen["core"] == 0


def test_status_and_arguments_pass_through(tmp_path: Path) -> None:
    box = sandbox(tmp_path / "scratch", ENVIRON)
    words = [*box.argv_prefix, sys.executable, "-c", "import sys; print(sys.argv[1:]); sys.exit(7)", "--net", "a b"]
    done = process.run(words, environ=box.environ, check=False)
    assert (done.status, done.stdout) == (7, "['--net', 'a b']\n")


# One that has a token in its environment, starts a program apart, and says its number.
PARENT = """
import sys
from pathlib import Path
from llama_mgr import process
from llama_mgr.make.sandbox import sandbox
box = sandbox(Path(sys.argv[1]), {"PATH": sys.argv[2]})
print(process.run([*box.argv_prefix, sys.executable, "-c", sys.argv[3]], environ=box.environ, check=False).stdout)
"""
SPY = """
import os
print(os.getppid(), flush=True)
print(open(f"/proc/{os.getppid()}/environ").read())
"""


@WITHOUT_NETWORK
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="there is no /proc")
def test_a_program_cannot_read_the_environment_of_its_parent(tmp_path: Path) -> None:
    words = [sys.executable, "-c", PARENT, str(tmp_path / "scratch"), os.environ["PATH"]]
    environ = {**os.environ, "HF_TOKEN": CANARY}
    done = subprocess.run([*words, SPY], cwd=ROOT, env=environ, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split()[0].isdigit()
    assert CANARY not in done.stdout


@DYING
def test_a_program_dies_with_us(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    program = f"import time\nfor _ in range(600):\n  open({str(alive)!r}, 'w').close()\n  time.sleep(0.05)"
    words = [sys.executable, "-c", PARENT, str(tmp_path / "scratch"), os.environ["PATH"], program]
    with subprocess.Popen(words, cwd=ROOT) as parent:
        _wait(alive.exists)
        parent.kill()
    time.sleep(0.3)
    alive.unlink()
    time.sleep(0.3)
    assert not alive.exists()


def _wait(condition: Any) -> None:  # noqa: ANN401 (a function without arguments)
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_where_the_system_takes_the_network_from_nobody_that_is_said(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    make_program(tools, "unshare", "Operation not permitted", status=1)
    for name in ("true", "env"):
        (tools / name).symlink_to(shutil.which(name) or "")
    box = sandbox(tmp_path / "scratch", {"PATH": str(tools)})
    assert (box.argv_prefix, box.has_network) == ((), True)
    assert box.environ["HF_HUB_OFFLINE"] == "1"


def test_a_system_without_such_programs(tmp_path: Path) -> None:
    box = sandbox(tmp_path / "scratch", {"PATH": ""})
    assert (box.argv_prefix, box.has_network) == ((), True)


def test_a_scratch_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="cannot make"):
        sandbox(tmp_path / "file" / "scratch", ENVIRON)
