"""What `show` prints."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llama_mgr.cli.console import Output
from llama_mgr.cli.list_page import FIT_WORDS, context_words, count_words
from llama_mgr.text import printable, size_words

if TYPE_CHECKING:
    from llama_mgr.models.gguf import GgufHeader, Value
    from llama_mgr.models.memory import Machine
    from llama_mgr.models.model import Model

_TEMPLATE_KEY = "tokenizer.chat_template"
_TEMPLATE_LIMIT = 20_000
_VALUE_LIMIT = 120
_TABLE_VALUES = 8
_FIT_SENTENCES = {
    "gpu": "fits on the GPU",
    "partly": "fits partly on the GPU, the rest in RAM",
    "ram": "fits in RAM",
    "no": "does not fit into the memory of this machine",
}


@dataclass(frozen=True)
class Wanted:
    """What is shown besides the usual."""

    context_tokens: int | None = None
    tensors: bool = False
    metadata: bool = False
    template: bool = False


def model_document(model: "Model", machine: "Machine", wanted: Wanted) -> dict[str, Any]:
    """Return everything that is known of a model, as `show --json` prints it.

    Raises:
        BadGgufError, StorageError: its files changed since they were found.
    """
    import msgspec

    from llama_mgr.models.gguf import read_gguf

    headers = [read_gguf(file) for file in model.files]
    traits = model.traits
    document: dict[str, Any] = {
        "key": model.key,
        "name": model.name,
        "quant": model.quant,
        "title": traits.title,
        "kind": traits.kind,
        "architecture": traits.architecture,
        "parameters": traits.parameters,
        "bits_per_weight": traits.bits_per_weight,
        "context_tokens": traits.context_tokens,
        "embedding_size": traits.embedding_size,
        "vocabulary_size": traits.vocabulary_size,
        "layers": traits.layers,
        "capabilities": list(model.capabilities),
        "license": traits.license,
        "size_bytes": model.size_bytes,
        "modified_at": model.modified_at,
        "gguf_version": headers[0].version,
        "types": msgspec.to_builtins(traits.types),
        "kv_cache": msgspec.to_builtins(traits.kv_cache) if traits.kv_cache is not None else None,
        "memory": _memory(model, machine, wanted.context_tokens),
        "files": _files(model),
        "projector": str(model.projector) if model.projector else None,
        "copies": [str(path) for path in model.copies],
        "root": str(model.root.path),
        "root_form": model.root.form,
        "provenance": msgspec.to_builtins(model.record) if model.record is not None else None,
        "template": _template(model, headers[0], whole=wanted.template),
    }
    if wanted.metadata:
        document["metadata"] = {key: _plain(value) for key, value in headers[0].metadata.items()}
    if wanted.tensors:
        document["tensors"] = [row for header in headers for row in _tensors(header)]
    return document


def _memory(model: "Model", machine: "Machine", context_tokens: int | None) -> dict[str, Any]:
    from llama_mgr.cli.machine import memory_document
    from llama_mgr.models.memory import memory_plan

    plan = memory_plan(model.traits, model.size_bytes, context_tokens, mmproj_bytes=model.projector_bytes)
    return memory_document(plan, machine)


def _files(model: "Model") -> list[dict[str, Any]]:
    from llama_mgr.errors import LlamaMgrError
    from llama_mgr.models.roots import WITH_SIDE_CARS
    from llama_mgr.models.side_car import read_record

    rows = []
    for file in (*model.files, *model.projectors):
        try:
            record = read_record(file) if model.root.form in WITH_SIDE_CARS else None
        except LlamaMgrError:  # said when the library was read
            record = None
        rows.append(
            {
                "path": str(file),
                "size_bytes": _size_bytes(file),
                "sha256": (record.sha256 if record is not None else model.sha256_of(file)) or None,
                "verified_at": record.verified_at if record is not None else None,
            }
        )
    return rows


def _size_bytes(file: Path) -> int | None:
    try:
        return file.stat().st_size
    except OSError:
        return None


def _template(model: "Model", header: "GgufHeader", *, whole: bool) -> dict[str, Any] | None:
    text = header.metadata.get(_TEMPLATE_KEY)
    if not isinstance(text, str) or not text:
        return None
    document: dict[str, Any] = {"sha256": model.traits.chat_template_sha256, "characters": len(text)}
    if whole:
        document |= {"text": text[:_TEMPLATE_LIMIT], "is_cut": len(text) > _TEMPLATE_LIMIT}
    return document


def _plain(value: "Value") -> Any:  # noqa: ANN401 (any value of the metadata)
    if isinstance(value, str):
        return value if len(value) <= _TEMPLATE_LIMIT else f"{value[:_TEMPLATE_LIMIT]}…"
    if isinstance(value, int | float):
        return value if value == value and abs(value) != float("inf") else str(value)  # noqa: PLR0124 (NaN)
    if value.values is not None:
        return [_plain(one) for one in value.values]
    return {"array_of": value.kind, "count": value.count}


def _tensors(header: "GgufHeader") -> list[dict[str, Any]]:
    return [
        {"name": one.name, "shape": list(one.shape), "type": one.type.name, "size_bytes": one.size_bytes}
        for one in header.tensors
    ]


# -- for people --------------------------------------------------------------------------------------------------------


def print_model(output: Output, document: dict[str, Any], wanted: Wanted) -> None:
    """Print what `model_document` returned."""
    output.line(document["key"], "bold")
    for name, value in _facts(document):
        if value:
            output.line(f"{name + ':':<14}{value}")
    output.line()
    _print_types(output, document)
    output.line()
    _print_memory(output, document["memory"])
    if wanted.metadata:
        output.line()
        output.table(("key", "value"), [(key, _value_words(value)) for key, value in document["metadata"].items()])
    if wanted.tensors:
        output.line()
        rows = [
            (one["name"], one["type"], " x ".join(map(str, one["shape"])), size_words(one["size_bytes"]))
            for one in document["tensors"]
        ]
        output.table(("tensor", "type", "shape", "size"), rows)
    if wanted.template:
        output.line()
        _print_template(output, document["template"])


def _facts(document: dict[str, Any]) -> list[tuple[str, str]]:
    provenance, template = document["provenance"] or {}, document["template"]
    sizes = f"{size_words(document['size_bytes'])}, {document['bits_per_weight']:.2f} bits per weight"
    return [
        ("title", printable(document["title"] or "")),
        ("architecture", printable(document["architecture"])),
        ("parameters", f"{count_words(document['parameters'])} ({document['parameters']:,})"),
        ("quant", f"{printable(document['quant'] or '?')}, {sizes}"),
        ("context", f"{context_words(document['context_tokens'])} tokens" if document["context_tokens"] else ""),
        ("layers", str(document["layers"] or "")),
        ("embedding", str(document["embedding_size"] or "")),
        ("vocabulary", f"{document['vocabulary_size']:,}" if document["vocabulary_size"] else ""),
        ("can", ", ".join(document["capabilities"])),
        ("license", printable(document["license"] or "")),
        ("template", f"sha256 {template['sha256'][:16]}…, {template['characters']:,} characters" if template else ""),
        ("from", printable(provenance.get("source", ""), 400)),
        ("since", provenance.get("downloaded_at", "")),
        ("verified", provenance.get("verified_at") or ""),
        *(("file", _file_words(one)) for one in document["files"]),
        *(("copy", printable(path, 400)) for path in document["copies"]),
    ]


def _file_words(file: dict[str, Any]) -> str:
    sha256 = f", sha256 {file['sha256'][:16]}…" if file["sha256"] else ""
    size = size_words(file["size_bytes"]) if file["size_bytes"] is not None else "gone"
    return f"{printable(file['path'], 400)} ({size}{sha256})"


def _print_types(output: Output, document: dict[str, Any]) -> None:
    rows = [
        (name, str(share["tensors"]), count_words(share["weights"]), size_words(share["size_bytes"]))
        for name, share in document["types"].items()
    ]
    output.table(("type", "tensors", "weights", "size"), rows)


def _print_memory(output: Output, memory: dict[str, Any]) -> None:
    output.line(f"memory for a context of {memory['context_tokens']:,} tokens:")
    parts = [("weights", "weights_bytes"), ("KV cache", "kv_cache_bytes"), ("compute", "compute_bytes")]
    for name, key in [*parts, ("together", "total_bytes")]:
        output.line(f"  {name:<12}{size_words(memory[key]):>10}")
    sentence = _FIT_SENTENCES[memory["fits"]]
    now = memory["fits_now"]
    output.line(f"it {sentence}" + ("" if now == memory["fits"] else f"; into what is free now: {FIT_WORDS[now]}"))


def _value_words(value: Any) -> str:  # noqa: ANN401 (any value of the metadata)
    if isinstance(value, dict):
        return f"{value['count']:,} x {value['array_of']}"
    if isinstance(value, list):
        more = f", … ({len(value):,})" if len(value) > _TABLE_VALUES else ""
        return ", ".join(map(str, value[:_TABLE_VALUES])) + more
    return printable(value, _VALUE_LIMIT)


def _print_template(output: Output, template: dict[str, Any] | None) -> None:
    if template is None:
        output.line("it has no chat template")
        return
    output.line(f"chat template, sha256 {template['sha256']}:")
    for line in template["text"].splitlines():
        output.line(printable(line, 2000))
    if template["is_cut"]:
        output.line(f"… (cut: it has {template['characters']:,} characters)")
