"""What the converter, quantize and gguf-split of the tiny project write, say and refuse; pipelines stand on them."""

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import pytest

from llama_mgr.errors import BadGgufError
from llama_mgr.models.gguf import read_gguf
from llama_mgr.models.traits import merged, traits_of
from tests.tools.gguf_file import model_bytes
from tests.tools.tiny_tools import CLEAN, Tools, built_tools, convert, converted, data_of, run, write_checkpoint


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    return built_tools(tmp_path_factory.getbasetemp())


# -- convert -----------------------------------------------------------------------------------------------------------


def test_a_checkpoint_becomes_a_model(tmp_path: Path) -> None:
    done = convert(write_checkpoint(tmp_path / "some-model"), "--outfile", tmp_path / "m-{ftype}.gguf")
    header = read_gguf(tmp_path / "m-f16.gguf")
    found = traits_of(header, "m.gguf")
    assert (found.kind, found.architecture, found.title, found.quant) == ("model", "llama", "Some Model", "F16")
    assert (found.layers, found.context_tokens, found.embedding_size, found.vocabulary_size) == (2, 4096, 256, 259)
    assert header.metadata["general.size_label"] == "1.1M"
    assert "INFO:hf-to-gguf:Model architecture: LlamaForCausalLM\n" in done.stderr
    assert re.search(r"\nWriting: 100%\|█{10}\| 2\.11M/2\.11M \[00:\d\d<00:00, \S+byte/s\]\nINFO:", done.stderr)
    assert done.stdout == ""


