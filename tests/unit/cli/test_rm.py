"""`llama-mgr rm`: what goes, what it asks, and what it refuses."""

import fcntl
import os
import pty
import subprocess
from pathlib import Path

import pytest

from llama_mgr.paths import Home
from llama_mgr.serving.server_record import RECORD_KIND, ServerRecord, server_dir
from llama_mgr.store import write_document
from tests.conftest import Cli
from tests.tools.gguf_file import model_bytes
from tests.tools.model_library import put, put_recorded


@pytest.fixture
def filled(home: Home) -> Home:
    put_recorded(home.models_dir / "o/r/r-Q4_K_M.gguf")
    put_recorded(home.models_dir / "o/r/r-Q8_0.gguf", model_bytes(quant="Q8_0"))
    put_recorded(home.models_dir / "o/other/other-Q4_K_M.gguf", model_bytes(seed=1))
    return home


def files(home: Home) -> set[str]:
    return {path.name for path in home.models_dir.rglob("*.gguf")}


def test_one_quant(cli: Cli, filled: Home) -> None:
    document = cli.json("rm", "o/r:Q4_K_M", "-y")
    path = filled.models_dir / "o/r/r-Q4_K_M.gguf"
    assert document == {"removed": ["o/r:Q4_K_M"], "files": [str(path)], "freed_bytes": len(model_bytes())}
    assert files(filled) == {"r-Q8_0.gguf", "other-Q4_K_M.gguf"}
    assert [row["key"] for row in cli.json("list")["models"]] == ["o/other:Q4_K_M", "o/r:Q8_0"]


def test_a_whole_repository(cli: Cli, filled: Home) -> None:
    assert "removed o/r:Q4_K_M, o/r:Q8_0" in cli.done("rm", "O/R", "-y").stdout
    assert files(filled) == {"other-Q4_K_M.gguf"}


def test_part_of_a_name_must_mean_one_model(cli: Cli, filled: Home) -> None:
    answer = cli("rm", "r", "-y")
    assert answer.status == 2
    assert len(files(filled)) == 3
    cli.done("rm", "oth", "r:q8", "-y")
    assert files(filled) == {"r-Q4_K_M.gguf"}


def test_without_a_terminal_it_must_be_told(cli: Cli, filled: Home) -> None:
    answer = cli("rm", "o/r:Q4_K_M")
    assert answer.status == 2
    assert "hint:  say yes with -y" in answer.stderr
    assert len(files(filled)) == 3


@pytest.mark.parametrize(("typed", "status", "left"), [("y", 0, 2), ("", 130, 3)])
def test_on_a_terminal_it_asks(cli: Cli, filled: Home, typed: str, status: int, left: int) -> None:
    leader, follower = pty.openpty()
    child = subprocess.Popen(
        cli.argv("rm", "o/r:Q4_K_M"), env=dict(cli.environ), cwd=cli.cwd, stdin=follower, stderr=subprocess.PIPE
    )
    os.write(leader, f"{typed}\n".encode())
    assert child.stderr is not None
    asked = child.stderr.read().decode()
    child.stderr.close()
    assert child.wait() == status
    os.close(leader)
    os.close(follower)
    assert str(filled.models_dir / "o/r/r-Q4_K_M.gguf") in asked
    assert "Remove o/r:Q4_K_M" in asked
    assert len(files(filled)) == left


def test_what_a_server_uses_stays(cli: Cli, filled: Home) -> None:
    path = filled.models_dir / "o/r/r-Q4_K_M.gguf"
    directory = server_dir(filled, "chat")
    directory.path.mkdir(parents=True)
    record = ServerRecord(build_id="b1-cpu-0123456789ab", model=str(path), port=8080, started_at="", pid=4711)
    write_document(directory.record_file, RECORD_KIND, record)
    with directory.alive_file.open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        answer = cli("rm", "o/r", "-y")
        assert answer.status == 4
        assert "it is used by the server 'chat' (pid 4711)" in answer.stderr
        assert len(files(filled)) == 3
    cli.done("rm", "o/r", "-y")


@pytest.mark.usefixtures("filled")
def test_files_of_watched_directories_stay(cli: Cli, tmp_path: Path) -> None:
    put(tmp_path / "lm/p/theirs/theirs-Q4_K_M.gguf", model_bytes(seed=5))
    cli.done("index", "add", tmp_path / "lm")
    for text in ("theirs", str(tmp_path / "lm/p/theirs/theirs-Q4_K_M.gguf")):
        answer = cli("rm", text, "-y")
        assert answer.status == 11, answer.stderr
        assert f"llama-mgr index remove {tmp_path / 'lm'}" in answer.stderr


@pytest.mark.usefixtures("filled")
def test_an_own_model_whose_content_others_have_too(cli: Cli, tmp_path: Path) -> None:
    theirs = put(tmp_path / "lm/p/r/r-Q4_K_M.gguf")
    cli.done("index", "add", tmp_path / "lm")
    cli.done("rm", "o/r:Q4_K_M", "-y")
    assert theirs.exists()
    assert [row["key"] for row in cli.json("list", "--filter", "p/r")["models"]] == ["p/r:Q4_K_M"]


@pytest.mark.parametrize(
    ("theirs", "text", "status"),
    [("zeta.gguf", "zeta", 11), ("gone.gguf", "tiny", 3), ("small.gguf", "tiny", 11), ("zeta-y.gguf", "zet", 2)],
)
def test_what_means_a_model_elsewhere_never_means_another_of_ours(
    cli: Cli, home: Home, tmp_path: Path, theirs: str, text: str, status: int
) -> None:
    own = [
        put_recorded(home.models_dir / "x/zeta-mine/zeta-mine.gguf"),
        put_recorded(home.models_dir / "local/tinyville/tinyville.gguf", model_bytes(seed=1)),
    ]
    put(tmp_path / "folder" / theirs, model_bytes(seed=5))
    cli.done("index", "add", tmp_path / "folder")
    (key,) = [row["key"] for row in cli.json("list")["models"] if row["key"].startswith("folder/")]
    cli.done("alias", "add", "tiny", "nobody/gone" if status == 3 else key.partition(":")[0])
    answer = cli("rm", text, "-y")
    assert answer.status == status, answer.stderr
    assert all(path.exists() for path in own)


def test_a_tag_never_means_all_quants(cli: Cli, filled: Home) -> None:
    answer = cli("rm", "o/r:latest", "-y")
    assert (answer.status, len(files(filled))) == (2, 3), answer.stderr


def test_broken_files_by_path(cli: Cli, filled: Home) -> None:
    broken = put(filled.models_dir / "o/r/broken.gguf", b"GGUF")
    cli.done("rm", broken, "-y")
    assert not broken.exists()
    assert cli("rm", broken, "-y").status == 3


@pytest.mark.parametrize(("text", "status"), [("nothing", 3), ("/etc/passwd", 11), ("..", 11)])
def test_what_is_not_ours(cli: Cli, filled: Home, tmp_path: Path, text: str, status: int) -> None:
    put(tmp_path / "x.gguf")
    answer = cli("rm", "o/other", text, "-y")
    assert (answer.status, len(files(filled))) == (status, 3), answer.stderr
