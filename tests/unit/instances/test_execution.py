"""Becoming a program of an instance, and what is said when the program cannot be run."""

import pytest

from llama_mgr import store
from llama_mgr.build.record import RECORD_NAME, Builds, recorded_files
from llama_mgr.errors import ChildFailedError, IntegrityError
from llama_mgr.instances.execution import damage_found
from llama_mgr.instances.instance import Instance, Instances, WantedBuild
from llama_mgr.paths import Home
from tests.conftest import Cli
from tests.tools.shelf_build import MakeBuild, program_of


@pytest.fixture
def main(home: Home, make_build: MakeBuild) -> Instance:
    return Instances(home).point("main", make_build(1), WantedBuild())


@pytest.mark.parametrize("how", ["empty", "cut", "other bytes", "gone", "not executable"])
@pytest.mark.parametrize("name", ["llama-server", "server"])
def test_a_damaged_program_is_an_integrity_error(cli: Cli, home: Home, main: Instance, how: str, name: str) -> None:
    program = program_of(home, main.current.build_id)
    if how == "gone":
        program.unlink()
    elif how == "not executable":
        program.chmod(0o644)
    else:
        size = {"empty": 0, "cut": 5, "other bytes": program.stat().st_size}[how]
        program.write_bytes(b"\x7fELF".ljust(size, b"\0")[:size])
    answer = cli("exec", "-i", "main", name)
    assert (answer.status, "llama-server" in answer.stderr) == (5, True), answer.stderr
    assert "hint:  llama-mgr instance repair main\n" in answer.stderr


def test_a_whole_program_that_this_system_cannot_run_is_not_called_damaged(
    cli: Cli, home: Home, main: Instance
) -> None:
    prefix = Instances(home).prefix(main)
    program_of(home, main.current.build_id).write_text("#!/no/such/interpreter\n")
    record = Builds(home).find(main.current.build_id)
    record.files["bin/llama-server"] = recorded_files(prefix)["bin/llama-server"]
    store.write_document(prefix / RECORD_NAME, "build", record)
    answer = cli("exec", "-i", "main", "server")
    assert (answer.status, "repair" in answer.stderr) == (8, False), answer.stderr


def test_a_server_that_fails_because_its_build_is_damaged(home: Home, main: Instance) -> None:
    with pytest.raises(ChildFailedError), damage_found(home, main):
        raise ChildFailedError("cannot start the server")
    program_of(home, main.current.build_id).write_bytes(b"")
    with pytest.raises(IntegrityError) as caught, damage_found(home, main):
        raise ChildFailedError("cannot start the server")
    assert caught.value.hint == "llama-mgr instance repair main"
