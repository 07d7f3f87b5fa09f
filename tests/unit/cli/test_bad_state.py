"""Bad inputs 47-59 in our own state: records, builds, links and locks.

* Row 48: there is no older schema yet, so a missing one counts as the first, and others are refused.
* Rows 50 and 51 speak of an index that can be made again. Our counterpart is `instances/<name>.json`, which is no
  cache: it alone knows what a name stands for. So it is not rebuilt from a guess; the command that needs it ends
  with 5, names the file and the command that mends it, and `instance list` shows the others and warns.
* Row 54: a server is `servers/<name>/`, alive while its lock is held. What its record says of a pid is never a target.
* Row 55: the stale file is `alive.lock`.
* Row 56: commands that build wait and say for whom; those that take no time end with 4.
* Row 57: a lock file that somebody deletes while it is free is simply made again; our commands never delete one. (That
  a process that opened the deleted file notices it is tested with the store.)
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import pytest

from llama_mgr import locks
from tests.tools.bad_input import Case, World, assert_refused, case, server_runs_main
from tests.tools.fake_program import make_program
from tests.tools.shelf_build import plan_of, program_of


def record_is(content: bytes) -> Callable[[World], None]:
    def before(world: World) -> None:
        (world.home.instances_dir / "main.json").write_bytes(content)

    return before


def record_points_at(build_id: str) -> Callable[[World], None]:
    def before(world: World) -> None:
        file = world.home.instances_dir / "main.json"
        document = json.loads(file.read_bytes())
        document["generations"][0]["build_id"] = build_id
        file.write_text(json.dumps(document))

    return before


def other_bytes(world: World) -> None:
    program = program_of(world.home, plan_of(2).build_id)
    program.write_bytes(program.read_bytes().replace(b"version", b"VERSION"))


def current_is(target: str) -> Callable[[World], None]:
    def before(world: World) -> None:
        link = world.home.instances_dir / "main" / "current"
        link.unlink()
        if target:
            link.symlink_to(target)
        else:
            link.mkdir()

    return before


def file_size_is(value: str) -> Callable[[World], None]:
    def before(world: World) -> None:
        file = world.home.builds_dir / plan_of(2).build_id / "build.json"
        text = file.read_text()
        size = program_of(world.home, plan_of(2).build_id).stat().st_size
        assert f'"size_bytes": {size}' in text
        file.write_text(text.replace(f'"size_bytes": {size}', f'"size_bytes": {value}'))

    return before


def schema_is(value: str) -> Callable[[World], None]:
    def before(world: World) -> None:
        file = world.home.instances_dir / "main.json"
        file.write_text(file.read_text().replace('"schema": 1', f'"schema": {value}'))

    return before


def lock_is_held(world: World) -> None:
    path = locks.lock_file(world.home, "instance-main")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"pid": 4711, "purpose": "install main", "since": "2026-01-01T00:00:00Z"}))
    lock = world.cleanup.enter_context(path.open("rb+"))
    fcntl.flock(lock, fcntl.LOCK_EX)


EXEC = ("exec", "-i", "main", "llama-server")
WHOLE = ("instance", "repair", "main", "--check")
STATE = [
    *[
        case(50, name, *EXEC, status=5, says=("main.json", "hint:"), before=record_is(content))
        for name, content in (
            ("cut", b'{"schema": 1, "kind": "instan'), ("empty", b""), ("null", b"null"), ("deep", b"[" * 100_000),
            ("twice", b'{"schema": 1, "schema": 1}'), ("binary", bytes(range(256))),
        )
    ],
    case(51, "leaves", *EXEC, status=5, says="main.json", before=record_points_at("../../x")),
    case(51, "absolute", *EXEC, status=5, says="main.json", before=record_points_at("/etc")),
    case(51, "unknown-build", *EXEC, status=5, says="b9-cpu-00000000", before=record_points_at("b9-cpu-00000000")),
    case(52, "other-bytes", *WHOLE, status=5, says=("bin/llama-server", "sha256", "instance repair main"),
         before=other_bytes),
    case(53, "outside", *WHOLE, status=5, says=("current", "instance repair main"), before=current_is("/etc")),
    case(53, "dangling", *WHOLE, status=5, says=("current", "repair"), before=current_is("../../builds/nothing")),
    case(53, "directory", *WHOLE, status=5, says=("current", "repair"), before=current_is("")),
    case(56, "rollback", "instance", "rollback", "main", status=4, before=lock_is_held,
         says=("pid 4711", "since 2026-01-01T00:00:00Z", "install main")),
    *[
        case(58, name, *WHOLE, status=5, says="size", before=file_size_is(value))
        for name, value in (("negative", "-1"), ("infinite", "1e400"), ("word", '"7"'))
    ],
    case(58, "nan", *WHOLE, status=5, says="NaN", before=file_size_is("NaN")),
    case(58, "2-to-70", *WHOLE, status=5, says="llama-server", before=file_size_is(str(2**70))),
    case(47, "newer-record", *EXEC, status=12, says="upgrade llama-mgr", before=schema_is("99")),
    case(48, "record-schema-word", *EXEC, status=5, says="schema", before=schema_is('"x"')),
]  # fmt: skip


@pytest.mark.parametrize("one", [one.parameter for one in STATE])
def test_refused(world: World, one: Case) -> None:
    assert_refused(world, one)


def test_row_50_the_list_shows_the_others_and_warns(world: World) -> None:
    (world.home.instances_dir / "broken.json").write_bytes(b"{")
    answer = world.cli.done("instance", "list")
    assert "damaged" in answer.stdout
    assert "main" in answer.stdout
    assert "broken.json" in answer.stderr
    assert (world.home.instances_dir / "broken.json").read_bytes() == b"{"


def test_row_50_a_damaged_default_stops_only_who_needs_it(world: World) -> None:
    file = world.home.root / "default-instance.json"
    file.write_text("junk")
    refused = world.cli("exec", "llama-server")
    assert (refused.status, "llama-mgr use NAME" in refused.stderr) == (5, True), refused.stderr
    assert world.cli.json("instance", "show", "main")["default"] is False
    make_program(world.root / "own", "llama-server")
    assert world.cli.json("instance", "link", "own", world.root / "own")["default"] is True
    file.write_text("junk")
    assert world.cli.json("uninstall", "main")["removed"] == "main"
    assert "own" in world.cli.done("instance", "which").stdout


def test_row_53_a_wrong_link_is_not_followed(world: World) -> None:
    current_is("/etc")(world)
    assert "version: 2" in world.cli.done(*EXEC).stdout
    world.cli.done("instance", "repair", "main")
    assert (world.home.instances_dir / "main" / "current").resolve() == world.home.builds_dir / plan_of(2).build_id


@pytest.mark.parametrize("pid", ["child", 1, -1, 0, "abc", 2**70, None], ids=lambda pid: f"row-54-pid-{pid}")
def test_row_54_a_dead_servers_record_is_no_target(world: World, pid: object) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        server_runs_main(world)
        world.cleanup.close()  # the server is dead: nobody holds its lock
        file = world.home.servers_dir / "chat" / "server.json"
        document = json.loads(file.read_bytes())
        file.write_text(json.dumps({**document, "pid": child.pid if pid == "child" else pid, "boot_id": "other"}))
        world.cli.done("instance", "gc")
        assert "removed" in world.cli.done("uninstall", "main").stdout
        assert child.poll() is None
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()


@pytest.mark.parametrize(
    "kind", ["file", "socket", "link", "dangling", "directory", "fifo"], ids=lambda kind: f"row-55-{kind}"
)
def test_row_55_something_in_place_of_the_lock(world: World, kind: str) -> None:
    server_runs_main(world)
    world.cleanup.close()
    lock = world.home.servers_dir / "chat" / "alive.lock"
    lock.unlink()
    if kind == "file":
        lock.write_text("somebody's notes")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(lock.parent):
            listener.bind(lock.name)
    elif kind == "directory":
        lock.mkdir()
    elif kind == "fifo":
        os.mkfifo(lock)
    else:
        lock.symlink_to(world.config if kind == "dangling" else world.home.instances_dir / "main.json")
    before = world.snapshot()
    world.cli.done("instance", "gc", "--dry-run")
    assert world.snapshot() == before


def test_row_57_a_deleted_lock_file_is_made_again(world: World) -> None:
    world.cli.done("instance", "rollback", "main")
    shutil.rmtree(world.home.locks_dir)
    world.cli.done("instance", "rollback", "main")
    assert locks.lock_file(world.home, "instance-main").exists()


def test_row_59_files_from_the_future(world: World) -> None:
    future = time.mktime((2099, 1, 1, 0, 0, 0, 0, 0, 0))
    for path in world.home.root.rglob("*"):
        if not path.is_symlink():
            os.utime(path, (future, future))
    file = world.home.instances_dir / "main.json"
    file.write_text(file.read_text().replace('"made_at": "20', '"made_at": "29'))
    world.cli.done("instance", "list")
    world.cli.done("instance", "rollback", "main")
    world.cli.done("instance", "gc")
    assert "version: 1" in world.cli.done(*EXEC).stdout
