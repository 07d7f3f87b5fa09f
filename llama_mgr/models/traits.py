"""What people want to know of a model, told from its header alone."""

import hashlib
from collections.abc import Iterator, Sequence

import msgspec

from llama_mgr.errors import BadGgufError, IncompleteModelError
from llama_mgr.models.capabilities import capabilities_of
from llama_mgr.models.gguf import TEMPLATE_KEY, GgufHeader
from llama_mgr.models.gguf_source import WHAT
from llama_mgr.models.gguf_tensors import Tensor
from llama_mgr.models.kv_cache import KvCache, kv_cache_of
from llama_mgr.models.model_facts import ModelFacts
from llama_mgr.models.quantization import chosen_tag, quant_of
from llama_mgr.text import printable

__all__ = ["KvCache", "Split", "Traits", "TypeShare", "merged", "traits_of"]

_LARGEST = 2**63 - 1
_SHARDS_LIMIT = 65_535  # `split.count` has 16 bits
_LAYERS_LIMIT = 512  # LLAMA_MAX_LAYERS
_PLACE_BYTES = 32  # TENSOR_ALIGNMENT of ggml/src/ggml-impl.h


class TypeShare(msgspec.Struct, frozen=True):
    """The tensors of one type."""

    tensors: int
    weights: int
    size_bytes: int


class Split(msgspec.Struct, frozen=True):
    """Which shard of a split model it is."""

    number: int
    """From 0, as `split.no` counts."""
    count: int
    tensors: int
    """Of all shards together; 0 when the file does not say."""


class Traits(msgspec.Struct, frozen=True, kw_only=True):
    """A model in a few facts; what a file does not tell is None, or empty. Texts are printable."""

    kind: str
    """`model`, `mmproj`, `adapter`, `imatrix`, `vocab`, `control-vector`, or what the file calls itself."""
    architecture: str
    title: str | None
    parameters: int
    quant: str
    bits_per_weight: float
    context_tokens: int | None
    """What it was trained for."""
    embedding_size: int | None
    vocabulary_size: int | None
    layers: int | None
    chat_template_sha256: str | None
    capabilities: tuple[str, ...]
    license: str | None
    split: Split | None
    types: dict[str, TypeShare]
    kv_cache: KvCache | None


def traits_of(header: GgufHeader, file_name: str) -> Traits:
    """Return the traits of a file, or of one shard; `file_name` may name a more exact quant than the header can.

    Raises:
        BadGgufError: it is a model that would end llama-server by an abort.
    """
    architecture = printable(ModelFacts(header.metadata, "").text("general.architecture") or "")
    facts = ModelFacts(header.metadata, architecture)
    kind = _kind(facts, header.tensors)
    if kind == "model":
        _require_loadable(header, architecture, file_name)
    split = _split(facts)
    types = _types(header.tensors)
    return Traits(
        kind=kind,
        architecture=architecture,
        title=_shown(facts.text("general.name")),
        parameters=_parameters(types),
        quant=quant_of(facts.general("general.file_type"), file_name, header.tensors, is_part=split is not None),
        bits_per_weight=_bits_per_weight(types),
        context_tokens=facts.number("context_length"),
        embedding_size=facts.number("embedding_length"),
        vocabulary_size=facts.general_count("tokenizer.ggml.tokens") or facts.number("vocab_size"),
        layers=facts.number("block_count"),
        chat_template_sha256=_template_sha256(header),
        capabilities=capabilities_of(facts, kind, _templates(header)),
        license=_shown(facts.text("general.license") or facts.text("general.license.name")),
        split=split,
        types=types,
        kv_cache=kv_cache_of(facts) if kind == "model" else None,
    )


def merged(shards: Sequence[Traits]) -> Traits:
    """Return the traits of a split model from those of all its shards, in any order.

    The first shard has the metadata, all of them have tensors (llama-gguf-split of llama.cpp).

    Raises:
        IncompleteModelError: a shard is missing or doubled, or they do not belong together.
    """
    by_number = {shard.split.number: shard for shard in shards if shard.split}
    first = by_number.get(0)
    if first is None or first.split is None:
        raise IncompleteModelError("cannot use the split model", None, "its first shard is missing")
    types = _joined([shard.types for shard in shards])
    _require_whole(shards, by_number, first.split, sum(share.tensors for share in types.values()))
    weights = {name: share.weights for name, share in types.items()}
    return msgspec.structs.replace(
        first,
        types=types,
        parameters=_parameters(types),
        bits_per_weight=_bits_per_weight(types),
        quant=chosen_tag(first.quant, first.quant, weights) or max(weights, key=weights.__getitem__, default=""),
        split=None,
    )


