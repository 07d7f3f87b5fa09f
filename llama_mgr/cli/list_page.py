"""What `list` prints."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_mgr.cli.console import Output
from llama_mgr.errors import LlamaMgrError
from llama_mgr.report import Reporter
from llama_mgr.text import size_words

if TYPE_CHECKING:
    from llama_mgr.models.memory import Machine, Verdict
    from llama_mgr.models.model import Model

COLUMNS = ("name", "quant", "size", "params", "ctx", "arch", "fits?", "modified")
FIT_WORDS: "dict[Verdict, str]" = {"gpu": "gpu", "partly": "gpu+ram", "ram": "ram", "no": "no"}

# What is left out first where a terminal is narrow: the column, and the width from which on it is shown.
_FROM_WIDTH = {"modified": 110, "arch": 96, "ctx": 84, "params": 72}


def model_row(model: "Model", machine: "Machine") -> dict[str, Any]:
    """Return one model as `list --json` prints it."""
    from llama_mgr.models.memory import memory_plan, verdict

    traits = model.traits
    plan = memory_plan(traits, model.size_bytes, mmproj_bytes=model.projector_bytes)
    return {
        "key": model.key,
        "name": model.name,
        "quant": model.quant,
        "size_bytes": model.size_bytes,
        "parameters": traits.parameters,
        "context_tokens": traits.context_tokens,
        "architecture": traits.architecture,
        "bits_per_weight": traits.bits_per_weight,
        "capabilities": list(model.capabilities),
        "fits": verdict(plan.total_bytes, machine),
        "modified_at": model.modified_at,
        "files": [str(file) for file in model.files],
        "projector": str(model.projector) if model.projector else None,
        "projector_bytes": model.projector_bytes,
        "root": str(model.root.path),
        "root_form": model.root.form,
        "source": model.record.source if model.record else None,
        "sha256": model.sha256 or None,
        "license": traits.license,
        "copies": [str(path) for path in model.copies],
    }


def sorted_rows(rows: Sequence[dict[str, Any]], sort: str, words: str) -> list[dict[str, Any]]:
    """Return the rows that have all of `words`, in the order that `sort` names; numbers and times descend."""
    wanted = words.casefold().split()
    kept = [row for row in rows if all(word in _text(row) for word in wanted)] if wanted else list(rows)
    if sort in {"quant", "arch"}:
        field = {"quant": "quant", "arch": "architecture"}[sort]
        return sorted(kept, key=lambda row: (row[field].casefold(), row["name"].casefold()))
    column = {"size": "size_bytes", "params": "parameters", "ctx": "context_tokens", "modified": "modified_at"}.get(
        sort
    )
    return sorted(kept, key=lambda row: row[column] or 0, reverse=True) if column else kept


def _text(row: dict[str, Any]) -> str:
    words = (row["key"], row["name"], row["quant"], row["architecture"], *row["capabilities"])
    return " ".join(words).casefold()


def checkpoint_rows(directories: Sequence[Path], words: str, reporter: Reporter) -> list[dict[str, Any]]:
    """Return the checkpoints in `directories` whose names have all of `words`, as `list --json` prints them."""
    if not directories:
        return []
    from llama_mgr.models.checkpoint_removal import checkpoint_in

    rows = []
    for directory in directories:
        try:
            one = checkpoint_in(directory)
        except LlamaMgrError as error:
            reporter.warn(error.message)
            continue
        if one is not None and all(word in one.name.casefold() for word in words.casefold().split()):
            row = {"name": one.name, "revision": one.revision, "size_bytes": one.size_bytes}
            rows.append({**row, "path": str(directory), "is_whole": one.is_whole})
    return rows


def print_models(
    output: Output, rows: Sequence[dict[str, Any]], *, all_models: int, checkpoints: Sequence[dict[str, Any]]
) -> None:
    """Print the table and its totals; where the terminal is narrow, with the columns that matter most."""
    if not all_models and checkpoints:
        output.line(f"no model yet; {_checkpoint_words(checkpoints)}")
        return
    if not all_models:
        output.line("there is no model yet; get one with `llama-mgr pull`, or see `llama-mgr index add --found`")
        return
    if not rows:
        all_of = "the only model does not have" if all_models == 1 else f"none of the {all_models} models has"
        output.line(f"{all_of} these words")
        return
    shown = _columns()
    cells = [list_row(row) for row in rows]
    output.table([COLUMNS[number] for number in shown], [[row[number] for number in shown] for row in cells])
    size_bytes = sum(row["size_bytes"] + row["projector_bytes"] for row in rows)
    noun = "model" if len(rows) == 1 else "models"
    of = f" of {all_models}" if len(rows) < all_models else ""
    copies = sum(len(row["copies"]) for row in rows)
    also = f"; {copies} more {'copy' if copies == 1 else 'copies'} on this disk" if copies else ""
    besides = f"; {_checkpoint_words(checkpoints)}" if checkpoints else ""
    output.line(f"{len(rows)}{of} {noun}, {size_words(size_bytes)}{also}{besides}")


def _checkpoint_words(checkpoints: Sequence[dict[str, Any]]) -> str:
    count = "1 checkpoint" if len(checkpoints) == 1 else f"{len(checkpoints)} checkpoints"
    return f"{count} for conversion, {size_words(sum(row['size_bytes'] for row in checkpoints))} (see --json)"


def list_row(row: dict[str, Any]) -> tuple[str, ...]:
    """Return the cells of one row of `list`."""
    name = row["name"] if row["key"] in {f"{row['name']}:{row['quant']}", row["name"]} else row["key"]
    return (
        name,
        row["quant"] or "?",
        size_words(row["size_bytes"] + row["projector_bytes"]),
        count_words(row["parameters"]),
        context_words(row["context_tokens"]),
        row["architecture"] or "?",
        FIT_WORDS[row["fits"]],
        row["modified_at"][:10],
    )


def count_words(parameters: int) -> str:
    """Return a number of parameters as people say it: `134.5 M`, `7.6 B`."""
    for unit, size in (("T", 1e12), ("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if parameters >= size * 0.99995:
            return f"{parameters / size:.1f} {unit}"
    return str(parameters)


def context_words(tokens: int | None) -> str:
    """Return the length of a context: `8192`, `128K`, or `?`."""
    if tokens is None:
        return "?"
    return f"{tokens // 1024}K" if tokens >= 16 * 1024 and tokens % 1024 == 0 else str(tokens)


def _columns() -> list[int]:
    if not sys.stdout.isatty() or os.environ.get("COLUMNS") == "0":
        return list(range(len(COLUMNS)))
    width = shutil.get_terminal_size().columns
    return [number for number, name in enumerate(COLUMNS) if width >= _FROM_WIDTH.get(name, 0)]
