"""What `evaluate` and `make` print of measurements."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_mgr.cli.console import Output
from llama_mgr.cli.context import Context
from llama_mgr.text import size_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llama_mgr.make.ledger import Evaluation

_COLUMNS = ("", "quant", "size", "bits", "PPL", "KLD", "KLD 99 %", "same top", "prompt t/s", "gen t/s", "memory")


def evaluation_documents(entries: "Sequence[Evaluation]") -> list[dict[str, Any]]:
    """Return measurements as `--json` prints them; `is_on_front` are those that no other beats in size and loss."""
    import msgspec

    from llama_mgr.make.pareto import front

    best = front(entries)
    return [{**msgspec.to_builtins(one), "is_on_front": place in best} for place, one in enumerate(entries)]


def draw(context: Context, entries: "Sequence[Evaluation]", title: str, file: Path) -> None:
    """Draw measurements into `file`; what matplotlib keeps for the next time goes into our own cache."""
    from llama_mgr.make.plot import plot

    os.environ.setdefault("MPLCONFIGDIR", str(context.home.cache_dir / "matplotlib"))
    plot(entries, title, file)


def print_evaluations(output: Output, entries: "Sequence[Evaluation]") -> None:
    """Print the table, largest first, with a star before those that no other beats."""
    from llama_mgr.make.pareto import front

    ordered = sorted(entries, key=lambda one: (one.model.rpartition(":")[0], -one.size_bytes))
    best = front(ordered)
    rows = [_cells(one, is_best=place in best) for place, one in enumerate(ordered)]
    is_one_model = len({one.model.rpartition(":")[0] for one in ordered}) == 1
    if not is_one_model:
        rows = [(row[0], one.model, *row[2:]) for row, one in zip(rows, ordered, strict=True)]
    output.table(_COLUMNS, rows)
    for line in _remarks(ordered):
        output.line(line)


def _cells(one: "Evaluation", *, is_best: bool) -> tuple[str, ...]:
    return (
        "*" if is_best else "",
        one.quant or "?",
        size_words(one.size_bytes),
        f"{one.bits_per_weight:.2f}",
        _with_error(one.perplexity, one.perplexity_error, 3),
        "base" if one.base_sha256 and one.base_sha256 == one.model_sha256 else _with_error(one.kld, one.kld_error, 4),
        _number(one.kld_99, 3),
        _percent(one.same_top),
        _number(one.prompt_tokens_per_s, 1),
        _number(one.generation_tokens_per_s, 1),
        size_words(one.peak_bytes) if one.peak_bytes else "",
    )


def _with_error(value: float | None, error: float | None, digits: int) -> str:
    if value is None:
        return ""
    return f"{value:.{digits}f} ± {error:.{digits}f}" if error else f"{value:.{digits}f}"


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share * 100:.1f} %"


def _remarks(entries: "Sequence[Evaluation]") -> list[str]:
    lines = []
    if any(one.kld is not None for one in entries) and len(entries) > 1:
        lines.append("* no other here is both smaller and nearer to the base")
    first = entries[0] if entries else None
    if first is not None and first.perplexity is not None:
        chunks = f", at most {first.chunks} chunks" if first.chunks else ""
        base = f"; KLD from {first.base}" if first.base else ""
        lines.append(f"over {first.text}, {first.context_tokens} tokens a chunk{chunks}{base}; by {first.build_id}")
    elif first is not None:
        lines.append(f"by {first.build_id}; models for embeddings have no perplexity")
    devices = {one.devices for one in entries if one.devices}
    return [*lines, *(f"speed on {one}" for one in sorted(devices))]
