"""The types of a build, from what its llama-quantize says (b11434, and the form of 2023)."""

import pytest

from llama_mgr.build.capability import QuantType, quant_types_of
from llama_mgr.errors import BadInputError, BadQuantTypeError
from llama_mgr.make.quant_types import QuantKind, bits_of, checked_types, is_type, needs_imatrix, quant_kinds

HELP = """
-----------------------------------------------------------------------------
 allowed quantization types
-----------------------------------------------------------------------------

  40  or  Q1_0    :  1.125 bpw quantization
  41  or  Q2_0    :  2.25 bpw quantization (group 64)
   2  or  Q4_0    :  4.34G, +0.4685 ppl @ Llama-3-8B
  38  or  MXFP4_MOE :  MXFP4 MoE
  19  or  IQ2_XXS :  2.06 bpw quantization
  28  or  IQ2_S   :  2.5  bpw quantization
  21  or  Q2_K_S  :  2.96G, +3.1836 ppl @ Llama-3-8B
  27  or  IQ3_M   :  3.66 bpw quantization mix
  25  or  IQ4_NL  :  4.50 bpw non-linear quantization
  15  or  Q4_K    : alias for Q4_K_M
  15  or  Q4_K_M  :  4.58G, +0.1754 ppl @ Llama-3-8B
   7  or  Q8_0    :  7.96G, +0.0026 ppl @ Llama-3-8B
   1  or  F16     : 14.00G, +0.0020 ppl @ Mistral-7B
  32  or  BF16    : 14.00G, -0.0050 ppl @ Mistral-7B
   0  or  F32     : 26.00G              @ 7B
          COPY    : only copy tensors, no quantizing
"""
OLD_HELP = """Allowed quantization types:
   2  or  Q4_0   :  3.56G, +0.2166 ppl @ LLaMA-v1-7B
  18  or  Q6_K   :  5.15G, -0.0008 ppl @ LLaMA-v1-7B
   1  or  F16    : 13.00G              @ 7B
"""
TYPES = quant_types_of(HELP)


def test_types_are_listed_from_most_bits_to_fewest_and_without_aliases() -> None:
    kinds = quant_kinds(TYPES)
    assert [one.name for one in kinds] == [
        "F32", "F16", "BF16", "Q8_0", "Q4_K_M", "Q4_0", "IQ4_NL", "IQ3_M", "Q2_K_S", "IQ2_S", "Q2_0", "IQ2_XXS", "Q1_0",
        "MXFP4_MOE", "COPY",
    ]  # fmt: skip
    assert kinds[3] == QuantKind("Q8_0", 8.51, "7.96G, +0.0026 ppl @ Llama-3-8B", needs_imatrix=False)
    assert kinds[-1].bits_per_weight is None
    assert [one.name for one in kinds if one.needs_imatrix] == ["Q2_K_S", "IQ2_S", "IQ2_XXS"]


def test_bits_come_from_the_remark_or_the_size_of_a_known_model() -> None:
    bits = {one.name: bits_of(one) for one in TYPES}
    assert (bits["Q1_0"], bits["IQ2_S"], bits["IQ4_NL"]) == (1.125, 2.5, 4.5)
    # Llama-3-8B has 8.03e9 weights, and the Q4_K_M of it 4.9 bits for each, as llama.cpp's table of 2024 says
    assert bits["Q4_K_M"] == pytest.approx(4.9, abs=0.01)
    assert (bits["F32"], bits["F16"], bits["BF16"], bits["MXFP4_MOE"]) == (32.0, 16.0, 16.0, None)


def test_sizes_of_other_models_tell_no_bits() -> None:
    old = quant_types_of(OLD_HELP)
    assert [bits_of(one) for one in old] == [None, None, 16.0]
    assert [one.name for one in quant_kinds(old)] == ["F16", "Q4_0", "Q6_K"]
    assert quant_kinds([]) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("IQ1_S", True), ("IQ1_M", True), ("IQ2_XXS", True), ("IQ2_XS", True), ("IQ2_S", True), ("IQ2_M", True),
        ("IQ3_XXS", True), ("IQ3_XS", True), ("Q2_K_S", True), ("Q2_K", False), ("IQ3_S", False),
        ("IQ4_XS", False), ("Q4_K_M", False), ("TQ1_0", False), ("COPY", False),
    ],
)  # fmt: skip
def test_which_types_need_a_matrix(name: str, expected: bool) -> None:
    assert needs_imatrix(name) is expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["Q8_0"], ("Q8_0",)),
        (["q4_k_m,Q8_0"], ("Q4_K_M", "Q8_0")),
        (["Q8_0, q4_0", "f16"], ("Q8_0", "Q4_0", "F16")),
        (["Q8_0,,q8_0,7"], ("Q8_0",)),
        (["Q4_K", "Q4_K_M", "15"], ("Q4_K_M",)),
        (["0", "copy"], ("F32", "COPY")),
    ],
)
def test_types_as_users_write_them(words: list[str], expected: tuple[str, ...]) -> None:
    assert checked_types(words, TYPES) == expected


@pytest.mark.parametrize("words", [[], [""], [" , "]])
def test_no_type_is_refused(words: list[str]) -> None:
    with pytest.raises(BadInputError, match="no type is named") as caught:
        checked_types(words, TYPES)
    assert not isinstance(caught.value, BadQuantTypeError)


def test_an_unknown_type_is_refused_with_the_nearest() -> None:
    with pytest.raises(BadQuantTypeError, match=r"'Q4_K_N': this build knows Q1_0, .*COPY") as caught:
        checked_types(["Q8_0,Q4_K_N"], TYPES)
    assert caught.value.hint == "did you mean 'Q4_K_M'?"
    with pytest.raises(BadQuantTypeError, match="99"):
        checked_types(["99"], TYPES)
    with pytest.raises(BadQuantTypeError) as caught:
        checked_types(["\x1b[31m"], TYPES)
    assert "\x1b" not in caught.value.message


def test_a_build_without_quantizer_says_so() -> None:
    with pytest.raises(BadQuantTypeError, match="has no llama-quantize"):
        checked_types(["Q8_0"], [])


def test_words_are_told_from_types() -> None:
    assert is_type("q8_0,Q4_K", TYPES)
    assert not any(is_type(word, TYPES) for word in ["out.gguf", "Q8_0,model", "", ",", "./Q8_0"])
    assert not is_type("None", [QuantType("COPY")])
