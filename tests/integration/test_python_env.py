"""Converter environments, made by the real uv from wheels that the test writes itself."""

import os
import platform
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from llama_mgr.build.record import Builds
from llama_mgr.errors import ChildFailedError, CorruptStateError, RemoteError
from llama_mgr.locks import held_lock
from llama_mgr.make.python_env import Environment, Environments, digests_in_use
from llama_mgr.make.requirements import requirement_set
from llama_mgr.paths import Home
from tests.tools.listener import Listener
from tests.tools.shelf_build import plan_of, publish_build
from tests.tools.wheel_index import index, wheel

UV = Path(shutil.which("uv") or Path(sys.executable).with_name("uv"))
HERE = f"cp{sys.version_info.major}{sys.version_info.minor}-linux_{platform.machine()}"


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def environments(home: Home, listener: Listener, tmp_path: Path, **more: str) -> Environments:
    environ = {
        "PATH": os.environ["PATH"], "HOME": str(tmp_path), "UV_CACHE_DIR": str(tmp_path / "cache"),
        "UV_DEFAULT_INDEX": index(tmp_path).as_uri(), **more,
    }  # fmt: skip
    return Environments(home, UV, environ, listener)


def test_exact_pins_are_kept_and_the_environment_is_shared(home: Home, listener: Listener, tmp_path: Path) -> None:
    wheel(tmp_path / "simple" / "demo", "demo", "1.0", needs=("other>=1",))
    wheel(tmp_path / "simple" / "demo", "demo", "2.0")
    wheel(tmp_path / "simple" / "other", "other", "1.5")
    rooms = environments(home, listener, tmp_path)
    wanted = requirement_set(["demo==1.0"])
    assert rooms.find(wanted) is None
    made = rooms.ensure(wanted)
    assert made.installed == ("demo==1.0", "other==1.5")
    assert (made.relaxed, made.torch_from) == ((), "")
    said = subprocess.run([made.python, "-c", "import demo; print(demo.VERSION)"], capture_output=True, check=True)
    assert said.stdout.strip() == b"1.0"
    record_at = (made.path / "environment.json").stat().st_mtime_ns
    assert rooms.ensure(requirement_set(["Demo == 1.0"])) == made
    assert (made.path / "environment.json").stat().st_mtime_ns == record_at
    assert list(home.staging_dir.iterdir()) == []


def test_a_pin_that_cannot_be_met_is_relaxed_and_said(home: Home, listener: Listener, tmp_path: Path) -> None:
    wheel(tmp_path / "simple" / "demo", "demo", "2.0")
    wheel(tmp_path / "simple" / "older", "older", "1.0")
    wheel(tmp_path / "simple" / "kept", "kept", "1.0")
    wheel(tmp_path / "simple" / "kept", "kept", "1.1")
    made = environments(home, listener, tmp_path).ensure(requirement_set(["demo==1.0", "older~=1.5.0", "kept==1.0"]))
    assert made.relaxed == ("demo==1.0 -> demo==2.0", "older~=1.5.0 -> older==1.0")
    assert "kept==1.0" in made.installed
    assert [line for line in listener.lines if "demo==1.0 -> demo==2.0" in line]


def test_torch_comes_from_the_wheel_folder_never_from_the_index(home: Home, listener: Listener, tmp_path: Path) -> None:
    wheel(tmp_path / "simple" / "torch", "torch", "2.11.0", needs=("nvidia-cublas",))
    wheel(tmp_path / "simple" / "nvidia-cublas", "nvidia_cublas", "13.0")
    python, system = HERE.split("-")
    for version in ("2.12.0+cpu", "2.13.0+cpu", "2.14.0+cu130"):
        wheel(tmp_path / "wheels", "torch", version, f"{python}-{python}-{system}")
    wheel(tmp_path / "wheels", "torch", "2.15.0+cpu", f"cp39-cp39-{system}")
    rooms = environments(home, listener, tmp_path, UV_FIND_LINKS=str(tmp_path / "wheels"))
    made = rooms.ensure(requirement_set(["torch==2.11.0"]))
    assert made.installed == ("torch==2.13.0+cpu",)
    assert made.relaxed == ("torch==2.11.0 -> torch==2.13.0+cpu",)
    assert made.torch_from == "find-links"
    exact = rooms.ensure(requirement_set(["torch==2.12.0"]))
    assert (exact.installed, exact.relaxed) == (("torch==2.12.0+cpu",), ())


def test_without_a_cpu_torch_nothing_is_installed(home: Home, listener: Listener, tmp_path: Path) -> None:
    wheel(tmp_path / "simple" / "torch", "torch", "2.11.0", needs=("nvidia-cublas",))
    wheel(tmp_path / "simple" / "nvidia-cublas", "nvidia_cublas", "13.0")
    rooms = environments(home, listener, tmp_path, UV_OFFLINE="1")
    with pytest.raises((RemoteError, ChildFailedError)) as caught:
        rooms.ensure(requirement_set(["torch==2.11.0"]))
    assert "UV_FIND_LINKS" in (caught.value.hint or "")
    assert not home.environments_dir.exists()


