"""What imatrix, perplexity and bench of the tiny project write, say and refuse; pipelines stand on them."""

import json
import re
import struct
from pathlib import Path

import pytest

from llama_mgr.models.gguf import Array, read_gguf
from llama_mgr.models.traits import traits_of
from tests.tools.tiny_tools import Done, Tools, built_tools, converted, data_of, write_checkpoint


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Tools:
    return built_tools(tmp_path_factory.getbasetemp())


# -- imatrix -----------------------------------------------------------------------------------------------------------


def test_a_matrix_is_told_and_written(tools: Tools, tmp_path: Path) -> None:
    words = ("-m", tools.f16, "-f", tools.text, "-o", tmp_path / "m.gguf", "-c", 128, "-b", 128, "--chunks", 5)
    done = tools.ran("imatrix", *words)
    assert "I compute_imatrix: computing over 5 chunks, n_ctx=128, batch_size=128, n_seq=1\n" in done.stderr
    assert re.search(r"^\[1\]\d+\.\d{4},\[2\]\d+\.\d{4},", done.stdout, re.MULTILINE)
    assert re.search(r"^Final estimate: PPL = \d+\.\d{4} \+/- \d+\.\d{5}$", done.stdout, re.MULTILINE)
    header = read_gguf(tmp_path / "m.gguf")
    assert traits_of(header, "m.gguf").kind == "imatrix"
    assert (header.metadata["imatrix.chunk_count"], header.metadata["imatrix.chunk_size"]) == (5, 128)
    assert header.metadata["imatrix.datasets"] == Array("string", 1)
    names = {tensor.name for tensor in header.tensors}
    assert {"blk.1.ffn_down.weight.in_sum2", "blk.1.ffn_down.weight.counts"} <= names
    assert not any(name.startswith("output") for name in names)
    tools.ran("imatrix", *words, "--process-output")
    assert "output.weight.in_sum2" in {tensor.name for tensor in read_gguf(tmp_path / "m.gguf").tensors}


def test_segments_add_up_to_one_run(tools: Tools, tmp_path: Path) -> None:
    common = ("-m", tools.f16, "-f", tools.text, "-c", 128, "--no-ppl", "--output-frequency", 1000)
    first, second, both, whole = (tmp_path / f"{name}.gguf" for name in ("first", "second", "both", "whole"))
    tools.ran("imatrix", *common, "-o", whole, "--chunks", 20)
    tools.ran("imatrix", *common, "-o", first, "--chunks", 8)
    tools.ran("imatrix", *common, "-o", second, "--chunk", 8, "--chunks", 12)
    tools.ran("imatrix", *common, "-o", both, "--chunk", 8, "--chunks", 12, "--in-file", first)
    assert data_of(both) == data_of(whole) != data_of(first)
    assert read_gguf(both).metadata["imatrix.chunk_count"] == 20
    tools.ran("imatrix", "-m", tools.f16, "-o", both, "--in-file", f"{first},{second}")
    assert data_of(both) == data_of(whole)


def test_a_matrix_in_the_old_format(tools: Tools, tmp_path: Path) -> None:
    old = tmp_path / "m.dat"
    words = ("-m", tools.f16, "-f", tools.text, "-c", 128, "--chunks", 4)
    tools.ran("imatrix", *words, "-o", old, "--output-format", "dat")
    assert old.read_bytes().endswith(str(tools.text).encode())
    done = tools.ran("quantize", "--imatrix", old, tools.f16, tmp_path / "q.gguf", "IQ2_XS")
    assert f"loaded 14 importance matrix entries from {old} computed on 4 chunks\n" in done.stdout


