"""`llama-mgr show`, and how a model is named on the command line."""

import hashlib
import os
from pathlib import Path

import pytest

from llama_mgr.cli.context import Context
from llama_mgr.cli.model_choice import chosen_model
from llama_mgr.errors import AmbiguousModelError, BadReferenceError, LlamaMgrError, UnknownModelError
from llama_mgr.paths import Home
from tests.conftest import Cli
from tests.tools.gguf_file import CHAT_TEMPLATE, gguf_bytes, model_bytes
from tests.tools.model_library import PROJECTOR, catalog_of, put, put_recorded, put_shards


def test_all_that_is_known(cli: Cli, home: Home) -> None:
    path = put_recorded(home.models_dir / "o/r/r-Q4_K_M.gguf", repo="o/r", revision="a" * 40)
    put(home.models_dir / "o/r/mmproj-F16.gguf", PROJECTOR)
    copy = put(home.models_dir / "o/copy/x.gguf")
    document = cli.json("show", "r:q4_k_m", "--context", "512", "--tensors", "--metadata", "--template")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert (document["key"], document["architecture"], document["parameters"]) == ("o/r:Q4_K_M", "llama", 393_984)
    assert document["files"][0] == {
        "path": str(path), "size_bytes": path.stat().st_size, "sha256": sha256, "verified_at": None,
    }  # fmt: skip
    assert document["provenance"]["repo"] == "o/r"
    assert document["copies"] == [str(copy)]
    assert document["memory"]["context_tokens"] == 512
    assert document["memory"]["kv_cache_bytes"] == 512 * (64 + 64) * 2
    assert document["memory"]["weights_bytes"] == path.stat().st_size + len(PROJECTOR)
    assert document["template"] == {
        "sha256": hashlib.sha256(CHAT_TEMPLATE.encode()).hexdigest(), "characters": len(CHAT_TEMPLATE),
        "text": CHAT_TEMPLATE, "is_cut": False,
    }  # fmt: skip
    assert sum(one["tensors"] for one in document["types"].values()) == len(document["tensors"]) == 12
    assert document["metadata"]["general.name"] == "Tiny Test"
    assert document["metadata"]["tokenizer.ggml.tokens"] == {"array_of": "string", "count": 64}
    shown = cli.done("show", "o/r", "--tensors", "--metadata", "--template").stdout
    for words in (
        "parameters:   394.0 K (393,984)",
        "blk.0.attn_q.weight",
        "64 x string",
        "message.content",
        "fits in RAM",
    ):
        assert words in shown


