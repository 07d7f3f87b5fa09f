"""The types that a build's llama-quantize makes: their bits per weight, and which of them need an importance matrix."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llama_mgr.build.capability import QuantType
from llama_mgr.errors import BadInputError, BadQuantTypeError
from llama_mgr.text import did_you_mean, printable

COPY = "COPY"
_FLOAT_BITS = {"F32": 32.0, "F16": 16.0, "BF16": 16.0}
_BITS = re.compile(r"(\d+(?:\.\d+)?)\s*bpw")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)G,.*@ Llama-3-8B")
_LLAMA_3_8B_WEIGHTS = 8_030_261_248
_ALIAS = re.compile(r"alias for (\w+)")
# `tensor_requires_imatrix` of src/llama-quant.cpp (b11434), for builds whose dry run does not tell it; the middle
# layers of IQ3_XS are IQ3_XXS.
_NEEDING = frozenset({"IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M", "IQ3_XXS", "IQ3_XS", "Q2_K_S"})


@dataclass(frozen=True)
class QuantKind:
    """One type, as people choose it."""

    name: str
    bits_per_weight: float | None
    """Of a typical model; None where nothing tells it."""
    remark: str
    """Upstream's."""
    needs_imatrix: bool


def quant_kinds(types: Sequence[QuantType]) -> list[QuantKind]:
    """Return the types of a build, most bits first; aliases are left out, and those without a number come last."""
    kinds = [_kind(one) for one in types if not _ALIAS.search(one.remark)]
    return sorted(kinds, key=lambda one: -(one.bits_per_weight or 0))


def _kind(one: QuantType) -> QuantKind:
    return QuantKind(one.name, bits_of(one), one.remark, needs_imatrix(one.name))


def bits_of(one: QuantType) -> float | None:
    """Return the bits per weight of a type: upstream's remark tells them, or the size of a known model."""
    if one.name in _FLOAT_BITS:
        return _FLOAT_BITS[one.name]
    told = _BITS.search(one.remark)
    if told:
        return float(told[1])
    size = _SIZE.search(one.remark)
    return round(float(size[1]) * 1024**3 * 8 / _LLAMA_3_8B_WEIGHTS, 2) if size else None


def needs_imatrix(name: str) -> bool:
    """Tell whether a type is so low that a model of usual shape cannot be quantized to it without a matrix."""
    return name in _NEEDING


def checked_types(words: Iterable[str], types: Sequence[QuantType]) -> tuple[str, ...]:
    """Return the types that `words` name, commas between them allowed, without doubles, in the order given.

    Case does not count, aliases stand for their type, and a number is a file type of llama.cpp.

    Raises:
        BadQuantTypeError: the build does not know one.
        BadInputError: no type is named.
    """
    names = [name for word in words for name in re.split(r"[,\s]+", word) if name]
    if not names:
        raise BadInputError(
            "cannot quantize to nothing", None, "no type is named", hint="llama-mgr quantize lists them"
        )
    return tuple(dict.fromkeys(_checked(name, types) for name in names))


def is_type(word: str, types: Sequence[QuantType]) -> bool:
    """Tell whether every part of `word` between commas is a type of the build."""
    try:
        return bool(checked_types([word], types))
    except BadInputError:
        return False


def _checked(name: str, types: Sequence[QuantType]) -> str:
    known = {one.name: one for one in types} | {str(one.number): one for one in types if one.number is not None}
    found = known.get(name.upper())
    if found is None:
        listed = ", ".join(one.name for one in types)
        hint = did_you_mean(name.upper(), [one.name for one in types])
        why = f"this build knows {listed}" if listed else "this build has no llama-quantize"
        raise BadQuantTypeError("cannot quantize to", printable(name), why, hint=hint)
    alias = _ALIAS.search(found.remark)
    return alias[1] if alias else found.name