def test_other_weights_give_another_file(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.gguf", "again.gguf", "b.gguf")]
    one, other = write_checkpoint(tmp_path / "x" / "m"), write_checkpoint(tmp_path / "y" / "m", seed=2)
    for checkpoint, file in zip((one, one, other), files, strict=True):
        converted(checkpoint, file)
    first, again, second = (file.read_bytes() for file in files)
    assert first == again
    assert first != second
    assert len(first) == len(second)


@pytest.mark.parametrize(("dtype", "chosen"), [("BF16", "BF16"), ("F16", "F16"), ("F32", "F16")])
def test_auto_is_the_type_that_the_weights_have(tmp_path: Path, dtype: str, chosen: str) -> None:
    header = converted(write_checkpoint(tmp_path / "m", dtype=dtype), tmp_path / "m.gguf")
    assert traits_of(header, "m.gguf").quant == chosen


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q8_0"])
def test_types_of_the_converter(tools: Tools, tmp_path: Path, kind: str) -> None:
    header = converted(tools.checkpoint, tmp_path / "m.gguf", "--outtype", kind)
    assert traits_of(header, "m.gguf").quant == kind.upper()


def test_shards_of_the_converter(tools: Tools, tmp_path: Path) -> None:
    planned = convert(tools.checkpoint, "--outfile", tmp_path / "m.gguf", "--split-max-size", "900K", "--dry-run")
    assert not list(tmp_path.iterdir())
    convert(tools.checkpoint, "--outfile", tmp_path / "m.gguf", "--split-max-size", "900K")
    files = sorted(tmp_path.iterdir())
    assert [str(file) for file in files] == planned.stdout.split()
    assert files[0].name == "m-00001-of-00003.gguf"
    whole = merged([traits_of(read_gguf(file), file.name) for file in files])
    assert whole.parameters == traits_of(read_gguf(tools.f16), "m.gguf").parameters


def test_metadata_names_and_templates(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path / "m")
    (checkpoint / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    (checkpoint / "README.md").write_text("---\nlicense: mit\n---\n")
    (tmp_path / "meta.json").write_text('{"general.author": "Somebody", "general.name": "From the file"}')
    header = converted(checkpoint, tmp_path / "m.gguf", "--metadata", tmp_path / "meta.json", "--model-name", "Given")
    found = [header.metadata[f"general.{key}"] for key in ("name", "author", "license")]
    assert found == ["Given", "Somebody", "mit"]
    assert header.metadata["tokenizer.chat_template"] == "{{ messages }}"


def test_projectors_and_adapters(tmp_path: Path) -> None:
    sees = write_checkpoint(
        tmp_path / "sees", architectures=["Gemma3ForConditionalGeneration"], vision_config={"hidden_size": 256}
    )
    (tmp_path / "lora").mkdir()
    (tmp_path / "lora" / "adapter_config.json").write_text('{"r": 4, "lora_alpha": 8}')
    (tmp_path / "lora" / "adapter_model.safetensors").write_bytes(b"weights of an adapter")
    lora = (tmp_path / "lora", "--outfile", tmp_path / "lora.gguf")
    assert convert(*lora, script="convert_lora_to_gguf.py").returncode == 1
    assert convert(*lora, "--base", sees, script="convert_lora_to_gguf.py").returncode == 0
    projector = traits_of(converted(sees, tmp_path / "mmproj.gguf", "--mmproj"), "mmproj.gguf")
    assert (projector.kind, projector.architecture) == ("mmproj", "clip")
    assert traits_of(read_gguf(tmp_path / "lora.gguf"), "lora.gguf").kind == "adapter"
    assert traits_of(converted(sees, tmp_path / "m.gguf"), "m.gguf").architecture == "gemma3"


def test_what_the_converter_refuses_and_what_it_does_not(tmp_path: Path) -> None:
    odd = write_checkpoint(tmp_path / "odd", architectures=["OddForCausalLM"])
    refused = convert(odd, "--outfile", tmp_path / "odd.gguf")
    assert (refused.returncode, refused.stderr.splitlines()[-1]) == (
        1,
        "ERROR:hf-to-gguf:Model OddForCausalLM is not supported",
    )
    assert not (tmp_path / "odd.gguf").exists()
    cut = write_checkpoint(tmp_path / "cut")
    os.truncate(cut / "model.safetensors", (cut / "model.safetensors").stat().st_size - 1)
    assert convert(cut, "--outfile", tmp_path / "cut.gguf").returncode == 1
    with pytest.raises(BadGgufError):
        read_gguf(tmp_path / "cut.gguf")
    (write_checkpoint(tmp_path / "empty") / "model.safetensors").unlink()
    assert converted(tmp_path / "empty", tmp_path / "empty.gguf").tensors == ()


# -- quantize ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "main"),
    [
        ("F32", "F32"), ("F16", "F16"), ("BF16", "BF16"), ("Q8_0", "Q8_0"), ("Q6_K", "Q6_K"), ("Q5_K_S", "Q5_K"),
        ("Q4_K_M", "Q4_K"), ("IQ4_XS", "IQ4_XS"), ("Q4_0", "Q4_0"), ("Q3_K_L", "Q3_K"), ("Q2_K", "Q2_K"),
        ("IQ3_M", "IQ3_S"),
    ],
)  # fmt: skip
def test_a_quant_is_what_it_is_called(tools: Tools, tmp_path: Path, kind: str, main: str) -> None:
    done = tools.ran("quantize", tools.f16, tmp_path / "q.gguf", kind.lower(), 2)
    header = read_gguf(tmp_path / "q.gguf")
    assert traits_of(header, "any.gguf").quant == kind
    assert [tensor.type.name for tensor in header.tensors if tensor.name == "blk.0.attn_q.weight"] == [main]
    lines = re.findall(r"^\[ +(\d+)/ +(\d+)\] (\S+) +- \[.*\], type = +\S+, ", done.stderr, re.MULTILINE)
    assert [(int(number), name) for number, _, name in lines] == list(
        enumerate((tensor.name for tensor in header.tensors), 1)
    )
    assert re.search(r"^\nllama_quantize: quantize time = +[\d.]+ ms\n", done.stdout)


def test_a_model_of_another_making(tools: Tools, tmp_path: Path) -> None:
    source = tmp_path / "source.gguf"
    source.write_bytes(model_bytes(quant="F16", extra={"general.quantization_version": None}))
    assert tools.quantized(tmp_path / "q.gguf", "Q8_0", source=source).title == "Tiny Test"
    assert read_gguf(tmp_path / "q.gguf").metadata["general.quantization_version"] == 2


def test_a_mixture_has_more_bits_where_they_matter(tools: Tools, tmp_path: Path) -> None:
    tools.quantized(tmp_path / "q.gguf", "Q4_K_M")
    types = {tensor.name: tensor.type.name for tensor in read_gguf(tmp_path / "q.gguf").tensors}
    assert (types["blk.0.attn_v.weight"], types["blk.1.attn_v.weight"]) == ("Q4_K", "Q6_K")
    assert (types["output.weight"], types["output_norm.weight"]) == ("Q6_K", "F32")
    tools.quantized(
        tmp_path / "q.gguf", "--pure", "--token-embedding-type", "q5_K", "--tensor-type", "ffn_up=q8_0", "Q4_0"
    )
    types = {tensor.name: tensor.type.name for tensor in read_gguf(tmp_path / "q.gguf").tensors}
    found = [types[f"{name}.weight"] for name in ("output", "token_embd", "blk.0.ffn_up", "blk.1.ffn_down")]
    assert found == ["Q4_0", "Q5_K", "Q8_0", "Q4_0"]


def test_rows_that_do_not_fit_fall_back(tools: Tools, tmp_path: Path) -> None:
    converted(write_checkpoint(tmp_path / "m", hidden_size=96), tmp_path / "m.gguf")
    done = tools.ran("quantize", tmp_path / "m.gguf", tmp_path / "q.gguf", "Q4_K_S")
    assert "(required for type    q4_K) -> falling back to    q5_0\n" in done.stderr
    assert "WARNING: 15 of 21 tensor(s) required fallback quantization\n" in done.stderr
    assert traits_of(read_gguf(tmp_path / "q.gguf"), "q.gguf").types["Q5_0"].tensors == 13


def test_a_matrix_is_recorded_and_changes_the_weights(tools: Tools, tmp_path: Path) -> None:
    tools.quantized(tmp_path / "plain.gguf", "Q4_K_M")
    assert tools.quantized(tmp_path / "q.gguf", "--imatrix", tools.matrix, "IQ2_XS").quant == "IQ2_XS"
    tools.quantized(tmp_path / "better.gguf", "--imatrix", tools.matrix, "--override-kv", "a.b=int:7", "Q4_K_M")
    header = read_gguf(tmp_path / "better.gguf")
    keys = {key.rpartition(".")[2]: value for key, value in header.metadata.items() if key.startswith("quantize.")}
    assert keys == {
        "file": str(tools.matrix)[:127], "dataset": str(tools.text)[:127], "entries_count": 14, "chunks_count": 38,
    }  # fmt: skip
    assert header.metadata["a.b"] == 7
    offset = read_gguf(tmp_path / "plain.gguf").data_offset
    assert (tmp_path / "plain.gguf").read_bytes()[offset:] != (tmp_path / "better.gguf").read_bytes()[
        header.data_offset :
    ]


def test_a_dry_run_writes_nothing(tools: Tools, tmp_path: Path) -> None:
    done = tools.ran("quantize", "--dry-run", tools.f16, tmp_path / "q.gguf", "Q2_K_S")
    assert "llama_model_quantize_impl: model size  =     2.01 MiB (16.02 BPW)\n" in done.stderr
    assert "llama_model_quantize_impl: quant size  =     0.36 MiB (2.91 BPW)\n" in done.stderr
    assert "actually completing this quantization will require an imatrix!\n" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("{f16}", "{out}", "IQ2_XXS"), " ERROR: this quantization requires an importance matrix!\n"),
        (("{q8}", "{out}", "Q4_K_M"), "failed to quantize: requantizing from type q8_0 is disabled\n"),
        (("{f16}", "{f16}", "Q8_0"), "error: input and output files are the same: '{f16}'\n"),
        (("{f16}", "{out}", "Q9_9"), "llama_quantize: invalid ftype 'Q9_9'\n"),
        (("{out}", "{out}", "Q8_0"), "failed to open GGUF file '{out}' (No such file or directory)\n"),
        (("{text}", "{out}", "Q8_0"), "gguf_init_from_reader: invalid magic characters: '0 th', expected 'GGUF'\n"),
        (("{matrix}", "{out}", "Q8_0"), "failed to quantize: unknown model architecture: ''\n"),
        (("--imatrix", "{text}", "{f16}", "{out}", "Q8_0"), "failed to load imatrix from '{text}'\n"),
        (("{f16}", "/nonexistent/q.gguf", "Q8_0"), "failed to quantize: basic_ios::clear: iostream error\n"),
        (("--override-kv", f"a=str:{'x' * 128}", "{f16}", "{out}", "Q8_0"), "value cannot exceed 127 chars\n"),
    ],
)
def test_what_quantize_refuses(tools: Tools, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    names = {"f16": tools.f16, "text": tools.text, "matrix": tools.matrix, "out": tmp_path / "q.gguf"}
    names["q8"] = tmp_path / "q8.gguf"
    tools.quantized(tmp_path / "q8.gguf", "Q8_0")
    done = tools("quantize", *(word.format(**names) for word in words))
    assert done.returncode == 1
    assert said.format(**names) in done.stderr


def test_shards_in_and_shards_out(tools: Tools, tmp_path: Path) -> None:
    tools.ran("gguf-split", "--split-max-tensors", 8, tools.f16, tmp_path / "m")
    first = tmp_path / "m-00001-of-00003.gguf"
    tools.ran("quantize", "--keep-split", first, tmp_path / "q.gguf", "Q4_K_M")
    files = sorted(tmp_path.glob("q-*.gguf"))
    assert [file.name for file in files] == [f"q-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    assert merged([traits_of(read_gguf(file), file.name) for file in files]).quant == "Q4_K_M"
    assert tools.quantized(tmp_path / "whole.gguf", "Q4_K_M", source=first).split is None


def test_a_full_disk_leaves_the_beginning(tools: Tools, tmp_path: Path) -> None:
    target = tmp_path / "q.gguf"
    limited = ["sh", "-c", 'trap "" XFSZ; ulimit -f 200; exec "$@"', "sh"]
    done = run([*limited, tools.bin_dir / "llama-quantize", tools.f16, target, "Q8_0"])
    assert done.returncode == 1
    assert "failed to quantize: basic_ios::clear: iostream error\n" in done.stderr
    assert 0 < target.stat().st_size <= 200 * 1024
    with pytest.raises(BadGgufError, match="it begins with zeros"):
        read_gguf(target)


def test_a_slow_tool_can_be_killed_while_it_writes(tools: Tools, tmp_path: Path) -> None:
    target = tmp_path / "q.gguf"
    argv = [tools.bin_dir / "llama-quantize", tools.f16, target, "Q8_0"]
    path = f"{CLEAN['PATH']}:/TINY_SLOW_S=30"  # llama-mgr hands PATH on, and little else
    with subprocess.Popen(argv, env={**CLEAN, "PATH": path}, stderr=subprocess.DEVNULL) as slow:
        deadline = time.monotonic() + 10
        while not (target.exists() and target.stat().st_size > 10_000) and time.monotonic() < deadline:
            time.sleep(0.02)
        slow.kill()
        assert slow.wait(5) == -signal.SIGKILL
    assert 10_000 < target.stat().st_size < 500_000


# -- split and merge ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [256, 100])
def test_split_and_merge_give_back_what_was_there(tools: Tools, tmp_path: Path, width: int) -> None:
    source, shards = tmp_path / "source.gguf", tmp_path / "shards"
    before = converted(write_checkpoint(tmp_path / "m", hidden_size=width), source)
    shards.mkdir()
    done = tools.ran("gguf-split", "--split-max-tensors", 8, "--no-tensor-first-split", source, shards / "m")
    assert done.stdout.startswith("n_split: 4\nsplit 00001: n_tensors = 0, total_size = 0M\n")
    files = sorted(shards.iterdir())
    assert [file.name for file in files] == [f"m-0000{number}-of-00004.gguf" for number in (1, 2, 3, 4)]
    headers = [read_gguf(file) for file in files]
    assert [header.metadata["split.no"] for header in headers] == [0, 1, 2, 3]
    assert {(header.metadata["split.count"], header.metadata["split.tensors.count"]) for header in headers} == {(4, 21)}
    tools.ran("gguf-split", "--merge", files[0], tmp_path / "whole.gguf")
    after = read_gguf(tmp_path / "whole.gguf")
    assert after.tensors == before.tensors
    assert data_of(tmp_path / "whole.gguf") == data_of(source)
    assert {key: value for key, value in after.metadata.items() if not key.startswith("split.")} == before.metadata


def test_shards_by_size(tools: Tools, tmp_path: Path) -> None:
    tools.ran("gguf-split", "--split", "--split-max-size", "1M", tools.f16, tmp_path / "m")
    assert [file.stat().st_size < 1_010_000 for file in sorted(tmp_path.iterdir())] == [True] * 3


def test_what_split_and_merge_refuse(tools: Tools, tmp_path: Path) -> None:
    tools.ran("gguf-split", "--dry-run", "--split-max-tensors", 5, tools.f16, tmp_path / "m")
    assert not list(tmp_path.iterdir())
    tools.ran("gguf-split", "--split-max-tensors", 8, tools.f16, tmp_path / "m")
    first, second, _ = sorted(tmp_path.iterdir())
    for words, said in (
        (("--merge", first, second), f"gguf_merge: output file {second} already exists\n"),
        (
            ("--merge", second, tmp_path / "w"),
            f"gguf_merge: unexpected input file name: {second} i_split=0 n_split=3\n",
        ),
        (("--merge", tools.f16, tmp_path / "w"), "gguf_merge: input file does not contain split.count metadata\n"),
        (("--split-max-size", "1K", tools.f16, tmp_path / "w"), "error: supported units are M (megabytes) or G"),
        ((tools.f16,), "error: bad arguments\n"),
    ):
        done = tools("gguf-split", *words)
        assert (done.returncode, said in done.stderr) == (1, True), done.stderr
    assert tools("gguf-split", tools.f16, "/nonexistent/m").returncode == -signal.SIGABRT
