import io
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from llama_mgr import process
from llama_mgr.errors import ChildFailedError, MissingToolsError

ENVIRON = {"PATH": os.environ["PATH"]}


def test_run_returns_what_was_said() -> None:
    done = process.run(
        [sys.executable, "-c", "import sys; print('out'); print('err', file=sys.stderr)"], environ=ENVIRON
    )
    assert (done.status, done.stdout, done.stderr) == (0, "out\n", "err\n")


def test_a_failure_carries_the_last_lines_made_printable() -> None:
    with pytest.raises(ChildFailedError, match="status 3") as caught:
        process.run(["/bin/sh", "-c", "printf 'bad \\033[31m thing\\n' >&2; exit 3"], environ=ENVIRON)
    assert caught.value.tail == ["bad \\x1b[31m thing"]


def test_a_missing_program_is_a_missing_tool() -> None:
    with pytest.raises(MissingToolsError):
        process.run(["/nonexistent/tool"], environ=ENVIRON)


def test_a_child_gets_no_input_and_only_the_given_environment() -> None:
    done = process.run(["/bin/sh", "-c", "cat; env"], environ={"ONLY": "this"})
    assert "ONLY=this" in done.stdout
    assert "HOME=" not in done.stdout


@pytest.mark.parametrize("makes_groups", [False, True], ids=["in its group", "in a group of its own"])
def test_a_timeout_stops_the_whole_session(makes_groups: bool, tmp_path: Path) -> None:
    """Ninja gives each compiler a group; the parent here dies of SIGTERM and hands it on to nobody."""
    pid_file = tmp_path / "pid"
    program = f"""if True:
        import pathlib, subprocess
        child = subprocess.Popen(["sleep", "60"], process_group={0 if makes_groups else None})
        pathlib.Path({str(pid_file)!r}).write_text(str(child.pid))
        child.wait()"""
    with pytest.raises(ChildFailedError, match="did not end"):
        process.run([sys.executable, "-c", program], environ=ENVIRON, timeout_s=1)
    pid = int(pid_file.read_text())
    for _ in range(50):
        if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().split()[2]:
            return
        time.sleep(0.1)
    pytest.fail("the grandchild lives")


def test_stream_hands_on_lines_and_logs_everything() -> None:
    log, lines = io.BytesIO(), list[str]()
    status = process.stream(
        ["/bin/sh", "-c", r"printf 'one\ntwo\rthree' ; echo four >&2; exit 5"],
        environ=ENVIRON,
        log=log,
        on_line=lines.append,
    )
    assert status == 5
    assert lines == ["one", "two", "threefour"]
    assert log.getvalue() == b"one\ntwo\rthreefour\n"


def test_an_interrupt_stops_the_child_and_its_children(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    timer = threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        process.stream(
            ["/bin/sh", "-c", f"echo $$ > {pid_file}; sleep 60; true"], environ=ENVIRON, log=io.BytesIO(), on_line=print
        )
    assert time.monotonic() - started < 5
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_poisoned_variables_do_not_reach_children() -> None:
    poisoned = {
        "LD_PRELOAD": "x", "PYTHONPATH": "x", "GIT_DIR": "x", "GIT_SSH_COMMAND": "x", "CMAKE_TOOLCHAIN_FILE": "x",
        "CMAKE_GENERATOR": "x", "CFLAGS": "x", "NINJA_STATUS": "x", "SOURCE_DATE_EPOCH": "1", "LLAMA_ARG_PORT": "1",
        "CCACHE_DISABLE": "1", "HF_TOKEN": "secret",
    }  # fmt: skip
    kept = process.child_environ({**poisoned, "PATH": "/bin", "https_proxy": "p"}, EXTRA="1")
    assert not set(kept) & set(poisoned)
    assert kept["PATH"] == "/bin"
    assert kept["https_proxy"] == "p"
    assert kept["EXTRA"] == "1"


def test_programs_are_never_taken_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted = tmp_path / "cmake"
    planted.write_text("#!/bin/sh\n")
    planted.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    assert process.found_program("cmake", {"PATH": f".:{os.pathsep}:relative"}) is None
    assert process.found_program("cmake", {"PATH": str(tmp_path)}) == planted


def test_status_words() -> None:
    assert process.status_words(-9) == "it was killed by SIGKILL"
    assert process.status_words(2) == "it ended with status 2"


def test_a_second_interrupt_does_not_leave_the_child_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        child = process.start(["/bin/sh", "-c", "trap '' TERM; sleep 60; sleep 60"], environ=ENVIRON, log=log)
    time.sleep(0.3)
    wait = child.wait

    def interrupted(_: float | None = None) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(child, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        process.stop(child)
    assert wait(5) == -signal.SIGKILL


def test_a_program_that_replaces_us_gets_the_default_signals() -> None:
    program = "from llama_mgr.process import replace; replace(['/bin/grep', 'SigIgn', '/proc/self/status'], environ={})"
    done = process.run([sys.executable, "-c", program], environ={**ENVIRON, "PYTHONPATH": str(Path.cwd())})
    assert int(done.stdout.split()[1], 16) & (1 << (signal.SIGPIPE - 1)) == 0
