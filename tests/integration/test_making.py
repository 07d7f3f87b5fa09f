"""convert, quantize, imatrix, split and merge as users type them, on the tiny llama.cpp."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from llama_mgr.instances.instance import Instances
from llama_mgr.models.gguf import read_gguf
from llama_mgr.models.traits import traits_of
from llama_mgr.paths import Home
from tests.conftest import Cli
from tests.tools.checkpoints import CANARIES, write_adapter, write_checkpoint


def listed(cli: Cli) -> dict[str, Any]:
    return {row["quant"]: row for row in cli.json("list")["models"]}


def slow_down(home: Home, program: str, script: str) -> None:
    """Let a program of the default instance do `script` first; its environment is its own, so nothing there could."""
    place = home.builds_dir / Instances(home).find("new").current.build_id / "bin" / program
    place.rename(place.with_name(f"{program}.real"))  # the template has the same file
    place.write_text(f'#!/bin/sh\n{script}\nexec "$0.real" "$@"\n')
    place.chmod(0o755)


def content_of(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(directory.iterdir()) if file.is_file()}


# -- convert -----------------------------------------------------------------------------------------------------------


def test_a_checkpoint_is_converted_into_the_library(tiny: Cli, home: Home, checkpoint: Path) -> None:
    document = tiny.json("convert", checkpoint)
    (file,) = map(Path, document["files"])
    assert file == home.models_dir / "local" / "small-llama" / "small-llama-F16.gguf"
    assert listed(tiny)["F16"]["name"] == "local/small-llama"
    provenance = document["provenance"]
    assert (provenance["step"], provenance["build"]["version"]) == ("convert", "b11434")
    assert {one["name"] for one in provenance["inputs"]} >= {
        "config.json",
        "model.safetensors",
        "tokenizer_config.json",
    }
    assert "is there already" in tiny.done("convert", checkpoint).stdout
    assert not list(home.models_dir.rglob(".import-*"))


def test_another_content_is_another_file(tiny: Cli, checkpoint: Path, tmp_path: Path) -> None:
    first = tiny.json("convert", checkpoint, "-o", tmp_path / "a.gguf")
    weights = checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\1\2\3\4")
    second = tiny.json("convert", checkpoint, "-o", tmp_path / "b.gguf")
    assert first["provenance"]["digest"] != second["provenance"]["digest"]
    assert first["sha256s"] != second["sha256s"]


def test_a_named_file_is_made_even_where_an_equal_one_lies(tiny: Cli, checkpoint: Path, tmp_path: Path) -> None:
    tiny.done("convert", checkpoint, "-o", tmp_path / "a.gguf")
    tiny.done("convert", checkpoint, "-o", tmp_path / "b.gguf")
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
    assert tiny.json("convert", checkpoint, "-o", tmp_path / "b.gguf")["was_there"] is True


def test_the_header_says_what_the_user_says(tiny: Cli, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "facts.json").write_text('{"general.author": "us"}')
    words = ("--model-name", "My Model", "--metadata", tmp_path / "facts.json", "--outtype", "f32")
    document = tiny.json("convert", checkpoint, "-o", tmp_path, *words)
    (file,) = map(Path, document["files"])
    assert file.name.endswith("-F32.gguf")
    assert read_gguf(file).metadata["general.name"] == "My Model"


def test_shards_come_together(tiny: Cli, checkpoint: Path, tmp_path: Path) -> None:
    document = tiny.json("convert", checkpoint, "-o", tmp_path, "--split-max-size", "20K")
    assert len(document["files"]) > 1
    assert document["files"][0].endswith(f"-00001-of-{len(document['files']):05d}.gguf")
    quantized = tiny.json("quantize", document["files"][0], tmp_path / "whole.gguf", "Q8_0")
    assert quantized["made"][0]["files"] == [str(tmp_path / "whole.gguf")]
    kept = tiny.json("quantize", document["files"][0], "-o", tmp_path, "--quant", "Q4_0", "--keep-split")
    assert len(kept["made"][0]["files"]) == len(document["files"])


def test_an_adapter_needs_its_base(tiny: Cli, checkpoint: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "lora", base="owner/base")
    refused = tiny("convert", adapter, "-o", tmp_path)
    assert (refused.status, "--base" in refused.stderr) == (2, True)
    document = tiny.json("convert", adapter, "--base", checkpoint, "-o", tmp_path)
    assert traits_of(read_gguf(Path(document["files"][0])), "x").kind == "adapter"


def test_a_dry_run_changes_nothing(tiny: Cli, home: Home, checkpoint: Path) -> None:
    before = sorted(home.root.rglob("*.gguf"))
    plan = tiny.json("convert", checkpoint, "--dry-run")
    assert plan["architectures"] == ["LlamaForCausalLM"]
    assert plan["about_bytes"] > 0
    assert sorted(home.root.rglob("*.gguf")) == before


def test_an_unknown_architecture_names_who_could(tiny: Cli, tmp_path: Path) -> None:
    odd = write_checkpoint(tmp_path / "odd")
    config = json.loads((odd / "config.json").read_text()) | {"architectures": ["NobodyForCausalLM"]}
    (odd / "config.json").write_text(json.dumps(config))
    answer = tiny("convert", odd)
    assert answer.status == 9
    assert "NobodyForCausalLM" in answer.stderr
    assert "install latest" in answer.stderr
    assert "log:" in answer.stderr


@pytest.mark.parametrize("name", CANARIES)
def test_a_hostile_checkpoint_is_refused_unread(tiny: Cli, tmp_path: Path, name: str) -> None:
    marker = tmp_path / "marker"
    CANARIES[name](tmp_path / "hostile", marker)
    answer = tiny("convert", tmp_path / "hostile", "-o", tmp_path)
    assert answer.status in {5, 11}, answer.stderr
    assert not marker.exists()
    assert not list(tmp_path.glob("*.gguf"))


BROKEN: dict[str, tuple[bytes, int]] = {
    "length": ((2**60).to_bytes(8, "little") + b"{}", 5),
    "truncated": (b"", 5),
    "not-json": ((4).to_bytes(8, "little") + b"oops", 5),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_weights_are_told_before_the_converter_runs(tiny: Cli, checkpoint: Path, what: str) -> None:
    content, status = BROKEN[what]
    (checkpoint / "model.safetensors").write_bytes(content)
    answer = tiny("convert", checkpoint)
    assert answer.status == status
    assert "model.safetensors" in answer.stderr


@pytest.mark.parametrize(
    "content", ["", "not json", "[]", "x" * (17 * 1024 * 1024)], ids=["empty", "text", "list", "big"]
)
def test_a_broken_configuration_is_told(tiny: Cli, checkpoint: Path, content: str) -> None:
    (checkpoint / "config.json").write_text(content)
    answer = tiny("convert", checkpoint)
    assert answer.status == 5
    assert "config.json" in answer.stderr


@pytest.mark.parametrize(
    ("words", "status"),
    [
        ((), 2),
        (("nowhere",), 3),
        (("small-llama", "--outtype", "q3_x"), 2),
        (("small-llama", "--split-max-size", "lots"), 2),
        (("small-llama", "--metadata", "small-llama/tokenizer.model"), 2),
        (("small-llama", "-i", "none"), 3),
        (("small-llama", "-o", "no/such/dir"), 10),
        (("small-llama", "a.gguf", "b.gguf"), 2),
        (("small-llama", "--name", "one-word"), 2),
    ],
)
def test_bad_words_of_convert(tiny: Cli, checkpoint: Path, words: tuple[str, ...], status: int) -> None:
    (checkpoint / "tokenizer.model").write_bytes(b"no json")
    answer = tiny("convert", *words)
    assert answer.status == status, answer.stderr
    assert "Traceback" not in answer.stderr


# -- quantize ----------------------------------------------------------------------------------------------------------


def test_several_types_at_once(tiny: Cli, f16: Path) -> None:
    document = tiny.json("quantize", f16, "Q8_0", "Q4_K_M,Q2_K")
    files = [Path(one["files"][0]) for one in document["made"]]
    assert [traits_of(read_gguf(file), "x.gguf").quant for file in files] == ["Q8_0", "Q4_K_M", "Q2_K"]
    assert all(one["provenance"]["parent"]["step"] == "convert" for one in document["made"])
    again = tiny.json("quantize", f16, "Q8_0", "Q4_K_M,Q2_K")
    assert all(one["was_there"] for one in again["made"])


def test_the_words_of_llama_quantize_work(tiny: Cli, f16: Path) -> None:
    tiny.cwd = f16.parent
    tiny.done("quantize", f16.name, "out.gguf", "q4_k_m")
    assert traits_of(read_gguf(f16.parent / "out.gguf"), "x.gguf").quant == "Q4_K_M"


def test_a_quant_of_the_library_lies_beside_it(tiny: Cli, home: Home, checkpoint: Path) -> None:
    tiny.done("convert", checkpoint)
    tiny.done("quantize", "small-llama:F16", "Q8_0")
    assert (home.models_dir / "local" / "small-llama" / "small-llama-Q8_0.gguf").is_file()
    assert set(listed(tiny)) == {"F16", "Q8_0"}


def test_types_are_listed(tiny: Cli) -> None:
    rows = {row["type"]: row for row in tiny.json("quantize")["types"]}
    assert rows["Q8_0"]["bits_per_weight"] == pytest.approx(8.5, abs=0.05)
    assert rows["IQ1_S"]["needs_imatrix"] is True
    assert "Q4_K" not in rows  # an alias


def test_sizes_are_predicted(tiny: Cli, f16: Path) -> None:
    (row,) = tiny.json("quantize", f16, "Q8_0", "--dry-run")["dry_run"]
    made = tiny.json("quantize", f16, "Q8_0")["made"][0]
    assert made["size_bytes"] == pytest.approx(row["size_bytes"], rel=0.5)


@pytest.mark.parametrize("how", ["same", "symlink", "hard link"])
def test_the_output_is_not_the_input(tiny: Cli, f16: Path, how: str) -> None:
    output = f16 if how == "same" else f16.with_name("other.gguf")
    if how == "symlink":
        output.symlink_to(f16)
    elif how == "hard link":
        os.link(f16, output)
    before = f16.read_bytes()
    answer = tiny("quantize", f16, output, "Q4_K_M", "--force")
    assert answer.status == 2, answer.stderr
    assert "same file" in answer.stderr
    assert f16.read_bytes() == before


def test_an_unknown_type_lists_the_known_ones(tiny: Cli, f16: Path) -> None:
    answer = tiny("quantize", f16, f16.with_name("out.gguf"), "NOPE")
    assert answer.status == 2
    assert "Q4_K_M" in answer.stderr
    assert "did you mean 'Q4_K_M'" in tiny("quantize", f16, f16.with_name("out.gguf"), "Q4_KM").stderr


def test_what_exists_stays_without_force(tiny: Cli, f16: Path) -> None:
    output = f16.with_name("out.gguf")
    output.write_bytes(b"mine")
    answer = tiny("quantize", f16, output, "Q8_0")
    assert (answer.status, "--force" in answer.stderr) == (4, True)
    assert output.read_bytes() == b"mine"
    tiny.done("quantize", f16, output, "Q8_0", "--force")
    assert traits_of(read_gguf(output), "x.gguf").quant == "Q8_0"


def test_a_directory_that_is_none(tiny: Cli, f16: Path) -> None:
    assert tiny("quantize", f16, "-o", f16.parent / "missing", "--quant", "Q8_0").status == 10
    (f16.parent / "file").write_text("")
    answer = tiny("quantize", f16, "-o", f16.parent / "file", "--quant", "Q8_0")
    assert (answer.status, "it is a file" in answer.stderr) == (10, True)
    assert tiny("quantize", f16, f16.parent / "file" / "x.gguf", "Q8_0").status == 10


def test_low_types_want_a_matrix(tiny: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in (("HIDDEN", 256), ("INTERMEDIATE", 512)):  # shorter rows get other types, which need none
        monkeypatch.setattr(f"tests.tools.checkpoints.{name}", size)
    f16 = tmp_path / "wide" / "wide-F16.gguf"
    f16.parent.mkdir()
    tiny.done("convert", write_checkpoint(tmp_path / "wide-llama"), f16)
    answer = tiny("quantize", f16, "IQ2_XXS")
    assert answer.status == 2
    assert "llama-mgr imatrix" in answer.stderr
    tiny.done("imatrix", f16, "-o", f16.parent)
    (matrix,) = f16.parent.glob("*.imatrix.gguf")
    document = tiny.json("quantize", f16, "IQ2_XXS", "--imatrix", matrix)
    made = document["made"][0]
    assert made["provenance"]["imatrix_sha256"]
    assert read_gguf(Path(made["files"][0])).metadata["quantize.imatrix.file"] == "imatrix.gguf"


def test_what_is_quantized_loses_twice(tiny: Cli, f16: Path) -> None:
    small = f16.with_name("small.gguf")
    tiny.done("quantize", f16, small, "Q8_0")
    answer = tiny("quantize", small, "Q4_0")
    assert (answer.status, "--allow-requantize" in answer.stderr) == (2, True)
    tiny.done("quantize", small, "Q4_0", "--allow-requantize")


@pytest.mark.parametrize(
    "words",
    [
        ("--tensor-type", "attn_q"),
        ("--override-kv", "a=b"),
        ("--prune-layers", "x"),
        ("--imatrix", "none.gguf"),
        ("--threads", "0"),
        ("--quant", ""),
    ],
)
def test_bad_options_of_quantize(tiny: Cli, f16: Path, words: tuple[str, ...]) -> None:
    answer = tiny("quantize", f16, f16.with_name("o.gguf"), *(() if words[0] == "--quant" else ("Q8_0",)), *words)
    assert answer.status in {2, 3}, answer.stderr
    assert "Traceback" not in answer.stderr
    assert not f16.with_name("o.gguf").exists()


def test_options_reach_the_program(tiny: Cli, f16: Path) -> None:
    words = ("--token-embedding-type", "f16", "--override-kv", "general.author=str:me", "--pure")
    document = tiny.json("quantize", f16, "Q4_0", *words)
    header = read_gguf(Path(document["made"][0]["files"][0]))
    assert header.metadata["general.author"] == "me"
    assert {one.type.name for one in header.tensors if one.name == "token_embd.weight"} == {"F16"}


# -- interruptions -----------------------------------------------------------------------------------------------------


def test_ctrl_c_leaves_nothing(tiny: Cli, home: Home, f16: Path) -> None:
    before = content_of(f16.parent)
    slow_down(home, "llama-quantize", 'case "$*" in *--dry-run*) ;; *) echo part > out/model.gguf; sleep 20;; esac')
    child = subprocess.Popen(
        tiny.argv("quantize", f16, "Q8_0", "Q4_0", "-o", f16.parent), env=dict(tiny.environ), cwd=tiny.cwd,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while not list(f16.parent.glob(".import-*/model/out/model*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    assert child.wait(15) == 130
    assert content_of(f16.parent) == before
    assert not list(f16.parent.glob(".import-*"))


def test_a_kill_takes_the_program_along(tiny: Cli, home: Home, f16: Path) -> None:
    if shutil.which("setpriv") is None:
        pytest.skip("no setpriv here")
    slow_down(home, "llama-quantize", 'case "$*" in *--dry-run*) ;; *) echo part > out/model.gguf; exec sleep 3;; esac')
    child = subprocess.Popen(
        tiny.argv("quantize", f16, "Q8_0"), env=dict(tiny.environ), cwd=tiny.cwd, stderr=subprocess.DEVNULL
    )
    drafts = Path(tiny.environ["LLAMA_MGR_HOME"]) / "models"
    deadline = time.monotonic() + 30
    while not list(drafts.glob(".import-*/model/out/model*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    child.kill()
    child.wait()
    time.sleep(0.5)
    assert not [path for path in Path("/proc").glob("[0-9]*/cwd") if _is_in(path, drafts)]
    assert tiny.json("list")["models"] == []
    assert "import" in tiny.done("index", "prune", "--yes").stdout
    assert not list(drafts.glob(".import-*"))


def _is_in(working_directory: Path, directory: Path) -> bool:
    try:
        return working_directory.readlink().is_relative_to(directory)
    except OSError:
        return False


# -- imatrix, split, merge ---------------------------------------------------------------------------------------------


def test_a_matrix_goes_on_after_a_kill_and_is_the_same(tiny: Cli, home: Home, f16: Path, tmp_path: Path) -> None:
    words = ("imatrix", f16, "-c", "64")
    undisturbed = tiny.json(*words, "-o", tmp_path / "a.imatrix.gguf")
    (tmp_path / "b").mkdir()
    slow_down(home, "llama-imatrix", 'case "$*" in *--in-file*) sleep 3;; esac')
    child = subprocess.Popen(
        tiny.argv(*words, "-o", tmp_path / "b"), env=dict(tiny.environ), cwd=tiny.cwd, stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 30
    while not list(home.cache_dir.glob("imatrix/*/segment-00000.gguf")) and time.monotonic() < deadline:
        time.sleep(0.02)
    child.kill()
    child.wait()
    assert list(home.cache_dir.glob("imatrix/*/segment-*.gguf"))
    answer = tiny.done(*words, "-o", tmp_path / "b")
    assert "going on after" in answer.stderr
    (resumed,) = (tmp_path / "b").glob("*.gguf")
    assert resumed.read_bytes() == Path(undisturbed["files"][0]).read_bytes()
    assert not list(home.cache_dir.glob("imatrix/*"))


def test_a_text_that_is_too_short(tiny: Cli, f16: Path, tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("too short")
    answer = tiny("imatrix", f16, "--text", tmp_path / "short.txt")
    assert (answer.status, "too short" in answer.stderr) == (2, True)
    answer = tiny("evaluate", f16, "--text", tmp_path / "short.txt", "--no-speed")
    assert (answer.status, "too short" in answer.stderr) == (2, True)


def test_the_statistics_of_a_matrix(tiny: Cli, f16: Path) -> None:
    tiny.done("imatrix", f16, "-o", f16.parent)
    (matrix,) = f16.parent.glob("*.imatrix.gguf")
    assert tiny.done("imatrix", "--statistics", matrix).stdout.strip()
    assert tiny("imatrix", "--statistics", f16).status == 5


def test_split_and_merge(tiny: Cli, f16: Path, tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    split = tiny.json("split", f16, "--max-tensors", "4", "-o", tmp_path / "shards")
    assert len(split["files"]) > 1
    assert tiny("split", split["files"][0], "--max-tensors", "4", "-o", tmp_path / "shards").status == 2
    merged = tiny.json("merge", split["files"][0], "-o", tmp_path / "merged.gguf")
    assert read_gguf(Path(merged["files"][0])).tensors == read_gguf(f16).tensors
    assert tiny("merge", f16).status == 2
    assert tiny("split", f16).status == 2
