"""`llama-mgr list`, as a user runs it."""

import json
import os
import pty
import re
import subprocess

import pytest

from llama_mgr.cli.list_models import SORTS
from llama_mgr.cli.list_page import context_words, count_words, model_row, sorted_rows
from llama_mgr.models.memory import Machine
from llama_mgr.paths import Home
from tests.conftest import Cli
from tests.tools.gguf_file import model_bytes
from tests.tools.model_library import PROJECTOR, catalog_of, put, put_recorded, put_shards


def fill(home: Home) -> None:
    put_recorded(home.models_dir / "o/alpha-GGUF/alpha-Q4_K_M.gguf", repo="o/alpha-GGUF", revision="a" * 40)
    put(home.models_dir / "o/alpha-GGUF/mmproj-F16.gguf", PROJECTOR)
    put(home.models_dir / "o/beta/beta-Q8_0.gguf", model_bytes(quant="Q8_0", architecture="qwen2", context=32768))
    put_shards(home.models_dir / "o/gamma", "gamma-Q4_K_M", 2, seed=7)
    put(home.models_dir / "o/broken/broken.gguf", b"GGUF")


def test_the_table_and_its_totals(cli: Cli, home: Home) -> None:
    fill(home)
    answer = cli.done("list")
    header, *rows, totals = answer.stdout.splitlines()
    assert header.split() == ["name", "quant", "size", "params", "ctx", "arch", "fits?", "modified"]
    assert [row.split()[:2] for row in rows] == [["o/alpha-GGUF", "Q4_K_M"], ["o/beta", "Q8_0"], ["o/gamma", "Q4_K_M"]]
    assert " 394.0 K  32K   qwen2 " in rows[1]
    assert totals.startswith("3 models, ")
    assert answer.stderr == ("warning: 1 file is no whole model and not listed; see `llama-mgr index verify --quick`\n")
    assert cli.done("list", "--quiet").stderr == ""


def test_the_document_has_everything(cli: Cli, home: Home) -> None:
    fill(home)
    document = cli.json("list")
    first = document["models"][0]
    assert document["totals"]["models"] == len(document["models"]) == 3
    (broken,) = document["broken"]
    assert broken["path"] == str(home.models_dir / "o/broken/broken.gguf")
    assert broken["why"].startswith("it is cut off")
    assert (first["key"], first["context_tokens"], first["fits"]) == ("o/alpha-GGUF:Q4_K_M", 2048, "ram")
    assert first["capabilities"][-1] == "vision"
    assert first["source"].startswith("hf:o/alpha-GGUF@")
    assert len(document["models"][2]["files"]) == 2


def test_deleting_the_index_gives_the_same_table(cli: Cli, home: Home) -> None:
    fill(home)
    first = cli.done("list").stdout
    warm = cli.json("list")
    (home.root / "index.sqlite").unlink()
    assert cli.done("list").stdout == first
    (home.root / "index.sqlite").write_bytes(b"damaged" * 1000)
    damaged = cli.done("list")
    assert damaged.stdout == first
    assert damaged.stderr.count("the index was damaged") == 1
    assert cli.json("list") == warm


def test_sorting_and_filtering(cli: Cli, home: Home) -> None:
    fill(home)
    rows = [model_row(model, Machine(2**34, 2**34)) for model in catalog_of(home).models]

    def names(sort: str = "name", words: str = "") -> list[str]:
        return [row["name"].removeprefix("o/") for row in sorted_rows(rows, sort, words)]

    assert {sort: names(sort)[0] for sort in SORTS} == {
        "name": "alpha-GGUF", "size": "beta", "params": "alpha-GGUF", "ctx": "beta", "quant": "alpha-GGUF",
        "arch": "alpha-GGUF", "modified": names("modified")[0],
    }  # fmt: skip
    assert names("arch") == ["alpha-GGUF", "gamma", "beta"]
    assert names(words="Q4_k AMMA") == ["gamma"]
    assert names(words="vision") == ["alpha-GGUF"]
    assert "none of the 3 models" in cli.done("list", "--filter", "nothing", "--sort", "size").stdout
    assert cli("list", "--sort", "colour").status == 2


