"""What `info` prints."""

from typing import Any

from llama_mgr.cli.console import Output
from llama_mgr.cli.list_page import FIT_WORDS, context_words, count_words
from llama_mgr.text import printable, size_words

_FIELD = 14


def print_info(output: Output, document: dict[str, Any]) -> None:
    """Print what `info --json` says."""
    output.line(document["repo"], "bold")
    for name, value in _facts(document):
        if value:
            output.line(f"{name + ':':<{_FIELD}}{printable(value)}")
    output.line()
    if document["quants"]:
        columns = ("", "quant", "size", "shards", "fits?", "here")
        output.table(columns, [_row(quant) for quant in document["quants"]])
    for projector in document["projectors"]:
        output.line(f"projector: {printable(projector['file'])} ({size_words(projector['size_bytes'])})")
    if document["not_chosen"]:
        output.line(document["not_chosen"])
    if document["chosen"]:
        _print_chosen(output, document["chosen"])
    if document["card"]:
        output.line()
        output.markdown(document["card"])


def _facts(document: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        ("page", document["url"]),
        ("commit", document["commit"][:12]),
        ("updated", (document["updated_at"] or "")[:10]),
        ("downloads", f"{document['downloads']:,} in the last 30 days"),
        ("license", document["license"] or ""),
        ("gated", "yes, its owner wants you to accept terms on the page" if document["gated"] else ""),
    ]


def _row(quant: dict[str, Any]) -> tuple[str, ...]:
    missing, count = quant["missing_shards"], len(quant["files"])
    shards = f"{count} of {count + len(missing)}, not whole" if missing else str(count) if count > 1 else ""
    return (
        "*" if quant["is_chosen"] else "",
        printable(quant["label"], 80),
        size_words(quant["size_bytes"]),
        shards,
        FIT_WORDS[quant["fits"]],
        "yes" if quant["local"] else "",
    )


def _print_chosen(output: Output, chosen: dict[str, Any]) -> None:
    output.line()
    output.line(f"* {printable(chosen['label'])}", "bold")
    header, memory = chosen["header"], chosen["memory"]
    if header is None:
        output.line(f"its header cannot be read: {chosen['trouble']}")
        return
    able = ", ".join(header["capabilities"]) or "unknown"
    for name, value in (
        ("title", header["title"] or ""),
        ("architecture", header["architecture"]),
        ("parameters", f"{count_words(header['parameters'])}, {header['bits_per_weight']:.2f} bits each"),
        ("context", f"{context_words(header['context_tokens'])} tokens" if header["context_tokens"] else ""),
        ("can do", able),
        ("memory", _memory_words(memory)),
    ):
        if value:
            output.line(f"{name + ':':<{_FIELD}}{printable(value)}")


def _memory_words(memory: dict[str, Any]) -> str:
    parts = ("weights", "kv_cache", "compute")
    sizes = " + ".join(f"{size_words(memory[f'{part}_bytes'])} {part.replace('_', ' ')}" for part in parts)
    fits = FIT_WORDS[memory["fits"]]
    return f"{size_words(memory['total_bytes'])} with a context of {memory['context_tokens']}: {sizes} (fits: {fits})"
