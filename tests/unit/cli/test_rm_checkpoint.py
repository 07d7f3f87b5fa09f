"""`llama-mgr rm` and `list` with checkpoints: what goes, what stays, and what a kill leaves."""

import hashlib
import os
import pty
import subprocess
from pathlib import Path

import pytest

from llama_mgr.errors import BusyError, RefusedError
from llama_mgr.locks import held_lock
from llama_mgr.models.checkpoint import RECORD_KIND, CheckpointFile, CheckpointRecord
from llama_mgr.models.checkpoint_removal import Checkpoint, CheckpointRemover
from llama_mgr.models.model_lock import lock_name
from llama_mgr.partial import partial_path
from llama_mgr.paths import Home
from llama_mgr.report import SilentReporter
from llama_mgr.store import write_document
from tests.conftest import Cli
from tests.tools.gguf_file import model_bytes
from tests.tools.model_library import put, put_recorded

FILES = {"config.json": b"{}", "model.safetensors": b"w" * 5000, "1_Pooling/config.json": b"[]"}
SIZE_BYTES = sum(map(len, FILES.values()))


def put_checkpoint(place: Path, *, repo: str = "o/r", record: str = "checkpoint.json", extra: str = "") -> Path:
    for name, content in FILES.items():
        put(place / name, content)
    listed = [CheckpointFile(name, len(content)) for name, content in FILES.items()]
    listed += [CheckpointFile(extra, 1)] if extra else []
    document = CheckpointRecord(repo=repo, revision="a" * 40, downloaded_at="", files=listed)
    write_document(place / record, RECORD_KIND, document)
    return place


@pytest.fixture
def place(home: Home) -> Path:
    return put_checkpoint(home.models_dir / "o/r/checkpoint")


def left(home: Home) -> list[str]:
    return sorted(str(path.relative_to(home.models_dir)) for path in home.models_dir.rglob("*") if not path.is_dir())


@pytest.mark.parametrize("text", ["o/r", "O/R", "hf:o/r"])
@pytest.mark.usefixtures("place")
def test_a_checkpoint_alone(cli: Cli, home: Home, text: str) -> None:
    document = cli.json("rm", text, "-y")
    assert document["removed"] == ["o/r (checkpoint)"]
    assert sorted(document["files"]) == sorted(str(home.models_dir / "o/r/checkpoint" / name) for name in FILES)
    assert document["freed_bytes"] >= SIZE_BYTES
    assert list(home.models_dir.iterdir()) == []


def test_it_goes_with_all_quants_and_stays_with_one(cli: Cli, home: Home, place: Path) -> None:
    put_recorded(home.models_dir / "o/r/r-Q4_K_M.gguf")
    put_recorded(home.models_dir / "o/r/r-Q8_0.gguf", b"GGUF")
    cli.done("rm", "o/r:Q4_K_M", "-y")
    assert (place / "checkpoint.json").exists()
    (home.models_dir / "o/r/r-Q8_0.gguf").unlink()
    (home.models_dir / "o/r/r-Q8_0.gguf.json").unlink()
    put_recorded(home.models_dir / "o/r/r-Q4_K_M.gguf")
    assert "removed o/r:Q4_K_M, o/r (checkpoint)" in cli.done("rm", "o/r", "-y").stdout
    assert list(home.models_dir.iterdir()) == []


def test_a_name_that_is_only_a_part_never_means_another_model(cli: Cli, home: Home, place: Path) -> None:
    put_recorded(home.models_dir / "o/rx/rx-Q4_K_M.gguf")
    cli.done("rm", "o/r", "-y")
    assert not place.exists()
    assert left(home) == ["o/rx/rx-Q4_K_M.gguf", "o/rx/rx-Q4_K_M.gguf.json"]


def test_the_question_names_it_with_its_size(cli: Cli, home: Home, place: Path) -> None:
    leader, follower = pty.openpty()
    argv = cli.argv("rm", "o/r")
    child = subprocess.Popen(argv, env=dict(cli.environ), cwd=cli.cwd, stdin=follower, stderr=subprocess.PIPE)
    os.write(leader, b"n\n")
    _, asked = child.communicate(timeout=60)
    os.close(leader)
    os.close(follower)
    assert child.returncode == 130
    assert f"{place} (checkpoint: 3 files, 4.9 KiB)" in asked.decode()
    assert "Remove o/r (checkpoint) (4.9 KiB)?" in asked.decode()
    assert len(left(home)) == 4


def test_what_was_only_begun_goes_with_its_partials(cli: Cli, home: Home) -> None:
    place = put_checkpoint(home.models_dir / "o/r/checkpoint", record=".checkpoint.json", extra="more.safetensors")
    put(partial_path(place / "more.safetensors", hashlib.sha256(b"x").hexdigest()), b"x" * 100)
    cli.done("rm", "o/r", "-y")
    assert list(home.models_dir.iterdir()) == []


