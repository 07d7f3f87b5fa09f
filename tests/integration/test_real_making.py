"""Real checkpoints to measured quants with real llama.cpp: a chat model, an embedding model, an adapter."""

import json
import math
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llama_mgr.models.gguf import read_gguf
from llama_mgr.models.traits import traits_of
from llama_mgr.paths import HOME_VARIABLE
from tests.conftest import Cli
from tests.integration.conftest import NEW, OLD
from tests.tools.checkpoints import write_safetensors
from tests.tools.minilm import fetched_minilm
from tests.tools.real_server import real_server
from tests.tools.smollm2_checkpoint import smollm2_checkpoint

pytestmark = [pytest.mark.real, pytest.mark.timeout(2400)]

QUANTS = ("Q8_0", "Q4_K_M", "Q2_K", "IQ4_XS")
MAKE = ("--quants", ",".join(QUANTS), "--imatrix", "auto", "--evaluate", "--chunks", "2", "-i", "new")
LIMIT_S = 900
SENTENCES = ("The cat sleeps on the warm stone.", "A kitten is resting in the sun.", "Interest rates rose in March.")


@pytest.fixture(scope="module")
def maker(real_cli: Cli, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cli]:
    """The real instances with a library of their own, and a converter that has its Python environment."""
    models = tmp_path_factory.mktemp("models")
    cli = Cli({**real_cli.environ, "LLAMA_MGR_MODELS_DIR": str(models)}, real_cli.cwd)
    said = cli("install", "new", f"b{NEW}", "--arch", "cpu", timeout_s=LIMIT_S)
    assert said.status == 0, said.stderr
    if "cannot find a CPU build of torch" in said.stderr:
        pytest.skip("neither torch's CPU index can be reached, nor does UV_FIND_LINKS name a folder with its wheel")
    yield cli
    shutil.rmtree(models, ignore_errors=True)


@pytest.fixture(scope="module")
def checkpoint(small_model: Path, test_cache: Path) -> Path:
    return smollm2_checkpoint(small_model, test_cache / "SmolLM2-135M-Instruct")