def _require_whole(shards: Sequence[Traits], by_number: dict[int, Traits], split: Split, tensors: int) -> None:
    lacking = [str(number + 1) for number in range(split.count) if number not in by_number][:5]
    if lacking:
        why = f"of its {split.count} shards, these are missing: {', '.join(lacking)}"
        raise IncompleteModelError("cannot use the split model", _called(by_number[0]), why)
    alike = all(one.split and (one.split.count, one.split.tensors) == (split.count, split.tensors) for one in shards)
    if len(shards) != split.count or not alike or (split.tensors and tensors != split.tensors):
        why = f"its shards do not belong together: they have {tensors:,} tensors, and {split.tensors:,} are wanted"
        raise IncompleteModelError("cannot use the split model", _called(by_number[0]), why)


def _called(first: Traits) -> str:
    """Return what to call a split model in messages."""
    return first.title or first.architecture or "without a name"


def _kind(facts: ModelFacts, tensors: Sequence[Tensor]) -> str:
    """Return what the file is: `general.type` is from 2024, older files show it otherwise."""
    said = facts.text("general.type")
    if facts.architecture == "clip" or said == "mmproj":
        return "mmproj"
    if facts.architecture == "controlvector":
        return "control-vector"
    if said is None and facts.has("adapter.type"):
        return "adapter"
    if said in {None, "model"} and not tensors and not facts.has("split.count"):
        return "vocab"
    return printable(said or "model")


def _require_loadable(header: GgufHeader, architecture: str, file_name: str) -> None:
    """Refuse what llama-server b11434 aborts on: by GGML_ASSERT, where other faults are told and end it in order.

    Layers: `load_hparams` of src/llama-model.cpp. Context: tools/server/server-context.cpp, when the first prompt
    comes. Places: `ggml_backend_cpu_buffer_from_ptr` of ggml/src/ggml-backend.cpp wants the first tensor of a mapped
    part at a multiple of 32 bytes; which one is the first depends on what goes to a GPU.
    """
    layers, context = (header.metadata.get(f"{architecture}.{key}") for key in ("block_count", "context_length"))
    if type(layers) is int and not 0 < layers <= _LAYERS_LIMIT:
        raise BadGgufError(WHAT, file_name, f"it says that it has {layers:,} layers, and 1 to 512 are possible")
    if type(context) is int and context == 0:
        raise BadGgufError(WHAT, file_name, "it says that it was trained for a context of 0 tokens")
    if any((header.data_offset + tensor.offset) % _PLACE_BYTES for tensor in header.tensors):
        why = f"its tensors are aligned to {header.alignment} bytes, and llama.cpp needs 32"
        raise BadGgufError(WHAT, file_name, why, hint="convert it again, without `general.alignment`")


def _shown(text: str | None) -> str | None:
    return None if text is None else printable(text)


def _types(tensors: Sequence[Tensor]) -> dict[str, TypeShare]:
    counts: dict[str, list[int]] = {}
    for tensor in tensors:
        count = counts.setdefault(tensor.type.name, [0, 0, 0])
        count[0] += 1
        count[1] += tensor.weights
        count[2] += tensor.size_bytes
    return {name: TypeShare(*count) for name, count in sorted(counts.items(), key=lambda one: -one[1][2])}


def _joined(parts: Sequence[dict[str, TypeShare]]) -> dict[str, TypeShare]:
    joined: dict[str, TypeShare] = {}
    for name, share in (item for part in parts for item in part.items()):
        had = joined.get(name, TypeShare(0, 0, 0))
        joined[name] = TypeShare(
            had.tensors + share.tensors, had.weights + share.weights, had.size_bytes + share.size_bytes
        )
    return dict(sorted(joined.items(), key=lambda one: -one[1].size_bytes))


def _parameters(types: dict[str, TypeShare]) -> int:
    return min(sum(share.weights for share in types.values()), _LARGEST)


def _bits_per_weight(types: dict[str, TypeShare]) -> float:
    weights = sum(share.weights for share in types.values())
    return round(sum(share.size_bytes for share in types.values()) * 8 / weights, 3) if weights else 0.0


def _template_sha256(header: GgufHeader) -> str | None:
    template = header.metadata.get(TEMPLATE_KEY)
    return hashlib.sha256(template.encode()).hexdigest() if isinstance(template, str) and template else None


def _templates(header: GgufHeader) -> Iterator[str]:
    """Yield the default chat template and the named ones (`tokenizer.chat_template.tool_use`)."""
    for key, value in header.metadata.items():
        if key.startswith(TEMPLATE_KEY) and isinstance(value, str):
            yield value


def _split(facts: ModelFacts) -> Split | None:
    number, count = facts.general("split.no"), facts.general("split.count")
    if number is None or count is None or not number < count > 1 or count > _SHARDS_LIMIT:
        return None
    return Split(number, count, facts.general("split.tensors.count") or 0)