def test_a_torch_wheel_that_wants_gpu_packages_is_refused(home: Home, listener: Listener, tmp_path: Path) -> None:
    wheel(tmp_path / "simple" / "nvidia-cublas", "nvidia_cublas", "13.0")
    python, system = HERE.split("-")
    wheel(tmp_path / "wheels", "torch", "2.13.0", f"{python}-{python}-{system}", needs=("nvidia-cublas",))
    rooms = environments(home, listener, tmp_path, PIP_FIND_LINKS=str(tmp_path / "wheels"))
    with pytest.raises(RemoteError, match="CPU build of torch"):
        rooms.ensure(requirement_set(["torch==2.13.0"]))


def test_an_unknown_package_is_a_child_failure_with_the_tail(home: Home, listener: Listener, tmp_path: Path) -> None:
    (tmp_path / "simple").mkdir()
    with pytest.raises(ChildFailedError) as caught:
        environments(home, listener, tmp_path).ensure(requirement_set(["nowhere-to-be-found"]))
    assert any("nowhere-to-be-found" in line for line in caught.value.tail)
    assert Path(str(caught.value.log_file)).is_file()


def test_an_unreachable_index_is_remote(home: Home, listener: Listener, tmp_path: Path) -> None:
    (tmp_path / "simple").mkdir()
    environ = {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0"}
    with pytest.raises(RemoteError, match="package index"):
        environments(home, listener, tmp_path, **environ).ensure(requirement_set(["demo"]))


def test_a_broken_environment_is_made_again(home: Home, listener: Listener, tmp_path: Path) -> None:
    wheel(tmp_path / "simple" / "demo", "demo", "1.0")
    rooms, wanted = environments(home, listener, tmp_path), requirement_set(["demo"])
    made = rooms.ensure(wanted)
    made.python.unlink()
    assert rooms.find(wanted) is None
    assert rooms.ensure(wanted).python.exists()


def test_unused_environments_go_and_foreign_or_busy_ones_stay(home: Home, listener: Listener, tmp_path: Path) -> None:
    for name in ("keep", "drop", "busy"):
        wheel(tmp_path / "simple" / name, name, "1.0")
    rooms = environments(home, listener, tmp_path)
    keep, drop, busy = (rooms.ensure(requirement_set([name])) for name in ("keep", "drop", "busy"))
    foreign = home.environments_dir / "foreign"
    foreign.mkdir()
    assert rooms.unused({keep.digest}) == sorted([drop.path, busy.path, foreign])
    with held_lock(home, f"environment-{busy.path.name}", "test", listener):
        gone = [path for path in rooms.unused({keep.digest}) if rooms.discard_unused(path, lambda: {keep.digest})]
    assert gone == [drop.path]
    assert keep.path.exists()
    assert busy.path.exists()
    assert foreign.exists()
    assert not drop.path.exists()


def test_what_was_unused_a_moment_ago_is_asked_again(home: Home, listener: Listener, tmp_path: Path) -> None:
    (tmp_path / "simple").mkdir()
    rooms, wanted = environments(home, listener, tmp_path), requirement_set([])
    (path,) = [rooms.ensure(wanted).path]
    assert rooms.unused(set()) == [path]
    publish_build(home, plan_of(1), requirements="")  # an install was faster
    assert not rooms.discard_unused(path, lambda: digests_in_use(Builds(home)))
    assert rooms.find(wanted) is not None


def test_an_environment_that_is_being_deleted_is_not_handed_out(home: Home, listener: Listener, tmp_path: Path) -> None:
    """Between the last look at the builds and the deletion an install may come: it waits, and makes a new one."""
    (tmp_path / "simple").mkdir()
    rooms, wanted = environments(home, listener, tmp_path), requirement_set([])
    path = rooms.ensure(wanted).path
    made: list[Environment] = []
    install = threading.Thread(target=lambda: made.append(rooms.ensure(wanted)))

    def nothing_is_used() -> set[str]:
        install.start()
        install.join(0.3)
        assert made == []
        return set()

    assert rooms.discard_unused(path, nothing_is_used)
    install.join(30)
    assert made == [rooms.find(wanted)]


def test_a_damaged_build_may_need_any_environment(home: Home) -> None:
    build = publish_build(home, plan_of(1), requirements="demo")
    assert digests_in_use(Builds(home)) == {requirement_set(["demo"]).digest}
    assert digests_in_use(Builds(home), without=[build.build_id]) == set()
    (Builds(home).directory(build.build_id) / "build.json").write_text("{")
    with pytest.raises(CorruptStateError, match=build.build_id):
        digests_in_use(Builds(home))