@pytest.fixture(scope="module")
def made(maker: Cli, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `make` says of the chat model, measured and drawn."""
    plot = tmp_path_factory.mktemp("plot") / "quants.svg"
    document: dict[str, Any] = maker.json("make", checkpoint, *MAKE, "--plot", plot, timeout_s=LIMIT_S)
    return document


def file_of(document: dict[str, Any], quant: str) -> Path:
    (step,) = [step for step in document["steps"] if step["step"] == "quantize" and step["what"] == quant]
    return Path(step["files"][0])


# -- one command -------------------------------------------------------------------------------------------------------


def test_make_gives_the_sixteen_bit_file_and_all_quants(made: dict[str, Any], maker: Cli) -> None:
    assert {step["step"] for step in made["steps"]} == {"convert", "imatrix", "quantize", "evaluate"}
    listed = {row["quant"]: row for row in maker.json("list")["models"] if row["name"] == "local/SmolLM2-135M-Instruct"}
    assert set(listed) == {"F16", *QUANTS}
    assert {row["parameters"] for row in listed.values()} == {134_515_008}
    for quant in QUANTS:
        assert traits_of(read_gguf(file_of(made, quant)), "x.gguf").quant == quant


def test_what_was_measured_is_in_a_sensible_order(made: dict[str, Any]) -> None:
    rows = {row["quant"]: row for row in made["evaluations"]}
    assert rows["F16"]["kld"] == 0.0
    assert rows["Q8_0"]["kld"] < rows["Q4_K_M"]["kld"] < rows["Q2_K"]["kld"]
    assert rows["Q8_0"]["perplexity"] <= rows["Q4_K_M"]["perplexity"] <= rows["Q2_K"]["perplexity"]
    assert rows["Q8_0"]["same_top"] > rows["Q2_K"]["same_top"] > 0.5
    for row in rows.values():
        assert row["prompt_tokens_per_s"] > 0
        assert row["generation_tokens_per_s"] > 0
        assert row["peak_bytes"] > row["size_bytes"] // 2


def test_the_plot_shows_every_quant(made: dict[str, Any]) -> None:
    picture = Path(made["plot"]).read_text()
    assert picture.startswith("<?xml")
    for quant in ("F16", *QUANTS):
        assert f"<!-- {quant} -->" in picture


def test_again_it_does_nothing(made: dict[str, Any], maker: Cli, checkpoint: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in file_of(made, "Q8_0").parent.iterdir()}
    again = maker.json("make", checkpoint, *MAKE)
    assert again["did_nothing"] is True
    assert {step["state"] for step in again["steps"]} == {"unchanged"}
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_the_ledger_survives_a_new_index(made: dict[str, Any], maker: Cli) -> None:
    maker.done("index", "rebuild")
    shown = maker.json("evaluate", "SmolLM2-135M-Instruct", "--chunks", "2", "-i", "new")["evaluations"]
    assert {row["quant"]: row["kld"] for row in shown} == {row["quant"]: row["kld"] for row in made["evaluations"]}
    assert {row["measured_at"] for row in shown} <= {row["measured_at"] for row in made["evaluations"]}


def test_the_header_and_the_record_tell_how_it_was_made(made: dict[str, Any], maker: Cli, checkpoint: Path) -> None:
    file = file_of(made, "IQ4_XS")
    header = read_gguf(file).metadata
    provenance = json.loads(file.with_name(f"{file.name}.json").read_text())["provenance"]
    assert header["llama_mgr.quantize.build"] == provenance["build"]["build_id"]
    assert header["llama_mgr.input.sha256"] == provenance["inputs"][0]["sha256"]
    assert header["llama_mgr.imatrix.sha256"] == provenance["imatrix_sha256"]
    assert header["quantize.imatrix.file"] == "imatrix.gguf"
    assert not [key for key, value in header.items() if isinstance(value, str) and str(checkpoint.parent) in value]
    assert provenance["parent"]["step"] == "convert"
    assert "convert_hf_to_gguf.py" in " ".join(provenance["parent"]["command"])
    assert "how it was made:" in maker.done("show", "SmolLM2:IQ4_XS").stdout


@pytest.mark.parametrize("quant", ["Q8_0", "IQ4_XS"])
def test_the_quants_answer(made: dict[str, Any], maker: Cli, quant: str) -> None:
    with real_server(maker, file_of(made, quant)) as server:
        assert "Paris" in server.chat("What is the capital of France? Answer in one sentence.")


def test_shards_merge_to_the_same_tensors(made: dict[str, Any], maker: Cli, tmp_path: Path) -> None:
    whole = file_of(made, "Q8_0")
    (tmp_path / "shards").mkdir()
    split = maker.json("split", whole, "--max-size", "60M", "-o", tmp_path / "shards", "-i", "new")
    assert len(split["files"]) > 1
    merged = maker.json("merge", split["files"][0], "-o", tmp_path / "merged.gguf", "-i", "new")
    assert read_gguf(Path(merged["files"][0])).tensors == read_gguf(whole).tensors


# -- two builds side by side -------------------------------------------------------------------------------------------


def test_each_build_converts_and_quantizes_and_is_named(maker: Cli, checkpoint: Path, tmp_path: Path) -> None:
    for name, number in (("old", OLD), ("new", NEW)):
        place = tmp_path / name
        place.mkdir()
        maker.done("convert", checkpoint, "--output", place / "m-F16.gguf", "-i", name, timeout_s=LIMIT_S)
        document = maker.json("quantize", place / "m-F16.gguf", place, "Q8_0", "-i", name, timeout_s=LIMIT_S)
        provenance = document["made"][0]["provenance"]
        assert provenance["build"]["version"] == f"b{number}"
        assert provenance["parent"]["build"]["version"] == f"b{number}"
        assert (
            read_gguf(Path(document["made"][0]["files"][0]))
            .metadata["llama_mgr.quantize.build"]
            .startswith(f"b{number}")
        )


# -- an embedding model ------------------------------------------------------------------------------------------------


def embeddings_by_transformers(maker: Cli, checkpoint: Path) -> list[list[float]]:
    """Return what the model's own library says: tokens without padding, their mean, normalised."""
    script = """
import json, sys, torch
from transformers import AutoModel, AutoTokenizer
tokenizer, model = AutoTokenizer.from_pretrained(sys.argv[1]), AutoModel.from_pretrained(sys.argv[1])
vectors = []
for text in json.loads(sys.argv[2]):
    with torch.no_grad():
        hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
    vectors.append((hidden / hidden.norm()).tolist())
print(json.dumps(vectors))
"""
    (python,) = Path(maker.environ[HOME_VARIABLE]).glob("environments/*/bin/python")
    done = subprocess.run(
        [python, "-c", script, checkpoint, json.dumps(SENTENCES)], capture_output=True, text=True, check=True,
        timeout=300, env={"HF_HUB_OFFLINE": "1", "HOME": str(checkpoint.parent), "PATH": maker.environ["PATH"]},
    )  # fmt: skip
    vectors: list[list[float]] = json.loads(done.stdout)
    return vectors


def cosine(one: list[float], other: list[float]) -> float:
    dot = sum(a * b for a, b in zip(one, other, strict=True))
    return dot / math.sqrt(sum(a * a for a in one) * sum(b * b for b in other))


def test_embeddings_are_those_of_the_checkpoint(maker: Cli, test_cache: Path) -> None:
    checkpoint = fetched_minilm(test_cache)
    document = maker.json(
        "make", checkpoint, "--quants", "Q8_0,Q4_K_M", "--evaluate", "--imatrix", "auto", "--outtype", "f16", "-i",
        "new", timeout_s=LIMIT_S,
    )  # fmt: skip
    assert {row["perplexity"] for row in document["evaluations"]} == {None}
    assert all(row["prompt_tokens_per_s"] > 0 for row in document["evaluations"])
    expected = embeddings_by_transformers(maker, checkpoint)
    files = [Path(step["files"][0]) for step in document["steps"] if step["files"]]
    # What F16 loses is rounding; Q4_K_M of so small a model (22.7 M parameters) loses a few hundredths.
    for file, least in zip(files, (0.9999, 0.999, 0.96), strict=True):
        with real_server(maker, file, "--embedding", "--pooling", "mean") as server:
            found = [server.embedding(text) for text in SENTENCES]
        likeness = [cosine(one, other) for one, other in zip(found, expected, strict=True)]
        assert min(likeness) >= least, (file.name, likeness)
        assert cosine(found[0], found[1]) > cosine(found[0], found[2]) + 0.2


# -- an adapter --------------------------------------------------------------------------------------------------------


def test_an_adapter_is_converted_with_its_base(maker: Cli, checkpoint: Path, tmp_path: Path) -> None:
    adapter = tmp_path / "my-lora"
    adapter.mkdir()
    config = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM"}
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    stem = "base_model.model.model.layers.{}.self_attn.q_proj"
    tensors = {}
    for layer in range(2):
        name = stem.format(layer)
        tensors[f"{name}.lora_A.weight"] = ("F32", (4, 576), bytes(4 * 576 * 4))
        tensors[f"{name}.lora_B.weight"] = ("F32", (576, 4), bytes(4 * 576 * 4))
    write_safetensors(adapter / "adapter_model.safetensors", tensors)
    assert maker("convert", adapter, "-o", tmp_path, "-i", "new").status == 2  # nobody says what it belongs to
    document = maker.json("convert", adapter, "--base", checkpoint, "-o", tmp_path, "-i", "new", timeout_s=LIMIT_S)
    header = read_gguf(Path(document["files"][0]))
    assert header.metadata["general.type"] == "adapter"
    assert {tensor.name for tensor in header.tensors} == {
        f"blk.{layer}.attn_q.weight.lora_{side}" for layer in range(2) for side in "ab"
    }
