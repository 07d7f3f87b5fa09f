"""make, evaluate and stale as users type them, on the tiny llama.cpp."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from llama_mgr.instances.instance import Instances
from llama_mgr.paths import Home
from tests.conftest import Cli

QUANTS = "Q8_0,Q6_K,Q4_K_M,IQ4_XS"


@pytest.fixture
def made(tiny: Cli, checkpoint: Path) -> dict[str, Any]:
    words = ("--quants", QUANTS, "--imatrix", "auto", "--evaluate", "-c", "64")
    document: dict[str, Any] = tiny.json("make", checkpoint, *words)
    return document


def test_make_makes_measures_and_keeps_it(tiny: Cli, home: Home, checkpoint: Path, made: dict[str, Any]) -> None:
    assert {row["quant"] for row in tiny.json("list")["models"]} == {"F16", *QUANTS.split(",")}
    losses = {row["quant"]: row["kld"] for row in made["evaluations"]}
    assert losses["F16"] == 0.0
    assert 0 < losses["Q8_0"] <= losses["Q6_K"] < losses["Q4_K_M"]
    assert len(list(home.ledger_dir.rglob("*.json"))) == 5
    assert len(list(home.runs_dir.glob("*.json"))) == 1
    again = tiny.json("make", checkpoint, "--quants", QUANTS, "--imatrix", "auto", "--evaluate", "-c", "64")
    assert again["did_nothing"] is True
    assert again["evaluations"] == made["evaluations"]


def test_make_replaces_its_own_when_the_options_are_others(tiny: Cli, checkpoint: Path, made: dict[str, Any]) -> None:
    document = tiny.json("make", checkpoint, "--quants", "Q8_0,Q4_K_M", "--no-evaluate")
    states = {(step["step"], step["what"]): step["state"] for step in document["steps"]}
    assert states["convert", "auto"] == "unchanged"
    assert states["quantize", "Q8_0"] == "made"  # without the matrix now
    before = {step["what"]: step["sha256s"] for step in made["steps"] if step["step"] == "quantize"}
    after = {step["what"]: step["sha256s"] for step in document["steps"] if step["step"] == "quantize"}
    assert before["Q8_0"] != after["Q8_0"]


def test_the_ledger_outlives_index_and_model(tiny: Cli, home: Home, made: dict[str, Any]) -> None:
    tiny.done("index", "rebuild")
    shown = tiny.json("show", "small-llama:Q6_K")["evaluations"]
    assert shown[0]["kld"] == next(row["kld"] for row in made["evaluations"] if row["quant"] == "Q6_K")
    (home.root / "index.sqlite").unlink()
    rows = tiny.json("evaluate", "small-llama", "-c", "64")["evaluations"]
    assert {row["quant"]: row["kld"] for row in rows} == {row["quant"]: row["kld"] for row in made["evaluations"]}


def test_a_speed_belongs_to_its_threads_and_is_not_lost(tiny: Cli, f16: Path) -> None:
    def measured(*words: str) -> dict[str, Any]:
        (row,) = tiny.json("evaluate", f16, "-c", "64", *words)["evaluations"]
        assert isinstance(row, dict)
        return row

    first = measured("--threads", "1")
    assert measured("--threads", "1") == first
    assert measured("--threads", "2")["threads"] == 2
    silent = measured("--threads", "2", "--again", "--no-speed")
    assert silent["prompt_tokens_per_s"]
    assert silent["threads"] == 2
    assert measured("--threads", "1", "--no-speed")["prompt_tokens_per_s"] is None


def test_the_best_that_fits(tiny: Cli, made: dict[str, Any], tmp_path: Path) -> None:
    sizes = {row["quant"]: row["size_bytes"] for row in made["evaluations"]}
    words = ("evaluate", "small-llama", "-c", "64", "--best-under")
    assert tiny.json(*words, sizes["Q6_K"])["best"] == "local/small-llama:Q6_K"
    assert tiny(*words, "1").status == 3
    assert tiny(*words, "big").status == 2
    plot = tmp_path / "quants.png"
    tiny.done("evaluate", "small-llama", "-c", "64", "--plot", plot)
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert tiny("evaluate", "small-llama", "--plot", tmp_path / "quants.doc").status == 2


def test_the_table_is_for_people(tiny: Cli, made: dict[str, Any]) -> None:  # noqa: ARG001
    lines = tiny.done("evaluate", "small-llama", "-c", "64").stdout.splitlines()
    assert "KLD" in lines[0]
    assert any("base" in line for line in lines)
    assert any(line.startswith("*") for line in lines)


def test_a_pipeline_is_a_file(tiny: Cli, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "ours.toml").write_text('schema = 1\nsource = "./small-llama"\nquants = ["Q4_0"]\nname = "we/ours"\n')
    tiny.done("make", "--pipeline", tmp_path / "ours.toml")
    assert {row["name"] for row in tiny.json("list")["models"]} == {"we/ours"}
    (tmp_path / "bad.toml").write_text('quants = ["Q4_0"]\nquant = 1\n')
    assert tiny("make", checkpoint, "--pipeline", tmp_path / "bad.toml").status == 2
    assert tiny("make", checkpoint, "--pipeline", "evryday").status == 3


def test_a_gguf_needs_no_conversion(tiny: Cli, f16: Path) -> None:
    document = tiny.json("make", f16, "--quants", "Q4_0,Q8_0", "-o", f16.parent)
    assert [step["step"] for step in document["steps"]] == ["quantize", "quantize"]


@pytest.mark.parametrize(
    "words",
    [
        (), ("x",), ("small-llama", "--quants", "NOPE"), ("small-llama", "--quants", "Q4_0", "--imatrix", "no.gguf"),
        ("a" * 300, "--quants", "Q4_0"), ("a" * 300 + ".gguf", "--quants", "Q4_0"),
        ("small-llama", "--pipeline", "a" * 300),
        ("small-llama", "--quants", "Q4_0", "--evaluate", "--evaluation-text", "a" * 300),
    ],
)  # fmt: skip
def test_bad_words_of_make(tiny: Cli, home: Home, checkpoint: Path, words: tuple[str, ...]) -> None:  # noqa: ARG001
    answer = tiny("make", *words)
    assert answer.status in {2, 3}, answer.stderr
    assert not list(home.models_dir.rglob("*.gguf"))


def test_what_another_code_made_is_stale_and_made_again(tiny: Cli, home: Home, checkpoint: Path) -> None:
    tiny.done("make", checkpoint, "--quants", "Q8_0", "-i", "old")
    assert {row["state"] for row in tiny.json("stale", "-i", "old")["models"]} == {"fresh"}
    script = home.builds_dir / Instances(home).find("new").current.build_id / "convert" / "conversion" / "llama.py"
    changed = script.read_text().replace("def ", "def another_way() -> None:\n    return None\n\n\ndef ", 1)
    script.unlink()  # the template has the same file
    script.write_text(changed if "another_way" in changed else f"{changed}\nANOTHER_WAY = 1\n")
    rows = {row["model"]: row for row in tiny.json("stale", "-i", "new")["models"]}
    assert {row["state"] for row in rows.values()} == {"stale"}
    assert rows["local/small-llama:Q8_0"]["reasons"]
    runs = tiny.json("make", "--again", "small-llama", "-i", "new")["runs"]
    assert {step["state"] for run in runs for step in run["steps"]} == {"made"}
    assert {row["state"] for row in tiny.json("stale", "-i", "new")["models"]} == {"fresh"}
    assert tiny.json("make", "--again", "small-llama", "-i", "new")["runs"] == []


def test_what_was_made_by_hand_is_made_again_with_its_own_options(tiny: Cli, home: Home, checkpoint: Path) -> None:
    tiny.done("convert", checkpoint, "-i", "old")
    tiny.done("quantize", "small-llama:F16", "Q8_0", "-i", "old")
    tiny.done("quantize", "small-llama:F16", "Q4_0", "--pure", "-i", "old")
    before = {row["quant"]: row["sha256"] for row in tiny.json("list")["models"]}
    runs = tiny.json("make", "--again", "small-llama", "--force", "-i", "new")["runs"]
    assert [[step["what"] for step in run["steps"] if step["step"] == "quantize"] for run in runs] == [
        ["Q4_0"],
        ["Q8_0"],
    ]
    models = {row["quant"]: row for row in tiny.json("list")["models"]}
    assert models.keys() == before.keys()
    made = json.loads(Path(f"{models['Q4_0']['files'][0]}.json").read_bytes())["provenance"]
    assert made["options"]["pure"] is True
    assert made["build"]["build_id"] == Instances(home).find("new").current.build_id


def test_a_model_that_was_only_converted_is_made_again(tiny: Cli, home: Home, checkpoint: Path) -> None:
    tiny.done("convert", checkpoint, "-i", "old")
    (run,) = tiny.json("make", "--again", "small-llama", "--force", "-i", "new")["runs"]
    assert [step["step"] for step in run["steps"]] == ["convert"]
    (model,) = tiny.json("list")["models"]
    made = json.loads(Path(f"{model['files'][0]}.json").read_bytes())["provenance"]
    assert made["build"]["build_id"] == Instances(home).find("new").current.build_id


def test_again_goes_on_past_what_cannot_be_made(tiny: Cli, checkpoint: Path, tmp_path: Path) -> None:
    for name in ("a", "b", "here"):
        shutil.copytree(checkpoint, tmp_path / f"of-{name}")
        tiny.done("convert", tmp_path / f"of-{name}", "--name", f"we/{name}", "-i", "old")
    for name in ("a", "b"):
        shutil.rmtree(tmp_path / f"of-{name}")
    answer = tiny("make", "--again", "--force", "-i", "new", "--json", "--quiet")
    assert answer.status == 3
    document = json.loads(answer.stdout)
    assert [run["model"] for run in document["runs"]] == ["we/here"]
    assert [one["models"] for one in document["failed"]] == [["we/a:F16"], ["we/b:F16"]]
    assert "of-a" in document["error"]["message"]
    assert "of-b" in document["failed"][1]["error"]["message"]
    answer = tiny("make", "--again", "--force", "-i", "new")
    assert answer.status == 3
    assert all(name in answer.stdout for name in ("we/a:F16", "we/b:F16", "here-F16.gguf"))
    assert "of-a" in answer.stderr


def test_again_computes_the_matrix_as_it_was(tiny: Cli, home: Home, checkpoint: Path) -> None:
    def matrix_options() -> dict[str, Any]:
        (side_car,) = home.models_dir.rglob("*.imatrix.gguf.json")
        options = json.loads(side_car.read_bytes())["provenance"]["options"]
        assert isinstance(options, dict)
        return options

    tiny.done("make", checkpoint, "--quants", "Q4_0", "--imatrix", "auto", "-c", "64", "--chunks", "2", "-i", "old")
    before = matrix_options()
    assert (before["context_tokens"], before["chunks"]) == (64, 2)
    (run,) = tiny.json("make", "--again", "--force", "-i", "new")["runs"]
    assert [step["state"] for step in run["steps"]] == ["made"] * 3
    assert matrix_options() == before


@pytest.mark.parametrize("words", [("--quants", "Q8_0"), ("--evaluate",), ("--upload", "we/ours"), ("--chunks", "0")])
def test_again_refuses_what_it_would_not_heed(tiny: Cli, words: tuple[str, ...]) -> None:
    answer = tiny("make", "--again", "small-llama", *words)
    assert answer.status == 2
    assert "as its record says" in answer.stderr


def test_what_cannot_be_is_said_before_the_first_step(tiny: Cli, home: Home, checkpoint: Path, tmp_path: Path) -> None:
    answer = tiny("make", checkpoint, "--quants", "Q8_0,IQ2_XXS")
    assert "importance matrix" in answer.stderr
    assert "--imatrix auto" in answer.stderr
    answer = tiny("make", checkpoint, "--quants", "Q8_0", "--plot", tmp_path / "x.svg")
    assert "--evaluate" in answer.stderr
    assert not list(home.models_dir.rglob("*.gguf"))
