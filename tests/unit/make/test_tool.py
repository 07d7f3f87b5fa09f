"""Programs that run for long: their logs, their last words, and that none of them outlives us."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from llama_mgr.errors import ChildFailedError, MissingToolsError, QuantizeFailedError, StorageError
from llama_mgr.make.tool import ToolRun, require_success, run_tool, tool_environ
from llama_mgr.paths import Home
from llama_mgr.process import found_program
from tests.conftest import ROOT
from tests.tools.fake_program import make_program

ENVIRON = {"PATH": os.environ["PATH"]}


def run_of(status: int = 0, tail: tuple[str, ...] = (), log_file: Path = Path("/logs/x.log")) -> ToolRun:
    return ToolRun(("/bin/llama-x",), status, 1.0, 0, tail, log_file)


def logs(home: Home) -> list[Path]:
    return sorted(home.logs_dir.glob("*"))


def test_a_program_that_succeeds_leaves_no_log(home: Home, tmp_path: Path) -> None:
    program, heard = make_program(tmp_path, "llama-x", script="echo one; pwd; echo two >&2"), list[str]()
    run = run_tool(home, [program, "-a", "b c"], environ=ENVIRON, cwd=tmp_path, on_line=heard.append)
    assert (run.status, run.argv) == (0, (str(program), "-a", "b c"))
    assert heard == ["one", str(tmp_path), "two"]
    assert run.tail == tuple(heard)
    assert 0 < run.took_s < 10
    assert logs(home) == []


def test_the_log_of_one_that_fails_is_kept_whole(home: Home, tmp_path: Path) -> None:
    script = "n=0; while [ $n -lt 30 ]; do n=$((n+1)); echo line $n; done; printf '\\033[31mbad\\n' >&2; exit 4"
    run = run_tool(home, [make_program(tmp_path, "llama-x", script=script)], environ=ENVIRON, cwd=tmp_path)
    assert run.status == 4
    assert logs(home) == [run.log_file]
    assert run.log_file.name.startswith("llama-x-")
    assert run.log_file.read_bytes().splitlines()[0] == b"line 1"
    assert run.log_file.read_bytes().endswith(b"\x1b[31mbad\n")
    assert run.tail == (*(f"line {number}" for number in range(20, 31)), r"\x1b[31mbad")


def test_blank_lines_are_heard_and_no_part_of_the_last_words(home: Home, tmp_path: Path) -> None:
    heard: list[str] = []
    program = make_program(tmp_path, "llama-x", script=r"printf 'why  \n   \n\n'")
    run = run_tool(home, [program], environ=ENVIRON, cwd=tmp_path, on_line=heard.append)
    assert (run.tail, heard) == (("why",), ["why  ", "   "])


def test_two_runs_of_one_program_have_logs_of_their_own(home: Home, tmp_path: Path) -> None:
    program = make_program(tmp_path, "llama-x", "no", status=1)
    files = {run_tool(home, [program], environ=ENVIRON, cwd=tmp_path).log_file for _ in range(2)}
    assert set(logs(home)) == files
    assert len(files) == 2


def test_a_log_may_be_named_after_something_else_than_the_program(home: Home, tmp_path: Path) -> None:
    run = run_tool(home, [make_program(tmp_path, "x", status=1)], environ=ENVIRON, cwd=tmp_path, called="convert")
    assert run.log_file.name.startswith("convert-")
    assert run.log_file.parent == home.logs_dir


def test_standard_output_may_go_elsewhere(home: Home, tmp_path: Path) -> None:
    program = make_program(tmp_path, "llama-x", script="echo '[1]'; echo a,b >&2; exit 1")
    with (tmp_path / "out").open("w+b") as out:
        run = run_tool(home, [program], environ=ENVIRON, cwd=tmp_path, stdout=out, line_ends=b",")
        out.seek(0)
        assert out.read() == b"[1]\n"
    assert run.log_file.read_bytes() == b"a,b\n"
    assert run.tail == ("a", "b")


def test_last_words_can_be_searched() -> None:
    run = run_of(1, ("main: error", "not enough tokens left"))
    assert run.has_said("nothing", "enough tokens")
    assert not run.has_said("nothing", "Enough")
    assert not run.has_said()


def test_a_log_that_cannot_be_written_is_said(home: Home, tmp_path: Path) -> None:
    home.logs_dir.write_text("not a directory")
    with pytest.raises(StorageError, match="cannot write"):
        run_tool(home, [make_program(tmp_path, "llama-x")], environ=ENVIRON, cwd=tmp_path)


def test_without_setpriv_programs_run_all_the_same(home: Home, tmp_path: Path) -> None:
    bare = {"PATH": str(tmp_path / "nothing")}
    assert run_tool(home, [make_program(tmp_path, "llama-x", status=3)], environ=bare, cwd=tmp_path).status == 3
    with pytest.raises(MissingToolsError, match="cannot run"):
        run_tool(home, [tmp_path / "llama-y"], environ=bare, cwd=tmp_path)


def test_programs_see_the_chosen_devices_and_nothing_that_changes_results() -> None:
    user = {
        "PATH": "/bin:.", "CUDA_VISIBLE_DEVICES": "1", "GGML_VK_VISIBLE_DEVICES": "0", "LLAMA_ARG_THREADS": "1",
        "LD_PRELOAD": "x", "HF_TOKEN": "secret", "GGML_CUDA_FORCE_MMQ": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    assert tool_environ(user) == {
        "PATH": "/bin", "CUDA_VISIBLE_DEVICES": "1", "GGML_VK_VISIBLE_DEVICES": "0", "LC_ALL": "C.UTF-8",
        "LANG": "C.UTF-8",
    }  # fmt: skip


def test_a_failure_becomes_the_error_that_it_means(tmp_path: Path) -> None:
    require_success(run_of(0, ("error",)), "cannot quantize", "x.gguf", QuantizeFailedError)
    with pytest.raises(QuantizeFailedError, match=r"cannot quantize 'x.gguf': it ended with status 2") as caught:
        require_success(run_of(2, ("a", "b"), tmp_path / "x.log"), "cannot quantize", "x.gguf", QuantizeFailedError)
    assert (caught.value.tail, caught.value.log_file) == (["a", "b"], str(tmp_path / "x.log"))
    assert caught.value.hint is None


@pytest.mark.parametrize(("hint", "expected"), [(None, "--parallel 1"), ("do that", "do that")])
def test_a_kill_by_the_kernel_hints_at_memory(hint: str | None, expected: str) -> None:
    with pytest.raises(ChildFailedError, match=r"SIGKILL, as the kernel does when memory runs out") as caught:
        require_success(run_of(-9), "cannot quantize", "x.gguf", ChildFailedError, hint)
    assert expected in (caught.value.hint or "")
    with pytest.raises(ChildFailedError) as caught:
        require_success(run_of(-11), "cannot quantize", "x.gguf", ChildFailedError)
    assert ("memory" in caught.value.message, caught.value.hint) == (False, None)


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="only with setpriv (Linux) do programs die with us")
def test_a_program_dies_with_us_even_if_we_are_killed(home: Home, tmp_path: Path) -> None:
    program = make_program(tmp_path, "llama-x", script="echo $$; exec sleep 60")
    code = (
        "import sys; from pathlib import Path; from llama_mgr.make.tool import run_tool;"
        "from llama_mgr.paths import Home; here = Path(sys.argv[1]);"
        "run_tool(Home(here), [sys.argv[2]], environ={'PATH': sys.argv[3]}, cwd=here,"
        " on_line=lambda line: print(line, flush=True))"
    )
    argv = [sys.executable, "-c", code, str(home.root), str(program), ENVIRON["PATH"]]
    with subprocess.Popen(argv, env={"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True) as ours:
        assert ours.stdout is not None
        pid = int(ours.stdout.readline())
        assert found_program("sleep", ENVIRON)
        ours.send_signal(signal.SIGKILL)
        ours.wait(10)
        assert _ended_within(pid, 5)


def _ended_within(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.02)
    return False
