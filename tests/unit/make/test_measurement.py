"""Numbers in what llama-perplexity and llama-bench really said (b11434, SmolLM2-135M), and in what damages it."""

import json

import pytest

from llama_mgr.make.measurement import Speed, Value, divergence, final_perplexity, speed_of

PERPLEXITY = """\
0.00.842.142 I perplexity: tokenizing the input ..
0.00.858.047 I perplexity: calculating perplexity over 3 chunks, n_ctx=256, batch_size=256, n_seq=1
0.03.520.749 I perplexity: 2.66 seconds per pass - ETA 0.12 minutes
[1]119.6506,[2]94.3394,[3]204.0858,
0.08.025.028 I Final estimate: PPL = 204.0858 +/- 41.01169
"""
OLD_PERPLEXITY = """\
perplexity: calculating perplexity over 2 chunks, n_ctx=512, batch_size=2048, n_seq=4
[1]4.1682,[2]4.6908,
Final estimate: PPL = 4.6908 +/- 0.19012

llama_print_timings:        load time =    1021.72 ms
"""
DIVERGENCE = """\
0.01.725.183 I kl_divergence: computing over 4 chunks, n_ctx=512, batch_size=512, n_seq=1

chunk             PPL               ln(PPL(Q)/PPL(base))          KL Divergence              Δp RMS            Same top p
   1      43.3851 ±    9.3462       0.02896 ±    0.02174       0.06170 ±    0.00306     3.957 ±  0.341 %    87.451 ±  2.079 %
   4      96.3205 ±   10.8391       0.06399 ±    0.01235       0.06562 ±    0.00157     4.363 ±  0.296 %    80.392 ±  1.244 %

====== Perplexity statistics ======
Mean PPL(Q)                   :  96.320538 ±  10.839090
Mean PPL(base)                :  90.350177 ±  10.053476
Cor(ln(PPL(Q)), ln(PPL(base))):  99.40%
Mean ln(PPL(Q)/PPL(base))     :   0.063989 ±   0.012348
Mean PPL(Q)/PPL(base)         :   1.066080 ±   0.013164
Mean PPL(Q)-PPL(base)         :   5.970362 ±   1.389372

====== KL divergence statistics ======
Mean    KLD:   0.065621 ±   0.001574
Maximum KLD:   0.653399
99.9%   KLD:   0.475711
99.0%   KLD:   0.237417
95.0%   KLD:   0.151159
Median  KLD:   0.057536
 1.0%   KLD:   0.002308
Minimum KLD:   0.000251

====== Token probability statistics ======
Mean    Δp: -0.329 ± 0.136 %
Maximum Δp: 26.725%
99.0%   Δp: 11.522%
Median  Δp: -0.001%
Minimum Δp: -41.568%
RMS Δp    :  4.363 ± 0.296 %
Same top p: 80.392 ± 1.244 %
"""  # noqa: E501
# The form of `kl_divergence` of examples/perplexity/perplexity.cpp of January 2024: nothing of it is understood.
OLD_DIVERGENCE = """\
===== KL-divergence statistics
Average:   0.065621 ±  0.001574
Median :   0.057536
Maximum:   0.653399
KLD_99 :   0.237417
"""
BENCH_ROW = {
    "build_commit": "ea8247a60", "build_number": 11434, "cpu_info": "AMD EPYC", "gpu_info": "", "backends": "CPU",
    "model_type": "llama 256M Q4_K - Medium", "n_batch": 2048, "n_ubatch": 512, "n_threads": 2, "n_gpu_layers": -1,
    "devices": "auto", "n_depth": 0, "test_time": "2026-11-28T14:54:24Z", "avg_ns": 316282791,
}  # fmt: skip
PROMPT = {**BENCH_ROW, "n_prompt": 16, "n_gen": 0, "avg_ts": 56.235570, "stddev_ts": 25.203751}
GENERATION = {**BENCH_ROW, "n_prompt": 0, "n_gen": 8, "avg_ts": 14.257178, "stddev_ts": 0.369835}