@pytest.fixture
def context(environ: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Context:
    monkeypatch.chdir(tmp_path)
    return Context(environ)


@pytest.mark.parametrize(
    "text", ["o/r:Q4_K_M", "O/R", "r", "./models/r-Q4_K_M.gguf", "f:models/r-Q4_K_M.gguf", "o/r/r-Q4_K_M.gguf", "R:q4"]
)
def test_ways_to_name_a_model(context: Context, home: Home, text: str) -> None:
    put(home.models_dir / "o/r/r-Q4_K_M.gguf")
    put(home.models_dir / "o/zzz/zzz-Q8_0.gguf", model_bytes(quant="Q8_0"))
    Path("models").symlink_to(home.models_dir / "o/r")
    assert chosen_model(context, text, catalog_of(home)).key == "o/r:Q4_K_M"


def test_a_second_name_of_the_same_content(context: Context, home: Home) -> None:
    put(home.models_dir / "o/first/x.gguf")
    put(home.models_dir / "o/second/x.gguf")
    for text in ("second", "o/second:Q4_K_M"):
        assert chosen_model(context, text, catalog_of(home)).key == "o/second:Q4_K_M"


def test_a_key_that_another_model_got(context: Context, home: Home) -> None:
    put(home.models_dir / "o/r/a.gguf", model_bytes(seed=1))
    put(home.models_dir / "o/r/b.gguf", model_bytes(seed=2))
    catalog = catalog_of(home)
    for model in catalog.models:
        assert chosen_model(context, model.key, catalog) == model


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("smolm", UnknownModelError, "did you mean 'o/SmolLM2:Q4_K_M'?"),
        ("nothing-like-it", UnknownModelError, "no model of the library"),
        ("two", AmbiguousModelError, "o/two has the quants Q4_K_M, Q8_0"),
        ("two:q6_k", UnknownModelError, "o/two:Q4_K_M, o/two:Q8_0"),
        ("", BadReferenceError, "it is empty"),
        ("https://example.com/x.gguf", BadReferenceError, "it is a URL"),
        ("http://169.254.169.254/x.gguf", BadReferenceError, "not URLs"),
        ("./outside.gguf", UnknownModelError, "no model of the library has this file"),
        ("~nobody-of-this-name/x.gguf", UnknownModelError, "no model of the library"),
        ("p:chat", BadReferenceError, "it names a preset, not a model"),
        ("a" * 100_000, UnknownModelError, "no model of the library"),
    ],
)
def test_what_is_no_model(context: Context, home: Home, text: str, kind: type[LlamaMgrError], says: str) -> None:
    put(home.models_dir / "o/SmolLM2/x-Q4_K_M.gguf")
    put(home.models_dir / "o/two/y-Q4_K_M.gguf", model_bytes(seed=1))
    put(home.models_dir / "o/two/y-Q8_0.gguf", model_bytes(quant="Q8_0"))
    put(Path("outside.gguf"))
    with pytest.raises(kind) as caught:
        chosen_model(context, text, catalog_of(home))
    assert says in f"{caught.value.message} {caught.value.hint}"


def test_files_outside_the_library(cli: Cli, tmp_path: Path) -> None:
    shards = put_shards(tmp_path, "big-Q4_K_M", 2)
    put(tmp_path / "mmproj-F16.gguf", PROJECTOR)
    adapter = gguf_bytes({"general.architecture": "llama", "general.type": "adapter"}, [("t", (32,), "F32")])
    put(tmp_path / "lora.gguf", adapter)
    shown = cli.json("show", "./big-Q4_K_M-00002-of-00002.gguf")
    assert [one["path"] for one in shown["files"][:2]] == [str(path) for path in shards]
    assert (shown["parameters"], shown["kind"]) == (393_984, "model")
    assert cli.json("show", f"f:{tmp_path / 'lora.gguf'}")["kind"] == "adapter"
    assert cli.json("show", "./mmproj-F16.gguf")["name"] == f"{tmp_path.name}/mmproj"
    shards[0].unlink()
    assert cli.json("show", str(shards[1]))["kind"] == "model"


@pytest.mark.parametrize(
    ("text", "status", "says"),
    [
        ("./missing.gguf", 3, "there is no such file"),
        ("./directory", 5, "a directory"),
        ("./broken.gguf", 5, "cut off"),
    ],
)
def test_paths_that_are_no_model(cli: Cli, tmp_path: Path, text: str, status: int, says: str) -> None:
    (tmp_path / "directory").mkdir()
    put(tmp_path / "broken.gguf", b"GGUF")
    answer = cli("show", text)
    assert (answer.status, says in answer.stderr) == (status, True), answer.stderr


def test_a_pipe_is_not_waited_for(cli: Cli, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.gguf")
    assert cli("show", "./pipe.gguf").status == 5


def test_values_that_json_cannot_say(cli: Cli, tmp_path: Path) -> None:
    extra = {"x.nan": float("nan"), "x.inf": float("inf"), "x.text": "ä" * 50_000}
    put(tmp_path / "x.gguf", model_bytes(extra=extra))
    metadata = cli.json("show", "./x.gguf", "--metadata")["metadata"]
    assert (metadata["x.nan"], metadata["x.inf"], len(metadata["x.text"])) == ("nan", "inf", 20_001)
