"""Which quant a GGUF is, when header, tensors and file name may each say something else. Tensors cannot lie.

What llama-quantize makes of each file type: src/llama-quant.cpp of llama.cpp b11434 (`llama_ftype_get_default_type`,
`llama_tensor_get_type_impl`, `tensor_type_fallback`).
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from llama_mgr.models.gguf_tensors import Tensor
from llama_mgr.models.quants import tag_in
from llama_mgr.models.tensor_types import FILE_TYPES, TENSOR_TYPES

# Tags whose main type has another name; all others begin with the name of theirs.
_MAIN_TYPES: dict[str, tuple[str, ...]] = {
    "IQ3_XS": ("IQ3_S", "IQ3_XXS"), "IQ3_M": ("IQ3_S",), "IQ3_XXS": ("IQ3_XXS", "IQ2_S"),
    "IQ2_S": ("IQ2_XS", "IQ2_S"), "IQ2_M": ("IQ2_S",), "Q4_1_SOME_F16": ("Q4_1",),
    "Q8_K_XL": ("Q8_0",),  # what is more important in it is BF16 or F16
    "UD-TQ1_0": ("IQ1_S", "IQ1_M", "TQ1_0"),  # named for its size alone
}  # fmt: skip

# What a matrix gets whose rows are no multiple of 256.
_FALLBACKS = {
    **dict.fromkeys(("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS"), "IQ4_NL"),
    **dict.fromkeys(("Q2_0", "Q2_K", "Q3_K", "TQ1_0", "TQ2_0"), "Q4_0"),
    "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0",
}  # fmt: skip

# The main type, then the type of the first of these matrices that has another: which size of the mixture that is.
_MIXTURES: dict[tuple[str, str], str] = {
    ("Q4_K", "Q6_K"): "Q4_K_M", ("Q4_K", "Q5_K"): "Q4_K_S", ("Q4_K", ""): "Q4_K_S",
    ("Q5_K", "Q6_K"): "Q5_K_M", ("Q5_K", ""): "Q5_K_S",
    ("Q3_K", "Q4_K"): "Q3_K_M", ("Q3_K", "Q5_K"): "Q3_K_L", ("Q3_K", ""): "Q3_K_S",
    ("IQ2_S", ""): "IQ2_M", ("MXFP4", "Q8_0"): "MXFP4_MOE", ("MXFP4", "BF16"): "MXFP4_MOE",
}  # fmt: skip
_TELLING = ("attn_v.weight", "ffn_down.weight", "attn_qkv.weight", "ffn_down_exps.weight")
_BESIDE = ("token_embd", "output.", "per_layer_token_embd", "position_embd", "token_types")  # not by the file type
_SHARE = 0.2


def quant_of(file_type: int | None, file_name: str, tensors: Sequence[Tensor], *, is_part: bool = False) -> str:
    """Return the tag of the quant, empty when nothing tells it.

    What the header declares counts when the tensors agree. A tag in the file name that llama.cpp does not know
    (`UD-Q4_K_XL`, `Q4_K_L`) is more exact than that, and counts before it under the same condition. Else the tensors
    decide.

    Args:
        file_type: `general.file_type`.
        file_name: of the file.
        tensors: of the file, or of the shard.
        is_part: whether they are only some of the model's; then a tag counts that the others may agree with.
    """
    weights = _weights_by_type(tensors)
    declared, named = FILE_TYPES.get(-1 if file_type is None else file_type, ""), tag_in(file_name) or ""
    unjudged = chosen_tag(declared, named, {}) if is_part else ""
    return chosen_tag(declared, named, weights) or unjudged or _from_tensors(tensors, weights)


def chosen_tag(declared: str, named: str, weights: Mapping[str, int]) -> str:
    """Return which of two tags fits tensors that have so many `weights` of each type; empty when neither does."""
    agreed = bool(declared and named) and _main_types(declared)[:1] == _main_types(named)[:1]
    is_exact = named not in FILE_TYPES.values() and not declared.startswith(named)
    for tag in (named, declared) if is_exact else (declared, named):
        if tag and _fits(tag, weights, 0.0 if agreed else _SHARE):
            return tag
    return ""


def _fits(tag: str, weights: Mapping[str, int], share: float) -> bool:
    total = sum(weights.values())
    types = _main_types(tag)
    found = sum(weights.get(name, 0) for name in {*types, *(_FALLBACKS.get(name, "") for name in types)})
    return not total or (found > 0 and found >= share * total)


def _main_types(tag: str) -> tuple[str, ...]:
    """Return the types that most weights of a quant have."""
    bare = tag if tag in _MAIN_TYPES else tag.removeprefix("UD-")
    if bare in _MAIN_TYPES:
        return _MAIN_TYPES[bare]
    names = [kind.name for kind in TENSOR_TYPES.values()]
    begun = max((name for name in names if bare.startswith(name)), key=len, default="")
    return (begun,) if begun else tuple(name for name in names if name.startswith(f"{bare}_"))


def _weights_by_type(tensors: Sequence[Tensor]) -> Counter[str]:
    """Count the weights of the matrices that a file type is about; of all tensors when there are none."""
    matrices = [one for one in tensors if len(one.shape) > 1 and not one.name.startswith(_BESIDE)]
    weights: Counter[str] = Counter()
    for tensor in matrices or tensors:
        weights[tensor.type.name] += tensor.weights
    return weights


def _from_tensors(tensors: Sequence[Tensor], weights: Counter[str]) -> str:
    if not weights:
        return ""
    main = weights.most_common(1)[0][0]
    others = [one.type.name for one in tensors if one.name.endswith(_TELLING) and one.type.name != main]
    for other in (*(name for name, _ in Counter(others).most_common()), ""):
        if (main, other) in _MIXTURES:
            return _MIXTURES[main, other]
    return main