STATISTICS = DIVERGENCE[DIVERGENCE.index("======") :]
ROWS = DIVERGENCE[: DIVERGENCE.index("======")]


def lines_of(output: str) -> list[str]:
    """Cut into lines as they are heard: a comma ends one, too."""
    return [part for line in output.splitlines() for part in line.split(",") if part]


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (PERPLEXITY, Value(204.0858, 41.01169)),
        (OLD_PERPLEXITY, Value(4.6908, 0.19012)),
        ("Final estimate: PPL = 12 +/- 0.2e-3", Value(12.0, 0.0002)),
        ("Final estimate: PPL = inf +/- nan", None),
        ("Final estimate: PPL = nan +/- nan", None),
        ("Final estimate: PPL = -nan +/- -nan", None),
        ("[1]nan,[2]nan,", None),
        ("Unexpected negative standard deviation of log(prob)", None),
        ("Final estimate: PPL =", None),
        ("", None),
    ],
)
def test_the_perplexity_at_the_end(output: str, expected: Value | None) -> None:
    assert final_perplexity(lines_of(output)) == expected


def test_the_last_perplexity_counts() -> None:
    lines = ["Final estimate: PPL = 1.0 +/- 0.1", "Final estimate: PPL = 2.0 +/- 0.2", "something else"]
    assert final_perplexity(lines) == Value(2.0, 0.2)


def test_where_the_last_line_is_lost_the_last_chunk_counts() -> None:
    lines = [line for line in lines_of(PERPLEXITY) if "Final" not in line]
    assert lines[-1] == "[3]204.0858"
    assert final_perplexity(lines) == Value(204.0858, None)
    assert final_perplexity([*lines, "", "llama_print_timings: load time = 1.2 ms"]) == Value(204.0858, None)


@pytest.mark.parametrize(("old", "new"), [("[3]204.0858,", ""), ("over 3 chunks", "over 30 chunks"), ("204.", "nan.")])
def test_a_perplexity_over_a_part_of_the_text_does_not_count(old: str, new: str) -> None:
    lost = PERPLEXITY.partition("0.08.025")[0]
    assert final_perplexity(lines_of(lost)) is not None
    assert final_perplexity(lines_of(lost.replace(old, new))) is None


def test_the_divergence_at_the_end() -> None:
    expected = {
        "perplexity": Value(96.320538, 10.83909),
        "base": Value(90.350177, 10.053476),
        "kld": Value(0.065621, 0.001574),
        "kld_99": Value(0.237417),
        "kld_max": Value(0.653399),
        "delta_p_rms": (pytest.approx(0.04363), pytest.approx(0.00296)),
        "same_top": (pytest.approx(0.80392), pytest.approx(0.01244)),
    }
    assert divergence(lines_of(DIVERGENCE)) == expected
    assert divergence(lines_of(STATISTICS)) == expected


def test_where_the_last_lines_are_lost_the_row_of_the_last_chunk_counts() -> None:
    assert divergence(lines_of(ROWS)) == {
        "perplexity": Value(96.3205, 10.8391),
        "kld": Value(0.06562, 0.00157),
        "delta_p_rms": (pytest.approx(0.04363), pytest.approx(0.00296)),
        "same_top": (pytest.approx(0.80392), pytest.approx(0.01244)),
    }
    cut = STATISTICS[: STATISTICS.index("99.9%   KLD")]
    found = divergence(lines_of(ROWS + cut))
    assert (found["kld"], found["kld_max"]) == (Value(0.065621, 0.001574), Value(0.653399))
    assert found["same_top"].value == pytest.approx(0.80392)
    assert "kld_99" not in found


