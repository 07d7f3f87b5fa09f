"""Pipelines as people write them: the shipped ones, their own, and what they get wrong."""

from pathlib import Path

import pytest

from llama_mgr.build.capability import QuantType
from llama_mgr.errors import BadConfigError, NewerStateError, NotFoundError
from llama_mgr.make.pipeline_file import Pipeline, pipeline_names, read_pipeline
from llama_mgr.make.quant_types import checked_types
from llama_mgr.paths import Home
from tests.tools.model_library import put

FULL = """
schema = 1
description = "What we serve"
source = "owner/repo"
quants = ["Q6_K", "Q4_K_M"]
imatrix = "auto"
text = "calibration/"
evaluate = true
evaluation-text = "evaluation.txt"
context-tokens = 1024
chunks = 4
instance = "b11434-cpu"
outtype = "f16"
name = "team/model"
upload = "team/model-GGUF"
"""
QUANTS = 'quants = ["Q4_K_M"]\n'


def written(directory: Path, text: str, name: str = "team.toml") -> str:
    return str(put(directory / name, text.encode()))


def test_the_shipped_pipelines_can_be_read(home: Home) -> None:
    assert pipeline_names(home).keys() == {"everyday", "quick", "small"}
    known = ["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "IQ3_M", "IQ3_XXS", "IQ2_M"]
    for name in pipeline_names(home):
        pipeline = read_pipeline(home, name)
        assert pipeline.description.endswith(".")
        assert (pipeline.source, pipeline.upload, pipeline.instance) == ("", "", "")
        assert checked_types(pipeline.quants, [QuantType(one) for one in known]) == tuple(pipeline.quants)
    assert read_pipeline(home, "everyday").imatrix == "auto"
    assert not read_pipeline(home, "quick").evaluate


def test_every_key_is_read(home: Home, tmp_path: Path) -> None:
    assert read_pipeline(home, written(tmp_path, FULL)) == Pipeline(
        schema=1, description="What we serve", source="owner/repo", name="team/model", instance="b11434-cpu",
        outtype="f16", quants=["Q6_K", "Q4_K_M"], imatrix="auto", text=str(tmp_path / "calibration"), evaluate=True,
        evaluation_text=str(tmp_path / "evaluation.txt"), context_tokens=1024, chunks=4, upload="team/model-GGUF",
    )  # fmt: skip


def test_what_is_left_out_has_its_usual_value(home: Home, tmp_path: Path) -> None:
    assert read_pipeline(home, written(tmp_path, QUANTS)) == Pipeline(quants=["Q4_K_M"])


def test_paths_are_relative_to_the_file(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = 'source = "./finetune"\nimatrix = "old.imatrix.gguf"\ntext = "../t.txt"\nevaluation-text = "/abs/e.txt"\n'
    written(tmp_path / "deep", QUANTS + keys)
    monkeypatch.chdir(tmp_path)
    pipeline = read_pipeline(home, "deep/team.toml")
    assert Path(pipeline.source) == tmp_path / "deep/finetune"
    assert Path(pipeline.imatrix) == tmp_path / "deep/old.imatrix.gguf"
    assert Path(pipeline.text) == tmp_path / "deep/../t.txt"
    assert pipeline.evaluation_text == "/abs/e.txt"


@pytest.mark.parametrize(
    ("source", "expected"),
    [("owner/repo", "owner/repo"), ("/data/x", "/data/x"), ("~/x", "{home}/x"), ("..", "{here}/.."), ("", "")],
)
def test_a_source_is_a_repository_or_a_directory(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, expected: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    pipeline = read_pipeline(home, written(tmp_path, f'{QUANTS}source = "{source}"\n'))
    assert pipeline.source == expected.format(home=tmp_path / "me", here=tmp_path)


@pytest.mark.parametrize("imatrix", ["none", "auto"])
def test_two_words_are_no_file(home: Home, tmp_path: Path, imatrix: str) -> None:
    assert read_pipeline(home, written(tmp_path, f'{QUANTS}imatrix = "{imatrix}"\n')).imatrix == imatrix


def test_a_zero_byte_is_no_part_of_a_value(home: Home, tmp_path: Path) -> None:
    with pytest.raises(BadConfigError, match="zero byte"):
        read_pipeline(home, written(tmp_path, f'{QUANTS}text = "a\\u0000b"\n'))


def test_own_pipelines_have_names_and_come_before_shipped_ones(home: Home) -> None:
    own = home.recipes_dir / "pipelines"
    written(own, FULL, "team.toml")
    written(own, QUANTS + 'description = "mine"\n', "quick.toml")
    assert pipeline_names(home).keys() == {"everyday", "quick", "small", "team"}
    assert read_pipeline(home, "quick").description == "mine"
    assert read_pipeline(home, "team").text == str(own / "calibration")


def test_a_file_with_the_name_of_a_pipeline_is_named_by_its_path(
    home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, QUANTS + 'description = "mine"\n', "quick")
    monkeypatch.chdir(tmp_path)
    assert read_pipeline(home, "quick").description != "mine"
    assert read_pipeline(home, "./quick").description == "mine"


def test_an_unknown_name_is_answered_with_the_nearest_or_all(home: Home, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="cannot find the pipeline 'evryday'") as caught:
        read_pipeline(home, "evryday")
    assert caught.value.hint == "did you mean 'everyday'?"
    for chosen in ("zzzzzzzz", "missing.toml", str(tmp_path), ""):
        with pytest.raises(NotFoundError) as caught:
            read_pipeline(home, chosen)
        assert caught.value.hint == "there are everyday, quick, small; or name a .toml file"
    with pytest.raises(NotFoundError) as caught:
        read_pipeline(home, "\x1b[31mx")
    assert "\x1b" not in caught.value.message


def test_an_unknown_key_is_refused_with_the_nearest(home: Home, tmp_path: Path) -> None:
    with pytest.raises(BadConfigError, match="unknown key 'evaluation_text'") as caught:
        read_pipeline(home, written(tmp_path, QUANTS + 'evaluation_text = "x"\n'))
    assert caught.value.hint == "did you mean 'evaluation-text'?"
    with pytest.raises(BadConfigError) as caught:
        read_pipeline(home, written(tmp_path, 'quant = ["Q4_K_M"]\n'))
    assert caught.value.hint == "did you mean 'quants'?"


@pytest.mark.parametrize("text", ["", "quants = []\n", "schema = 1\nevaluate = true\n"])
def test_a_pipeline_without_quants_is_refused(home: Home, tmp_path: Path, text: str) -> None:
    with pytest.raises(BadConfigError, match="at least one type is needed") as caught:
        read_pipeline(home, written(tmp_path, text))
    assert caught.value.hint == 'quants = ["Q4_K_M"]'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("quants = [", "team.toml:1"),
        ('quants = "Q4_K_M"\n', "quants: expected"),
        ("quants = [4]\n", "quants"),
        (QUANTS + "chunks = -1\n", r"chunks: .*found -1"),
        (QUANTS + "context-tokens = 7\n", r"context-tokens: .*found 7"),
        (QUANTS + "context-tokens = 131073\n", "context-tokens"),
        (QUANTS + 'evaluate = "yes"\n', "evaluate"),
        (QUANTS + "schema = 0\n", "schema must be 1"),
        (QUANTS + 'text = "\udcff"\n', "UTF-8"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(home: Home, tmp_path: Path, text: str, words: str) -> None:
    file = put(tmp_path / "team.toml", text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadConfigError, match=words):
        read_pipeline(home, str(file))


def test_a_pipeline_of_next_year_is_not_guessed_at(home: Home, tmp_path: Path) -> None:
    with pytest.raises(NewerStateError, match="schema 2"):
        read_pipeline(home, written(tmp_path, QUANTS + "schema = 2\n"))