def test_one_model_is_not_called_several(cli: Cli, home: Home) -> None:
    put(home.models_dir / "o/r/x.gguf")
    assert cli.done("list", "--filter", "nothing").stdout == "the only model does not have these words\n"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0"),
        (999, "999"),
        (1000, "1.0 K"),
        (134_515_008, "134.5 M"),
        (999_950_000, "1.0 B"),
        (7_615_616_512, "7.6 B"),
    ],
)
def test_numbers_of_parameters(number: int, words: str) -> None:
    assert count_words(number) == words


@pytest.mark.parametrize(
    ("tokens", "words"), [(None, "?"), (8192, "8192"), (32768, "32K"), (131072, "128K"), (40000, "40000")]
)
def test_lengths_of_contexts(tokens: int | None, words: str) -> None:
    assert context_words(tokens) == words


def test_an_empty_library_says_what_to_do(cli: Cli) -> None:
    assert "llama-mgr pull" in cli.done("list").stdout
    assert cli.json("list") == {"models": [], "broken": [], "checkpoints": [], "totals": {"models": 0, "size_bytes": 0}}


def test_names_with_controls_are_shown_escaped(cli: Cli, home: Home) -> None:
    hostile = model_bytes(
        name="\x1b[31mred", extra={"general.architecture": "a\x1b]0;x\x07", "general.license": "\x1b"}
    )
    put(home.models_dir / "o/r/evil\x1b[31m\n-Q4_K_M.gguf", hostile)
    put(home.models_dir / "o/r/also\x1b[31m.gguf", b"")
    for words in (("list",), ("show", "o/r", "--metadata"), ("index", "verify", "o/r")):
        answer = cli.done(*words)
        assert "\x1b" not in answer.stdout + answer.stderr
    json.dumps(cli.json("list"))


def test_a_narrow_terminal_shows_what_matters_most(cli: Cli, home: Home) -> None:
    put(home.models_dir / "owner/Some-Long-Name-7B-Instruct-GGUF/x-Q4_K_M.gguf")
    shown = _in_terminal(cli, 60)
    assert all(len(line) <= 60 for line in shown.splitlines())
    header = next(line for line in shown.splitlines() if "name" in line)
    assert header.split() == ["name", "quant", "size", "fits?"]
    assert " Q4_K_M " in shown, "the name is folded before the rest"
    wide = _in_terminal(cli, 140)
    assert "modified" in wide


def _in_terminal(cli: Cli, columns: int) -> str:
    leader, follower = pty.openpty()
    environ = {**cli.environ, "COLUMNS": str(columns), "TERM": "xterm", "NO_COLOR": "1"}
    child = subprocess.Popen(cli.argv("list"), env=environ, cwd=cli.cwd, stdout=follower, stdin=follower)
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        shown += part
    assert child.wait() == 0
    os.close(leader)
    return re.sub(r"\x1b\[[0-9;]*m", "", shown.decode()).replace("\r\n", "\n")


def test_a_closed_pipe_is_no_error(cli: Cli, home: Home) -> None:
    fill(home)
    child = subprocess.Popen(
        cli.argv("list"), env=dict(cli.environ), cwd=cli.cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    assert b"Traceback" not in child.stderr.read()
    child.stderr.close()
    assert child.wait() == 0


def test_completion_knows_the_models(cli: Cli, home: Home) -> None:
    fill(home)

    def completed(incomplete: str) -> list[str]:
        words = {"COMP_WORDS": f"llama-mgr show {incomplete}", "COMP_CWORD": "2"}
        answer = cli(_LLAMA_MGR_COMPLETE="bash_complete", **words)
        assert answer.stderr == ""
        return [line.partition(",")[2] for line in answer.stdout.splitlines() if line]

    assert completed("o/") == []
    cli.done("list")
    assert completed("o/be") == ["o/beta:Q8_0", "o/beta"]
    assert completed("bet") == ["beta:Q8_0", "beta"]
    (home.root / "index.sqlite").write_bytes(b"damaged")
    assert completed("o/") == []
