"""`llama-mgr pull` from the command line, against a hub that runs here."""

import hashlib
import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llama_mgr.paths import Home
from tests.conftest import Answer, Cli
from tests.tools.gguf_file import model_bytes
from tests.tools.hub_models import OWNER_REPO, checkpoint, projector, quants, shards
from tests.tools.local_hub import LocalHub

BIG = {"tiny-Q4_K_M.gguf": model_bytes(layers=12)}
WITHOUT_LOCKS = "import fcntl\nfcntl.flock = lambda *_: None\n"


@pytest.fixture
def hub(cli: Cli) -> Iterator[LocalHub]:
    """A hub, which the command line uses."""
    with LocalHub() as running:
        cli.environ = {**cli.environ, **running.environ}
        yield running


@pytest.fixture
def place(home: Home) -> Path:
    return home.models_dir / "owner" / "tiny-GGUF"


def names(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def started(cli: Cli, *words: object, **extra: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        cli.argv(*words), env={**cli.environ, **extra}, cwd=cli.cwd, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def ended(child: "subprocess.Popen[str]") -> Answer:
    stdout, stderr = child.communicate(timeout=60)
    return Answer(child.returncode, stdout, stderr)


def test_a_model_is_pulled_and_the_next_step_named(hub: LocalHub, cli: Cli, place: Path) -> None:
    hub.add(OWNER_REPO, {**quants("Q4_K_M", "Q8_0"), **projector()})
    first = cli.done("pull", OWNER_REPO)
    assert "owner/tiny-GGUF:Q4_K_M is here" in first.stdout
    assert str(place / "mmproj-F16.gguf") in first.stdout
    assert "next: llama-mgr show owner/tiny-GGUF:Q4_K_M" in first.stdout
    assert "taking Q4_K_M" in first.stderr
    assert "is up to date" in cli.done("pull", OWNER_REPO).stdout


def next_command(said: str) -> list[str]:
    (line,) = [line for line in said.splitlines() if line.startswith("next: llama-mgr ")]
    return shlex.split(line.removeprefix("next: llama-mgr "))


@pytest.mark.parametrize("content", ["Q8_0", "Q4_K_M"])
def test_the_next_step_shows_what_came_whatever_its_file_is_called(
    hub: LocalHub, cli: Cli, place: Path, content: str
) -> None:
    hub.add(OWNER_REPO, {"liar-Q5_K_M.gguf": model_bytes(quant=content)})
    said = cli.done("pull", f"{OWNER_REPO}:Q5_K_M").stdout
    assert said.startswith(f"{OWNER_REPO}:{content} is here")
    assert [one["path"] for one in cli.json(*next_command(said))["files"]] == [str(place / "liar-Q5_K_M.gguf")]


def test_the_next_step_shows_the_second_of_two_models_of_one_quant(hub: LocalHub, cli: Cli, place: Path) -> None:
    hub.add(OWNER_REPO, {f"{name}-Q4_K_M.gguf": model_bytes(name, seed=len(name)) for name in ("one", "other one")})
    for name in ("one", "other one"):
        said = cli.done("pull", f"{OWNER_REPO}/{name}-Q4_K_M.gguf").stdout
        assert [one["path"] for one in cli.json(*next_command(said))["files"]] == [str(place / f"{name}-Q4_K_M.gguf")]


def test_a_model_that_another_tool_has_is_not_downloaded(hub: LocalHub, cli: Cli, place: Path, tmp_path: Path) -> None:
    hub.add(OWNER_REPO, BIG)
    cli.done("pull", OWNER_REPO, "--dir", tmp_path / "other")
    cli.done("index", "add", tmp_path / "other")
    place.mkdir(parents=True)
    sha256 = hashlib.sha256(BIG["tiny-Q4_K_M.gguf"]).hexdigest()
    (place / f".tiny-Q4_K_M.gguf.{sha256[:16]}.part").write_bytes(BIG["tiny-Q4_K_M.gguf"][:1000])  # begun before
    served = hub.served.total()
    answer = cli.done("pull", OWNER_REPO, "--json")
    assert hub.served.total() == served
    assert f"taken from {tmp_path / 'other' / 'tiny-Q4_K_M.gguf'} instead of the network" in answer.stderr
    document = json.loads(answer.stdout)
    assert (document["bytes_fetched"], document["was_there"]) == (0, False)
    assert names(place) == ["tiny-Q4_K_M.gguf", "tiny-Q4_K_M.gguf.json"]
    assert (place / "tiny-Q4_K_M.gguf").read_bytes() == BIG["tiny-Q4_K_M.gguf"]


@pytest.mark.parametrize("is_same", [True, False], ids=["same", "another"])
def test_a_file_whose_sha256_nobody_knows_is_hashed(
    hub: LocalHub, cli: Cli, place: Path, tmp_path: Path, is_same: bool
) -> None:
    content = BIG["tiny-Q4_K_M.gguf"]
    hub.add(OWNER_REPO, BIG)
    found = tmp_path / "lm-studio" / "pub" / "repo" / "tiny.gguf"
    found.parent.mkdir(parents=True)
    found.write_bytes(content if is_same else content[:-1] + bytes([content[-1] ^ 1]))
    cli.done("index", "add", tmp_path / "lm-studio")
    answer = cli.json("pull", OWNER_REPO)
    assert (answer["bytes_fetched"] == 0) == is_same
    assert (place / "tiny-Q4_K_M.gguf").read_bytes() == content


def test_a_copy_that_is_not_what_its_record_says_is_not_taken(
    hub: LocalHub, cli: Cli, place: Path, tmp_path: Path
) -> None:
    hub.add(OWNER_REPO, BIG)
    cli.done("pull", OWNER_REPO, "--dir", tmp_path / "other")
    cli.done("index", "add", tmp_path / "other")
    with (tmp_path / "other" / "tiny-Q4_K_M.gguf").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(bytes([BIG["tiny-Q4_K_M.gguf"][-1] ^ 1]))
    assert cli.json("pull", OWNER_REPO)["bytes_fetched"] == len(BIG["tiny-Q4_K_M.gguf"])
    assert names(place) == ["tiny-Q4_K_M.gguf", "tiny-Q4_K_M.gguf.json"]
    assert (place / "tiny-Q4_K_M.gguf").read_bytes() == BIG["tiny-Q4_K_M.gguf"]


@pytest.mark.parametrize("directory", ["", " "])
def test_an_empty_directory_name_is_bad_input(hub: LocalHub, cli: Cli, directory: str) -> None:
    hub.add(OWNER_REPO, quants("Q4_K_M"))
    answer = cli("pull", OWNER_REPO, "--dir", directory)
    assert (answer.status, hub.requests) == (2, [])


def test_a_directory_that_cannot_be_written_is_not_blamed_on_the_home(hub: LocalHub, cli: Cli) -> None:
    hub.add(OWNER_REPO, quants("Q4_K_M"))
    answer = cli("pull", OWNER_REPO, "--dir", "/proc/none")
    assert answer.status == 10
    assert "LLAMA_MGR_HOME" not in answer.stderr


def test_two_pulls_into_one_directory_do_not_cross(hub: LocalHub, cli: Cli, tmp_path: Path) -> None:
    hub.add(OWNER_REPO, BIG)
    hub.add("other/tiny-GGUF", {name: model_bytes(layers=12, seed=1) for name in BIG})
    hub.bytes_per_s = 1_000_000
    children = [started(cli, "pull", repo, "--dir", tmp_path / "one") for repo in (OWNER_REPO, "other/tiny-GGUF")]
    answers = [ended(child) for child in children]
    assert sorted(answer.status for answer in answers) == [0, 4], answers
    assert any("waiting for directory-" in answer.stderr for answer in answers)
    assert hub.served.total() <= 1.1 * len(BIG["tiny-Q4_K_M.gguf"])


def test_the_document_says_what_is_here(hub: LocalHub, cli: Cli, place: Path) -> None:
    files = {**shards(2), **projector()}
    commit = hub.add(OWNER_REPO, files).branches["main"]
    document = cli.json("pull", f"hf:{OWNER_REPO}:q4_k_m@main")
    sizes = [len(files[name]) for name in shards(2)]
    assert document == {
        "name": OWNER_REPO,
        "quant": "Q4_K_M",
        "key": "owner/tiny-GGUF:Q4_K_M",
        "paths": [str(place / name) for name in shards(2)],
        "projector": str(place / "mmproj-F16.gguf"),
        "revision": commit,
        "size_bytes": sum(sizes),
        "bytes_fetched": sum(map(len, files.values())),
        "was_there": False,
    }
    again = cli.json("pull", f"hf:{OWNER_REPO}:q4_k_m", "--revision", "main")
    assert again == {**document, "bytes_fetched": 0, "was_there": True}


def test_an_alias_is_enough(hub: LocalHub, cli: Cli, place: Path) -> None:
    hub.add(OWNER_REPO, quants("Q4_K_M", "Q8_0"))
    cli.done("alias", "add", "tiny", f"{OWNER_REPO}:Q8_0")
    cli.done("pull", "tiny")
    assert names(place) == ["tiny-Q8_0.gguf", "tiny-Q8_0.gguf.json"]


def test_another_directory_is_told_how_to_be_listed(hub: LocalHub, cli: Cli, tmp_path: Path) -> None:
    hub.add(OWNER_REPO, quants("Q4_K_M"))
    cli.cwd = tmp_path
    said = cli.done("pull", OWNER_REPO, "--dir", "mine").stdout
    assert f"llama-mgr index add {tmp_path}/mine" in said
    assert names(tmp_path / "mine") == ["tiny-Q4_K_M.gguf", "tiny-Q4_K_M.gguf.json"]


def test_a_checkpoint_is_pulled(hub: LocalHub, cli: Cli, home: Home) -> None:
    hub.add("owner/tiny", checkpoint())
    document = cli.json("pull", "--checkpoint", "owner/tiny", "--exclude", "README*")
    assert document["directory"] == str(home.models_dir / "owner" / "tiny" / "checkpoint")
    assert sorted(document["files"]) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert names(Path(document["directory"])) == sorted([*document["files"], "checkpoint.json"])
    assert "is up to date" in cli.done("pull", "--checkpoint", "owner/tiny", "--exclude", "README*").stdout


def test_a_token_goes_to_the_hub_alone(hub: LocalHub, cli: Cli) -> None:
    hub.add(OWNER_REPO, quants("Q4_K_M"), gated="manual", granted={"hf_good"})
    cli.done("pull", OWNER_REPO, HF_TOKEN="hf_good")
    assert any("hf_good" in one.headers.get("Authorization", "") for one in hub.seen("hub"))
    assert not any("Authorization" in one.headers for one in hub.seen("storage"))


# -- many at once ------------------------------------------------------------------------------------------------------


def ten_pulls(cli: Cli, **extra: str) -> list[Answer]:
    children = [started(cli, "pull", OWNER_REPO, "--json", **extra) for _ in range(10)]
    return [ended(child) for child in children]


def test_ten_pulls_at_once_do_the_work_once(hub: LocalHub, cli: Cli, place: Path) -> None:
    files = {**shards(2, layers=6), **projector()}
    hub.add(OWNER_REPO, files)
    hub.bytes_per_s = 2_000_000
    answers = ten_pulls(cli)
    assert [answer.status for answer in answers] == [0] * 10, "\n".join(map(str, answers))
    assert {name: (place / name).read_bytes() for name in files} == files
    assert hub.served.total() <= 1.1 * sum(map(len, files.values()))
    assert sorted(json.loads(answer.stdout)["was_there"] for answer in answers).count(False) == 1
    waited = [answer for answer in answers if "waiting for model-owner--tiny-GGUF: pid" in answer.stderr]
    assert waited  # who started late found the work done
    assert names(place) == sorted([*files, *(f"{name}.json" for name in files)])


def test_ten_pulls_at_once_are_right_where_locks_do_nothing(
    hub: LocalHub, cli: Cli, place: Path, tmp_path: Path
) -> None:
    files = {**shards(2, layers=6), **projector()}
    hub.add(OWNER_REPO, files)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(WITHOUT_LOCKS)
    answers = ten_pulls(cli, PYTHONPATH=os.pathsep.join([str(tmp_path / "site"), cli.environ["PYTHONPATH"]]))
    assert [answer.status for answer in answers] == [0] * 10, "\n".join(map(str, answers))
    assert not any("waiting for" in answer.stderr for answer in answers), "the lock was to do nothing"
    assert {name: (place / name).read_bytes() for name in files} == files
    assert hub.served.total() <= 10 * sum(map(len, files.values()))
    assert names(place) == sorted([*files, *(f"{name}.json" for name in files)])


# -- ends --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_who_is_interrupted_says_so_and_goes_on_later(
    hub: LocalHub, cli: Cli, place: Path, number: int, status: int
) -> None:
    hub.add(OWNER_REPO, BIG)
    hub.bytes_per_s = 400_000
    child = started(cli, "pull", OWNER_REPO)
    deadline = time.monotonic() + 30
    while hub.served.total() < 200_000 and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(number)
    answer = ended(child)
    assert answer.status == status, answer
    assert "Traceback" not in answer.stderr
    assert len(names(place)) == 1
    hub.bytes_per_s = None
    cli.done("pull", OWNER_REPO)
    assert (place / "tiny-Q4_K_M.gguf").read_bytes() == BIG["tiny-Q4_K_M.gguf"]
    assert hub.served.total() <= len(BIG["tiny-Q4_K_M.gguf"]) + 200_000


def test_a_killed_pull_leaves_nothing_that_looks_whole(hub: LocalHub, cli: Cli, place: Path) -> None:
    hub.add(OWNER_REPO, BIG)
    hub.bytes_per_s = 400_000
    child = started(cli, "pull", OWNER_REPO)
    deadline = time.monotonic() + 30
    while hub.served.total() < 300_000 and time.monotonic() < deadline:
        time.sleep(0.01)
    child.kill()
    ended(child)
    sha256 = hashlib.sha256(BIG["tiny-Q4_K_M.gguf"]).hexdigest()
    assert names(place) == [f".tiny-Q4_K_M.gguf.{sha256[:16]}.part"]
    assert cli.json("list")["models"] == []


def test_nothing_is_said_where_nothing_shall_be(hub: LocalHub, cli: Cli) -> None:
    hub.add(OWNER_REPO, quants("Q4_K_M"))
    answer = cli.done("pull", OWNER_REPO, "--quiet")
    assert answer.stderr == ""


def test_the_setting_for_models_is_kept(hub: LocalHub, cli: Cli, tmp_path: Path, home: Home) -> None:
    hub.add(OWNER_REPO, quants("Q4_K_M"))
    cli.done("pull", OWNER_REPO, LLAMA_MGR_MODELS_DIR=str(tmp_path / "disk"))
    assert len(names(tmp_path / "disk" / "owner" / "tiny-GGUF")) == 2
    assert not home.models_dir.exists()