@pytest.mark.parametrize(("old", "new"), [("   4  ", "   3  "), ("over 4 chunks", "over 40 chunks"), ("computing", "")])
def test_rows_over_a_part_of_the_text_do_not_count(old: str, new: str) -> None:
    assert divergence(lines_of(ROWS.replace(old, new))) == {}


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("perplexity", "Mean PPL(Q) "), ("base", "Mean PPL(base) "), ("kld", "Mean    KLD"), ("kld_99", "99.0%   KLD"),
        ("kld_max", "Maximum KLD"), ("delta_p_rms", "RMS Δp"), ("same_top", "Same top p:"),
    ],
)  # fmt: skip
def test_a_line_that_is_not_said_is_missing(name: str, line: str) -> None:
    lines = [one for one in STATISTICS.splitlines() if not one.startswith(line)]
    assert len(lines) < len(STATISTICS.splitlines())
    assert divergence(STATISTICS.splitlines()).keys() - divergence(lines).keys() == {name}


@pytest.mark.parametrize("number", ["nan", "-nan", "inf", "-inf"])
def test_what_is_no_number_is_missing(number: str) -> None:
    broken = STATISTICS.replace("0.065621", number).replace("0.237417", number).replace("96.320538", number)
    assert divergence(broken.splitlines()).keys() == {"base", "kld_max", "delta_p_rms", "same_top"}
    assert "kld" not in divergence(lines_of(DIVERGENCE.replace("0.065621", number)))
    row = ROWS.replace("96.3205", number).replace("0.06562", number)
    assert divergence(row.splitlines()).keys() == {"delta_p_rms", "same_top"}


def test_small_and_negative_values_are_read() -> None:
    lines = ["Mean    KLD:  -0.000001 ±   0.000002", "Same top p: 100.000 ± 0.000 %", "99.0%   KLD:   0.000000"]
    found = divergence(lines)
    assert (found["kld"], found["kld_99"]) == (Value(-0.000001, 0.000002), Value(0.0))
    assert found["same_top"] == Value(1.0, 0.0)


@pytest.mark.parametrize("output", ["", PERPLEXITY, OLD_DIVERGENCE, STATISTICS.replace("±", "+/-")])
def test_other_forms_say_no_divergence(output: str) -> None:
    assert not {"perplexity", "kld", "same_top"} & divergence(lines_of(output)).keys()


def test_speeds_and_where_they_were_measured() -> None:
    assert speed_of(json.dumps([PROMPT, GENERATION])) == Speed(56.24, 14.26, "AMD EPYC, 2 threads")
    assert speed_of(json.dumps([GENERATION, PROMPT])) == Speed(56.24, 14.26, "AMD EPYC, 2 threads")
    on_gpu = [{**PROMPT, "gpu_info": "NVIDIA H100"}, GENERATION]
    assert speed_of(json.dumps(on_gpu)) == Speed(56.24, 14.26, "NVIDIA H100")


def test_what_was_not_measured_has_no_speed() -> None:
    both = {**PROMPT, "n_gen": 8, "avg_ts": 1.0}  # `-pg`: prompt and generation in one number
    assert speed_of(json.dumps([both, PROMPT])) == Speed(56.24, None, "AMD EPYC, 2 threads")
    assert speed_of(json.dumps([GENERATION])) == Speed(None, 14.26, "AMD EPYC, 2 threads")
    odd = [{**PROMPT, "avg_ts": "fast"}, {**GENERATION, "avg_ts": None}]
    assert speed_of(json.dumps(odd)) == Speed(None, None, "AMD EPYC, 2 threads")


@pytest.mark.parametrize(
    "output",
    [
        "", "[", "[]", "{}", "null", "[1]", '["x"]', "[[]]", '{"n_prompt": 16}', "error: no such model", "[" * 100_000,
        "| model | size | t/s |", '[{"avg_ts": -nan(ind)}]',
    ],
)  # fmt: skip
def test_what_llama_bench_does_not_print_is_refused(output: str) -> None:
    assert speed_of(output) is None