def test_statistics(tools: Tools) -> None:
    done = tools.ran("imatrix", "-m", tools.f16, "--show-statistics", "--in-file", tools.matrix)
    assert f"Computing tensor statistics for {tools.matrix} (14 tensors)\n" in done.stdout
    assert re.search(r"^ +1 \| blk\.1\.ffn_up\.weight +\| ", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-f", "{text}", "-c", "8192"), "you need at least 16384 tokens for a context of 8192 tokens\n"),
        (("-f", "{text}", "-c", "512", "--chunk", "9"), "not enough tokens left after removing 9 chunks\n"),
        ((), "No prompt provided and no precomputed matrices (--in-file) to combine.\n"),
        (("-f", "/nonexistent"), "error: failed to open file '/nonexistent'\n"),
        (("--in-file", "{text}"), "E main : failed to load {text}\n"),
        (("-f", "{text}", "--wrong"), "error: invalid argument: --wrong\n"),
        (("-f", "{text}", "-m", "/nonexistent"), "failed to load model from /nonexistent\n"),
    ],
)
def test_what_imatrix_refuses(tools: Tools, tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    done = tools(
        "imatrix", "-m", tools.f16, "-o", tmp_path / "m.gguf", *(word.format(text=tools.text) for word in words)
    )
    assert done.returncode == 1
    assert said.format(text=tools.text) in done.stderr
    assert not (tmp_path / "m.gguf").exists()
    assert tools("imatrix", "--show-statistics", "--in-file", tools.matrix).stderr == "error: --model is required\n\n"


# -- perplexity and KL divergence --------------------------------------------------------------------------------------


def perplexity_of(done: Done) -> float:
    found = re.search(r"Final estimate: PPL = (\d+\.\d{4}) \+/- \d+\.\d{5}\n", done.stderr)
    assert found, done.stderr
    return float(found[1])


def compared(tools: Tools, model: Path, base: Path) -> dict[str, float]:
    done = tools.ran("perplexity", "-m", model, "-c", 128, "--kl-divergence", "--kl-divergence-base", base)
    rows = re.findall(r"^(.*?)\s*: +(-?[\d.]+)(?: ± +[\d.]+)? ?%?$", done.stdout, re.MULTILINE)
    return {name: float(value) for name, value in rows}


def test_fewer_bits_are_worse(tools: Tools, tmp_path: Path) -> None:
    base = tmp_path / "base.kld"
    words = ("-c", 128, "-f", tools.text, "--chunks", 8)
    best = perplexity_of(tools.ran("perplexity", "-m", tools.f16, *words, "--kl-divergence-base", base))
    assert base.read_bytes()[:20] == b"_logits_" + struct.pack("<3I", 128, 259, 8)
    kinds = ["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_K_S", "Q3_K_M", "Q2_K"]
    models = [tmp_path / f"{kind}.gguf" for kind in kinds]
    for kind, model in zip(kinds, models, strict=True):
        tools.quantized(model, kind)
    found = [compared(tools, model, base) for model in [tools.f16, *models]]
    divergences, perplexities = ([row[name] for row in found] for name in ("Mean    KLD", "Mean PPL(Q)"))
    assert divergences == sorted(divergences)
    assert perplexities == sorted(perplexities)
    assert best == pytest.approx(perplexities[0], rel=1e-4)
    assert found[0]["Same top p"] == 100 > found[1]["Same top p"] > found[-1]["Same top p"] > 50
    assert {"99.9%   KLD", "Median  KLD", "RMS Δp", "Mean    Δp", "Cor(ln(PPL(Q)), ln(PPL(base)))"} <= found[1].keys()
    assert perplexity_of(tools.ran("perplexity", "-m", models[3], *words)) == pytest.approx(perplexities[4], abs=1e-4)
    tools.quantized(tmp_path / "better.gguf", "--imatrix", tools.matrix, "Q4_K_M")
    assert compared(tools, tmp_path / "better.gguf", base)["Mean    KLD"] < divergences[4]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ("--kl-divergence", "--kl-divergence-base", "{text}"),
            "does not look like a file containing log-probabilities\n",
        ),
        (("--kl-divergence",), "you must provide a name of a file containing the log probabilities"),
        (
            ("-f", "{text}", "-c", "8192"),
            "you need at least 16384 tokens to evaluate perplexity with a context of 8192\n",
        ),
    ],
)
def test_what_perplexity_cannot_do_is_no_error_to_it(tools: Tools, words: tuple[str, ...], said: str) -> None:
    done = tools.ran("perplexity", "-m", tools.f16, *(word.format(text=tools.text) for word in words))
    assert said in done.stderr
    assert "Final estimate" not in done.stderr
    assert tools("perplexity", "-m", "/nonexistent", "-f", tools.text).returncode == 1


def test_another_vocabulary_is_told_and_nothing_follows_from_it(tools: Tools, tmp_path: Path) -> None:
    converted(write_checkpoint(tmp_path / "m", vocab_size=300), tmp_path / "other.gguf")
    base = tmp_path / "base.kld"
    tools.ran("perplexity", "-m", tmp_path / "other.gguf", "-f", tools.text, "-c", 128, "--kl-divergence-base", base)
    done = tools.ran("perplexity", "-m", tools.f16, "-c", 128, "--kl-divergence", "--kl-divergence-base", base)
    assert "E kl_divergence: inconsistent vocabulary (300 vs 259)\n" in done.stderr
    assert "Mean    KLD" not in done.stdout


def test_the_last_lines_may_be_lost_once(tools: Tools, tmp_path: Path) -> None:
    words = ("-m", tools.f16, "-f", tools.text, "-c", 128, "--chunks", 3)
    first, second = (tools.ran("perplexity", *words, TINY_LOSE_LOG=str(tmp_path / "lost")) for _ in range(2))
    assert "Final estimate" not in first.stderr
    assert perplexity_of(second) > 1


# -- bench -------------------------------------------------------------------------------------------------------------


def test_bench_tells_what_upstream_tells(tools: Tools, tmp_path: Path) -> None:
    tools.quantized(tmp_path / "q.gguf", "Q4_K_M")
    words = ("-m", tools.f16, "-m", tmp_path / "q.gguf", "-p", "16,32", "-n", 4, "-r", 3, "-t", 2, "-ngl", 0)
    tests = json.loads(tools.ran("bench", *words, "-o", "json").stdout)
    assert [(one["n_prompt"], one["n_gen"]) for one in tests] == [(16, 0), (32, 0), (0, 4)] * 2
    first, last = tests[0], tests[-1]
    assert (first["build_commit"], first["build_number"], first["model_type"]) == ("abc1234", 11434, "llama ?B F16")
    assert (first["n_threads"], first["n_gpu_layers"], first["backends"]) == (2, 0, "CPU")
    assert (last["model_type"], last["model_filename"]) == ("llama ?B Q4_K - Medium", str(tmp_path / "q.gguf"))
    assert len(first["samples_ts"]) == len(first["samples_ns"]) == 3
    assert last["avg_ts"] > tests[2]["avg_ts"]
    lines = tools.ran("bench", *words, "-o", "jsonl").stdout.splitlines()
    assert [json.loads(line).keys() for line in lines] == [first.keys()] * 6
    assert re.search(r"\| llama \?B F16 .*\| +tg4 \| +[\d.]+ ± [\d.]+ \|\n", tools.ran("bench", *words).stdout)
    failed = tools("bench", "-m", tmp_path / "none.gguf")
    assert (failed.returncode, "error: failed to load model" in failed.stderr) == (1, True)
