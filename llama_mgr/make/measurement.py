"""What llama-perplexity and llama-bench say, as numbers."""

import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

_NUMBER = r"(-?(?:\d+\.?\d*(?:e[+-]?\d+)?|nan|inf))"
_ANNOUNCED = re.compile(r"(?:calculating perplexity|computing) over (\d+) chunks")
_RUNNING = re.compile(rf"\[(\d+)\]{_NUMBER}$")
_ROW = re.compile(
    r"^\s*(?P<chunk>\d+)\s+"
    + r"\s+".join(
        rf"(?P<{name}>{_NUMBER}) ±\s+(?P<{name}_error>{_NUMBER})(?: %)?"
        for name in ("perplexity", "ratio", "kld", "delta_p_rms", "same_top")
    )
)
_IN_PERCENT = frozenset({"delta_p_rms", "same_top"})
_FINAL = re.compile(rf"Final estimate: PPL = {_NUMBER} \+/- {_NUMBER}")
_LINES = {
    "perplexity": re.compile(rf"Mean PPL\(Q\)\s*:\s*{_NUMBER}\s*±\s*{_NUMBER}"),
    "base": re.compile(rf"Mean PPL\(base\)\s*:\s*{_NUMBER}\s*±\s*{_NUMBER}"),
    "kld": re.compile(rf"Mean\s+KLD:\s*{_NUMBER}\s*±\s*{_NUMBER}"),
    "kld_99": re.compile(rf"99\.0%\s+KLD:\s*{_NUMBER}"),
    "kld_max": re.compile(rf"Maximum KLD:\s*{_NUMBER}"),
    "delta_p_rms": re.compile(rf"RMS Δp\s*:\s*{_NUMBER}\s*±\s*{_NUMBER}"),
    "same_top": re.compile(rf"Same top p:\s*{_NUMBER}\s*±\s*{_NUMBER}"),
}


class Value(NamedTuple):
    """A number and one standard deviation of it, where that is known."""

    value: float
    error: float | None = None


def final_perplexity(lines: Sequence[str]) -> Value | None:
    """Return the perplexity that a run without `--kl-divergence` ends with; None when there is none, or no number.

    llama-perplexity writes its log in a thread that nobody waits for, so that its last lines may be lost (seen with
    b11434). Then what it said after the last chunk counts, if it was the last.
    """
    found = next((match for line in reversed(lines) if (match := _FINAL.search(line))), None)
    value = _scaled("perplexity", found[1], found[2]) if found else _running(lines)
    return value if value and _is_finite(value.value) else None


def _running(lines: Sequence[str]) -> Value | None:
    """Return the perplexity over all chunks, if the last of them was told of."""
    last = next((match for line in reversed(lines) if (match := _RUNNING.search(line.strip()))), None)
    return Value(float(last[2])) if last and last[1] == _announced(lines) else None


def _announced(lines: Sequence[str]) -> str | None:
    """Return how many chunks the program said that there are, in digits."""
    return next((match[1] for line in lines if (match := _ANNOUNCED.search(line))), None)


def divergence(lines: Sequence[str]) -> dict[str, Value]:
    """Return what a run with `--kl-divergence` ends with.

    Returns:
        `perplexity`, `base`, `kld`, `kld_99`, `kld_max`, and, as shares from 0 to 1, `delta_p_rms` and `same_top`;
        what was not said or is no number is missing. Where the last lines were lost (see `final_perplexity`), there is
        what the row of the last chunk says.
    """
    said = {
        name: match for line in lines for name, pattern in _LINES.items() if (match := pattern.search(line)) is not None
    }
    found = {name: _scaled(name, *match.groups()) for name, match in said.items()}
    found |= {name: value for name, value in _last_row(lines).items() if name not in said}
    return {name: value for name, value in found.items() if _is_finite(value.value)}


def _scaled(name: str, value: str, error: str | None = None) -> Value:
    scale = 0.01 if name in _IN_PERCENT else 1.0
    spread = None if error is None else float(error) * scale
    return Value(float(value) * scale, spread if spread is not None and _is_finite(spread) else None)


def _last_row(lines: Sequence[str]) -> dict[str, Value]:
    """Return what the row of the last chunk says, which is over all chunks; nothing when it is missing."""
    row = next((match for line in reversed(lines) if (match := _ROW.match(line))), None)
    if row is None or row["chunk"] != _announced(lines):
        return {}
    names = ("perplexity", "kld", "delta_p_rms", "same_top")
    return {name: _scaled(name, row[name], row[f"{name}_error"]) for name in names}


class Speed(NamedTuple):
    """What llama-bench measured, in tokens per second; None for what it was not asked."""

    prompt: float | None
    generation: float | None
    devices: str


def speed_of(output: str) -> Speed | None:
    """Return the speeds in the output of `llama-bench -o json`; None when it is not what that prints."""
    try:
        rows = json.loads(output)
    except (ValueError, RecursionError):
        return None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows) or not rows:
        return None
    return Speed(_rate(rows, "n_prompt"), _rate(rows, "n_gen"), _devices(rows[0]))


def _rate(rows: Sequence[dict[str, Any]], kind: str) -> float | None:
    other = "n_gen" if kind == "n_prompt" else "n_prompt"
    found = (row.get("avg_ts") for row in rows if row.get(kind) and not row.get(other))
    value = next(found, None)
    return round(float(value), 2) if isinstance(value, int | float) else None


def _devices(row: dict[str, Any]) -> str:
    """Return what it ran on: `AMD EPYC, 2 threads`, or the GPU."""
    gpu, cpu = row.get("gpu_info"), row.get("cpu_info")
    return str(gpu) if gpu else f"{cpu}, {row.get('n_threads')} threads"


def _is_finite(value: float) -> bool:
    return value == value and abs(value) != float("inf")  # noqa: PLR0124 (NaN)
