"""`llama-mgr import` on the command line; what it does is tested in tests/unit/models/test_importing.py."""

from pathlib import Path

import pytest

from llama_mgr.paths import Home
from tests.conftest import Cli
from tests.tools.gguf_file import model_bytes
from tests.tools.model_library import put


def test_a_file(cli: Cli, home: Home, tmp_path: Path) -> None:
    put(tmp_path / "model-Q4_K_M.gguf")
    answer = cli.done("import", "model-Q4_K_M.gguf")
    assert answer.stdout.startswith("local/model:Q4_K_M is in the library (")
    assert cli.done("import", "model-Q4_K_M.gguf").stdout == "local/model:Q4_K_M is in the library already\n"
    # The directory holds the library, too, which is not meant.
    (one,) = cli.json("import", tmp_path, "--copy", "--name", "me/mine")["imported"]
    target = home.models_dir / "me/mine/model-Q4_K_M.gguf"
    assert one == {
        "key": "me/mine:Q4_K_M", "name": "me/mine", "quant": "Q4_K_M", "files": [str(target)], "projector": None,
        "size_bytes": len(model_bytes()), "how": "copy", "was_there": False,
    }  # fmt: skip


def test_a_key_is_the_one_that_the_library_knows(cli: Cli, tmp_path: Path) -> None:
    put(tmp_path / "one.gguf")
    put(tmp_path / "two.gguf", model_bytes(seed=1))
    for name in ("one", "two"):
        (row,) = cli.json("import", f"{name}.gguf", "--name", "me/mine")["imported"]
        assert cli.json("show", row["key"])["files"][0]["path"] == row["files"][0]


def test_a_move(cli: Cli, tmp_path: Path) -> None:
    source = put(tmp_path / "model-Q4_K_M.gguf")
    assert "it was moved" in cli.done("import", source, "--move").stdout
    assert not source.exists()
    (row,) = cli.json("list")["models"]
    assert row["key"] == "local/model:Q4_K_M"


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("x.gguf", "--copy", "--move"), 2, "cannot use --copy and --move together"),
        (("x.gguf", "--name", "../x"), 2, "the form is OWNER/REPO"),
        (("owner/repo",), 3, "llama-mgr pull"),
        ((".",), 4, "another file is at"),
        (("in", "--name", "me/all"), 2, "one name means one model"),
        ((), 2, "Missing argument"),
    ],
)
def test_refusals(cli: Cli, home: Home, tmp_path: Path, words: tuple[str, ...], status: int, says: str) -> None:
    put(tmp_path / "x.gguf")
    put(tmp_path / "in/a.gguf", model_bytes(seed=2))
    put(tmp_path / "in/b.gguf", model_bytes(seed=3))
    put(home.models_dir / "local/x/x.gguf", model_bytes(seed=1))
    answer = cli("import", *words)
    assert (answer.status, says in answer.stderr) == (status, True), answer.stderr


@pytest.mark.real
def test_a_real_model_is_imported_listed_and_found(cli: Cli, small_model: Path) -> None:  # acceptance 2
    (one,) = cli.json("import", small_model, "--link")["imported"]
    assert one["key"] == "local/SmolLM2-135M-Instruct:Q4_1"
    (row,) = cli.json("list")["models"]
    assert (row["architecture"], row["context_tokens"], row["capabilities"]) == ("llama", 8192, ["completion"])
    assert "134.5 M" in cli.done("list").stdout
    for text in ("smol", "smollm2:q4_1", one["key"]):
        assert cli.json("show", text)["parameters"] == 134_515_008
    assert "did you mean 'local/SmolLM2-135M-Instruct:Q4_1'?" in cli("show", "smolm").stderr
    assert cli.json("index", "verify")["findings"] == []