def test_files_of_others_stay(cli: Cli, place: Path, tmp_path: Path) -> None:
    outside = put(tmp_path / "outside/config.json", b"mine")
    put(place / "notes.txt", b"mine")
    (place / "1_Pooling/config.json").unlink()
    (place / "1_Pooling").rmdir()
    (place / "1_Pooling").symlink_to(outside.parent)
    (place / "model.safetensors").unlink()
    (place / "model.safetensors").symlink_to(outside)
    cli.done("rm", "o/r", "-y")
    assert outside.read_bytes() == b"mine"
    assert (place / "notes.txt").read_bytes() == b"mine"
    assert sorted(path.name for path in place.iterdir()) == ["1_Pooling", "model.safetensors", "notes.txt"]


@pytest.mark.parametrize("level", ["o", "o/r", "o/r/checkpoint"])
def test_nothing_behind_a_link_goes(cli: Cli, home: Home, place: Path, tmp_path: Path, level: str) -> None:
    real = (home.models_dir / level).rename(tmp_path / "elsewhere")
    (home.models_dir / level).symlink_to(real)
    answer = cli("rm", "o/r", "-y")
    assert answer.status == 3
    assert "it lies behind a link" in answer.stderr
    assert (place / "model.safetensors").exists()


@pytest.mark.parametrize("damage", ["junk", "of another repository", "a name that leads out"])
def test_a_record_that_cannot_be_believed_removes_nothing(cli: Cli, home: Home, damage: str) -> None:
    place = home.models_dir / "o/r/checkpoint"
    outside = put(home.models_dir / "o/r/outside.txt", b"x")
    extra = "../outside.txt" if damage == "a name that leads out" else ""
    put_checkpoint(place, repo="other/repo" if damage == "of another repository" else "o/r", extra=extra)
    if damage == "junk":
        (place / "checkpoint.json").write_text("junk")
    answer = cli("rm", "o/r", "-y")
    assert answer.status == 3, answer.stderr
    assert "is left" in answer.stderr
    assert outside.exists()
    assert len(left(home)) == 5
    assert "checkpoint" in cli.done("list").stderr


def test_after_a_kill_it_is_one_that_was_begun(
    cli: Cli, home: Home, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remover, unlink = CheckpointRemover(home, SilentReporter()), os.unlink

    def killed(path: str, *, dir_fd: int | None = None) -> None:
        if path == "model.safetensors":
            raise KeyboardInterrupt
        unlink(path, dir_fd=dir_fd)

    found = remover.named("o/r")
    monkeypatch.setattr(os, "unlink", killed)
    with pytest.raises(KeyboardInterrupt):
        remover.remove(found)
    monkeypatch.undo()
    assert (place / "model.safetensors").exists()
    assert not (place / "config.json").exists()
    (one,) = cli.json("list")["checkpoints"]
    assert one["is_whole"] is False
    cli.done("rm", "o/r", "-y")
    assert list(home.models_dir.iterdir()) == []


def test_while_it_is_pulled_it_stays(home: Home, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llama_mgr.models.checkpoint_removal._BUSY_TIMEOUT_S", 0.1)
    remover = CheckpointRemover(home, SilentReporter())
    found = remover.named("o/r")
    with held_lock(home, lock_name("o/r"), "pull o/r", SilentReporter()), pytest.raises(BusyError, match="pull o/r"):
        remover.remove(found)
    assert len(list(place.rglob("*.*"))) == 4


def test_a_directory_that_became_a_link_is_not_followed(
    home: Home, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside = put(tmp_path / "outside/config.json", b"mine").parent
    remover = CheckpointRemover(home, SilentReporter())
    files_of = remover.files_of
    (found,) = remover.named("o/r")

    def swapped(one: Checkpoint) -> list[Path]:
        files = files_of(one)
        (place / "1_Pooling").rename(tmp_path / "kept")
        (place / "1_Pooling").symlink_to(outside)
        return files

    monkeypatch.setattr(remover, "files_of", swapped)
    with pytest.raises(RefusedError):
        remover.remove([found])
    assert (outside / "config.json").read_bytes() == b"mine"


def test_list_counts_them(cli: Cli, home: Home, place: Path) -> None:
    assert cli.json("list")["checkpoints"] == [
        {"name": "o/r", "revision": "a" * 40, "size_bytes": SIZE_BYTES, "path": str(place), "is_whole": True}
    ]
    assert cli.done("list").stdout == "no model yet; 1 checkpoint for conversion, 4.9 KiB (see --json)\n"
    put_recorded(home.models_dir / "o/r/r-Q4_K_M.gguf")
    assert cli.done("list").stdout.endswith("; 1 checkpoint for conversion, 4.9 KiB (see --json)\n")
    assert cli.json("list", "--filter", "nothing")["checkpoints"] == []
    (home.models_dir / "o/empty/checkpoint").mkdir(parents=True)
    assert len(cli.json("list")["checkpoints"]) == 1


def test_a_prefix_does_not_change_what_goes(cli: Cli, home: Home) -> None:
    for quant in ("Q4_K_M", "Q8_0"):
        path = home.models_dir / "o" / "two" / f"m-{quant}.gguf"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(model_bytes(quant=quant))
    removed = cli.json("rm", "hf:o/two", "-y")["removed"]
    assert sorted(removed) == ["o/two:Q4_K_M", "o/two:Q8_0"]
