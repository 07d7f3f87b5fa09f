"""A real chat model in the library: imported by link, listed, shown, found by parts of its name."""

import shutil
from pathlib import Path

import pytest

from llama_mgr.paths import Home
from tests.conftest import Cli

pytestmark = pytest.mark.real

PARAMETERS = 134_515_008
VOCABULARY = 49_152


@pytest.fixture
def smollm2(cli: Cli, small_model: Path, tmp_path: Path) -> Path:
    """The model somewhere in the user's files, on the file system of the library, imported by link."""
    path = tmp_path / "downloads" / small_model.name
    path.parent.mkdir()
    shutil.copyfile(small_model, path)
    cli.done("import", path, "--link")
    return path


def test_it_is_linked_and_listed(cli: Cli, home: Home, smollm2: Path) -> None:
    (row,) = cli.json("list")["models"]
    assert (row["architecture"], row["parameters"], row["quant"]) == ("llama", PARAMETERS, "Q4_1")
    assert row["context_tokens"] == 8192
    (placed,) = home.models_dir.rglob("*.gguf")
    assert placed.stat().st_size == smollm2.stat().st_size
    assert "134.5 M" in cli.done("list").stdout


def test_it_is_shown(cli: Cli, smollm2: Path) -> None:  # noqa: ARG001
    shown = cli.json("show", "smol")
    assert (shown["vocabulary_size"], shown["embedding_size"]) == (VOCABULARY, 576)
    assert shown["capabilities"] == ["completion"]
    assert shown["types"]["Q4_1"]["weights"] > PARAMETERS // 2
    # 30 layers, 3 KV heads of 64, keys and values of two bytes
    assert shown["kv_cache"]["full_bytes_per_token"] == 30 * 3 * 64 * 2 * 2


@pytest.mark.parametrize("name", ["smol", "smollm2:q4_1", "SmolLM2-135M-Instruct"])
def test_it_is_found_by(cli: Cli, smollm2: Path, name: str) -> None:
    assert cli.json("show", name)["files"][0]["path"].endswith(smollm2.name)


def test_a_typo_is_answered_with_it(cli: Cli, smollm2: Path) -> None:  # noqa: ARG001
    answer = cli("show", "smolm")
    assert answer.status == 3
    assert "did you mean" in answer.stderr
    assert "SmolLM2-135M-Instruct" in answer.stderr


def test_the_table_comes_back_without_the_index(cli: Cli, home: Home, smollm2: Path) -> None:  # noqa: ARG001
    before = cli.done("list").stdout
    index = home.root / "index.sqlite"
    index.unlink()
    assert cli.done("list").stdout == before
    assert index.exists()
