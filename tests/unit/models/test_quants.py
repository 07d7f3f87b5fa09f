"""Quants by their names: tags, shards, what a repository offers, and which of it is taken."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_mgr.errors import AmbiguousModelError, IncompleteModelError, UnknownModelError
from llama_mgr.models.hub_repo import HubFile, HubRepo
from llama_mgr.models.pull_plan import choice
from llama_mgr.models.quants import (
    Offer,
    chosen,
    is_model,
    is_projector,
    joined_by_hand,
    offers,
    rank,
    shard_of,
    split_tag,
    stem_of,
    tag_in,
    tag_of,
)
from llama_mgr.models.reference import HubRef, checked_listing, parse_reference

GIB = 1 << 30
REF = HubRef("owner", "repo")


@dataclass(frozen=True)
class Name:
    """One file name, and what it says."""

    text: str
    tag: str | None
    stem: str
    kind: str = "model"


NAMES = [
    Name("Model-Q4_K_M.gguf", "Q4_K_M", "Model"),
    Name("model.Q4_1.gguf", "Q4_1", "model"),
    Name("SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1", "SmolLM2-135M-Instruct"),
    Name("Q8_0/model-Q8_0-00001-of-00003.gguf", "Q8_0", "model"),
    Name("model-UD-Q4_K_XL.gguf", "UD-Q4_K_XL", "model"),
    Name("UD-IQ1_S/DeepSeek-R1-UD-IQ1_S-00002-of-00003.gguf", "UD-IQ1_S", "DeepSeek-R1"),
    Name("model-IQ4_XS.imatrix.gguf", "IQ4_XS", "model.imatrix"),
    Name("model-Q4_K_M-imat.gguf", "Q4_K_M", "model-imat"),
    Name("model.i1-Q4_K_M.gguf", "Q4_K_M", "model"),
    Name("model.i1-IQ2_XXS.gguf", "IQ2_XXS", "model"),
    Name("model-f16.gguf", "F16", "model"),
    Name("Phi-3-mini-4k-instruct-fp16.gguf", "F16", "Phi-3-mini-4k-instruct"),
    Name("Phi-3-mini-4k-instruct-q4.gguf", "Q4", "Phi-3-mini-4k-instruct"),
    Name("ggml-model-q4_0.gguf", "Q4_0", "ggml-model"),
    Name("ggml-model-Q5_K_S.gguf", "Q5_K_S", "ggml-model"),
    Name("model-MXFP4_MOE.gguf", "MXFP4_MOE", "model"),
    Name("gpt-oss-20b-mxfp4.gguf", "MXFP4", "gpt-oss-20b"),
    Name("model-NVFP4.gguf", "NVFP4", "model"),
    Name("Qwen3-8B-bf16.gguf", "BF16", "Qwen3-8B"),
    Name("BF16/Qwen3-32B-00001-of-00002.gguf", "BF16", "Qwen3-32B"),
    Name("model-Q4_0_4_4.gguf", "Q4_0_4_4", "model"),
    Name("gemma-3-4b-it-q4_0.gguf", "Q4_0", "gemma-3-4b-it"),
    Name("gemma-3-4b-it-qat-Q4_0.gguf", "Q4_0", "gemma-3-4b-it-qat"),
    Name("qwen2.5-7b-instruct-q4_k_m-00001-of-00002.gguf", "Q4_K_M", "qwen2.5-7b-instruct"),
    Name("my_model_q6_k.gguf", "Q6_K", "my_model"),
    Name("model-Q3_K_XL.gguf", "Q3_K_XL", "model"),
    Name("model-TQ1_0.gguf", "TQ1_0", "model"),
    Name("model-IQ4_KS.gguf", "IQ4_KS", "model"),
    Name("model-Q4_K_R4.gguf", "Q4_K_R4", "model"),
    Name("model-Q4_0-F16.gguf", "Q4_0", "model-F16"),
    Name("Model-F16-Q4_0.gguf", "Q4_0", "Model-F16"),
    Name("Q4_K_M.gguf", "Q4_K_M", "Q4_K_M"),
    Name("model-00001-of-00002.gguf", None, "model"),
    Name("model.gguf", None, "model"),
    Name("Mixtral-8x7B-Instruct.gguf", None, "Mixtral-8x7B-Instruct"),
    Name("xQ4_K_My.gguf", None, "xQ4_K_My"),
    Name("mmproj-F16.gguf", "F16", "mmproj", "projector"),
    Name("mmproj-model-f16.gguf", "F16", "mmproj-model", "projector"),
    Name("model-Q8_0-mmproj.gguf", "Q8_0", "model-mmproj", "projector"),
    Name("sub/MMPROJ-BF16.gguf", "BF16", "MMPROJ", "projector"),
    Name("imatrix.gguf", None, "imatrix", "else"),
    Name("Qwen3-8B.imatrix.gguf", None, "Qwen3-8B.imatrix", "else"),
    Name("imatrix-Qwen3-8B-BF16.gguf", "BF16", "imatrix-Qwen3-8B", "else"),
    Name("mtp-Qwen3-8B-Q8_0.gguf", "Q8_0", "mtp-Qwen3-8B", "else"),
    Name("eagle3-x-F16.gguf", "F16", "eagle3-x", "else"),
    Name("Qwen3-8B-Eagle3-Q8_0.gguf", "Q8_0", "Qwen3-8B-Eagle3", "else"),
    Name("x/Qwen3-8B-dflash-BF16.gguf", "BF16", "Qwen3-8B-dflash", "else"),
    Name("Qwen3-8B-dspark-Q8_0.gguf", "Q8_0", "Qwen3-8B-dspark", "else"),
    Name("eagle3-x/Qwen3-8B-Q8_0.gguf", "Q8_0", "Qwen3-8B"),
    Name("Qwen-MTP-Q8_0.gguf", "Q8_0", "Qwen-MTP"),
    Name("README.md", None, "README.md", "else"),
    Name("model-Q4_0.safetensors", "Q4_0", "model-.safetensors", "else"),
]


@pytest.mark.parametrize("name", NAMES, ids=lambda name: name.text)
def test_a_file_name_says_quant_model_and_kind(name: Name) -> None:
    assert tag_in(name.text) == name.tag
    assert is_model(name.text) == (name.kind == "model")
    assert is_projector(name.text) == (name.kind == "projector")
    if name.kind != "else" or name.text.endswith(".gguf"):
        assert stem_of(name.text) == name.stem


def test_a_tag_alone_has_its_canonical_form() -> None:
    for tag in (tag_in, tag_of):
        assert [tag(text) for text in ("q4_k_m", "ud-q2_k_xl", "i1-Q4_K_M", "fp16", "latest", "32b")] == [
            "Q4_K_M", "UD-Q2_K_XL", "Q4_K_M", "F16", None, None,
        ]  # fmt: skip


def test_what_a_user_types_is_a_tag_as_a_whole_or_none() -> None:
    assert [tag_of(text) for text in ("4b-q8_0", "banana-q8", "q8_0-x", "a/q8_0", "q8_0.gguf", "q8_0\n", "")] == [
        None
    ] * 7


@pytest.mark.parametrize(
    ("typed", "parts"),
    [
        ("4b-q8_0", ("4b", "q8_0")), ("4b:Q8_0", ("4b", "Q8_0")), ("e4b-it-q4_K_M", ("e4b-it", "q4_K_M")),
        ("30b-ud-q4_k_xl", ("30b", "ud-q4_k_xl")), ("8b-i1-q4_0", ("8b", "i1-q4_0")), ("4b", None), ("q8_0", None),
        ("i1-q8_0", None), ("-q8_0", None), ("4b-q8_0-x", None), ("", None),
    ],
)  # fmt: skip
def test_a_size_and_a_quant_are_told_apart(typed: str, parts: tuple[str, str] | None) -> None:
    assert split_tag(typed) == parts


def test_shards_are_numbered_from_one() -> None:
    assert shard_of("a/b-Q4_0-00002-of-00010.gguf") == ("a/b-Q4_0", 2, 10)
    assert shard_of("a-00001-of-00001.gguf") == ("a", 1, 1)
    for name in ("a.gguf", "a-1-of-2.gguf", "a-00001-of-00002", "-00001-of-00002.gguf", "a-00001-of-00002.gguf.part"):
        assert shard_of(name) is None


@given(st.text())
def test_any_name_has_a_stem_and_a_kind(text: str) -> None:
    assert stem_of(f"{text}x.gguf")
    assert not (is_model(f"{text}.gguf") and is_projector(f"{text}.gguf"))
    assert rank(tag_in(text) or "") >= 0


def test_the_ranking_is_what_people_want_first() -> None:
    usual = ["Q4_K_M", "UD-Q4_K_XL", "Q5_K_M", "Q4_K_S", "Q6_K", "Q8_0", "IQ4_XS", "Q4_0", "Q3_K_M", "Q2_K", "IQ1_S"]
    assert sorted(usual, key=rank) == usual
    assert rank("Q4_K_M") == 0
    assert max(rank(tag) for tag in usual) < rank("BF16") < rank("F16") < rank("F32") < rank("Q4_0_8_8") < rank("")
    assert rank("UD-Q3_K_M") == rank("Q3_K_M")
    assert rank("Q4_K_P") == rank("Q4_K")
    assert rank("IQ4_KSS") == rank("")


# -- offers ------------------------------------------------------------------------------------------------------------


def hub_file(name: str, size_gib: float = 1) -> HubFile:
    return HubFile("owner/repo", name, "0" * 40, "f" * 64, int(size_gib * GIB))


def listed(*names: str) -> list[Offer]:
    return offers([hub_file(name) for name in names])


def sized(**sizes: float) -> list[Offer]:
    return offers([hub_file(f"model-{tag}.gguf", size) for tag, size in sizes.items()])


def fits_in(limit_gib: float) -> Callable[[int], bool]:
    return lambda size_bytes: size_bytes <= limit_gib * GIB


def test_offers_are_the_models_best_first() -> None:
    found = listed(
        "README.md",
        "m-F16.gguf",
        "m-Q8_0.gguf",
        "m-Q4_K_M.gguf",
        "mmproj-F16.gguf",
        "m.imatrix.gguf",
        "mtp-m-Q8_0.gguf",
    )
    assert [one.quant for one in found] == ["Q4_K_M", "Q8_0", "F16"]


def test_adapters_and_vocabularies_are_no_offers() -> None:
    names = ("x-lora-F16.gguf", "lora.gguf", "a/ggml-vocab-llama.gguf", "X-LoRA-Q8_0.gguf")
    assert listed(*names) == []
    assert len(listed("Florence-Q8_0.gguf", "lora/explora-Q4_0.gguf", "vocabulary-Q5_0.gguf")) == 3


def test_pieces_to_join_by_hand_are_known_by_their_endings() -> None:
    pieces = ["d/m.Q6_K.gguf-split-b", "m-Q4_K_M.gguf.part1of2", "m-Q4_K_M.gguf.part2of2", "m.gguf.part-aa"]
    others = [
        "m.gguf",
        "m-00001-of-00002.gguf",
        "m.gguf.json",
        "m.gguf.partial",
        "part1of2",
        "m.gguf-split",
        "README.md",
    ]
    assert joined_by_hand([*reversed(pieces), *others]) == pieces


def test_a_repository_that_has_only_pieces_says_so(tmp_path: Path) -> None:
    files = tuple(hub_file(f"m-Q4_K_M.gguf.part{number}of3") for number in (1, 2, 3))
    with pytest.raises(
        UnknownModelError, match=r"only pieces, to be joined by hand: m-Q4_K_M\.gguf\.part1of3, "
    ) as caught:
        choice(
            HubRepo("a/b", "0" * 40, files, gated=False, license=None, tags=(), downloads=0, updated_at=None),
            REF,
            tmp_path,
            fits_in(100),
        )
    assert "llama-mgr import" in (caught.value.hint or "")


def test_shards_are_one_offer_in_order() -> None:
    names = [f"Q8_0/m-Q8_0-{number:05d}-of-00003.gguf" for number in (3, 1, 2)]
    (found,) = listed(*names)
    assert [file.name for file in found.files] == sorted(names)
    assert found.size_bytes == 3 * GIB
    assert found.is_whole
    assert found.missing == ()


def test_sets_of_other_counts_and_places_are_other_offers() -> None:
    found = listed(
        "m-Q8_0.gguf", "m-Q8_0-00001-of-00001.gguf", "a/m-Q8_0.gguf",
        "m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf",
    )  # fmt: skip
    assert sorted(len(one.files) for one in found) == [1, 1, 1, 2]
    assert all(one.is_whole for one in found)


def test_a_set_that_lacks_shards_is_last() -> None:
    found = listed("m-Q4_K_M-00001-of-00003.gguf", "m-Q4_K_M-00003-of-00003.gguf", "m-Q2_K.gguf")
    assert [one.quant for one in found] == ["Q2_K", "Q4_K_M"]
    assert found[1].missing == (2,)


@pytest.mark.parametrize("name", ["m-00004-of-00003.gguf", "m-00000-of-00003.gguf", "m-00001-of-00000.gguf"])
def test_a_shard_outside_its_count_is_no_offer(name: str) -> None:
    assert listed(name) == []


def test_a_listing_of_lone_shards_costs_little() -> None:
    names = [f"m{number}-00001-of-99999.gguf" for number in range(3000)]
    found = listed(*checked_listing(names))
    assert len(found) == 3000
    assert not any(one.is_whole for one in found)
    assert all(one.missing == tuple(range(2, 102)) for one in found)
    with pytest.raises(IncompleteModelError, match=r"lacks shards 2, 3, .*, 13 and 99986 more of 99999"):
        chosen(found[:1], REF, fits_in(1))


# -- choosing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limit_gib", "quant"), [(100, "Q4_K_M"), (4, "Q4_K_M"), (3.9, "Q3_K_M"), (2.5, "IQ2_M"), (0.1, "IQ2_M")]
)
def test_the_best_is_taken_if_it_fits_else_the_biggest_that_fits_else_the_smallest(
    limit_gib: float, quant: str
) -> None:
    found = sized(F16=14, Q8_0=8, Q4_K_M=4, Q3_K_M=3, IQ2_M=2)
    assert chosen(found, REF, fits_in(limit_gib)).quant == quant


@pytest.mark.parametrize("odd", ["Q4_0_4_4", "Q4_0_8_8", "Q4_K_R4", "IQ4_KS", "IQ4_KS_R4", "IQ3_S_R8"])
@pytest.mark.parametrize("limit_gib", [3.9, 1])
def test_what_llama_cpp_does_not_load_is_taken_only_when_named_or_alone(odd: str, limit_gib: float) -> None:
    found = sized(**{"Q4_K_M": 4, "IQ2_M": 2, odd: 3}) + sized(**{odd: 0.5})
    assert chosen(found, REF, fits_in(limit_gib)).quant == "IQ2_M"
    assert chosen(sized(**{"Q4_K_M": 4, odd: 3}), HubRef("a", "b", odd.lower()), fits_in(100)).quant == odd
    assert chosen(sized(**{odd: 3}), REF, fits_in(limit_gib)).quant == odd


def test_a_file_that_names_no_quant_is_taken_only_when_it_is_alone() -> None:
    files = [hub_file("m-Q4_K_M.gguf", 4), hub_file("m-IQ2_M.gguf", 2), hub_file("other.gguf", 3)]
    assert chosen(offers(files), REF, fits_in(3.5)).quant == "IQ2_M"
    assert chosen(offers(files[2:]), REF, fits_in(3.5)).files[0].name == "other.gguf"


def test_a_small_model_without_four_bits_is_taken_with_eight() -> None:
    assert chosen(sized(F16=2, Q8_0=1), REF, fits_in(100)).quant == "Q8_0"
    assert chosen(sized(F16=2, BF16=2), REF, fits_in(100)).quant == "BF16"


@pytest.mark.parametrize(
    ("typed", "quant"),
    [
        ("Q8_0", "Q8_0"), ("q8_0", "Q8_0"), ("q8", "Q8_0"), ("Q3", "Q3_K_M"), ("Q4_K_XL", "UD-Q4_K_XL"),
        ("F16", "F16"), ("fp16", "F16"), ("i1-Q4_K_M", "Q4_K_M"), ("UD-Q4_K_XL", "UD-Q4_K_XL"), ("ud", "UD-Q4_K_XL"),
    ],
)  # fmt: skip
def test_a_quant_is_named_whole_or_by_its_beginning_whether_it_fits_or_not(typed: str, quant: str) -> None:
    found = sized(**{"F16": 14, "Q8_0": 8, "Q4_K_M": 4, "UD-Q4_K_XL": 4, "Q3_K_M": 3, "IQ2_M": 2})
    assert chosen(found, HubRef("a", "b", typed), fits_in(0.1)).quant == quant


def test_several_quants_are_listed_with_sizes_and_the_default_is_named() -> None:
    found = sized(Q8_0=8, Q4_K_M=4, Q4_0=3.5)
    with pytest.raises(AmbiguousModelError) as caught:
        chosen(found, HubRef("a", "b", "q4", revision="dev"), fits_in(100))
    assert caught.value.exit_status == 2
    assert "Q4_K_M (4.0 GiB), Q4_0 (3.5 GiB)" in caught.value.message
    assert "the default among them is Q4_K_M" in caught.value.message
    assert "Q8_0" not in caught.value.message
    assert caught.value.hint == "llama-mgr pull a/b:Q4_K_M@dev"


def test_an_unknown_quant_is_answered_with_those_that_there_are() -> None:
    with pytest.raises(UnknownModelError) as caught:
        chosen(sized(Q8_0=8, Q4_K_M=4), HubRef("a", "b", "Q5_K_M"), fits_in(100))
    assert caught.value.message == "cannot find Q5_K_M in 'a/b': the repository has Q4_K_M (4.0 GiB), Q8_0 (8.0 GiB)"


@pytest.mark.parametrize("typed", ["banana-q8", "4b-q8_0", "q8_0-x"])
def test_a_quant_inside_another_word_is_unknown(typed: str) -> None:
    with pytest.raises(UnknownModelError, match=r"the repository has Q4_K_M \(4.0 GiB\), Q8_0 \(8.0 GiB\)"):
        chosen(sized(Q8_0=8, Q4_K_M=4), HubRef("a", "b", typed), fits_in(100))


def test_a_repository_without_models_says_so() -> None:
    with pytest.raises(UnknownModelError, match="the repository has no GGUF model"):
        chosen([], REF, fits_in(1))


@pytest.mark.parametrize("names", [("a-Q4_K_M.gguf", "b-Q4_K_M.gguf"), ("small.gguf", "big.gguf")])
def test_different_models_of_one_quant_want_the_file(names: tuple[str, str]) -> None:
    found = listed(*names)
    with pytest.raises(AmbiguousModelError, match="name the file") as caught:
        chosen(found, REF, fits_in(100))
    assert all(name in caught.value.message for name in names)
    assert caught.value.hint is not None
    hinted = parse_reference(caught.value.hint.removeprefix("llama-mgr pull "))
    assert isinstance(hinted, HubRef)
    for ref in (hinted, HubRef("owner", "repo", file=names[1]), HubRef("owner", "repo", file=names[1].upper())):
        offer = chosen(found, ref, fits_in(0))
        assert offer.files[0].name.casefold() == (ref.file or "").casefold()


def test_a_file_of_a_split_model_means_all_its_shards() -> None:
    found = listed("m-Q8_0-00001-of-00002.gguf", "m-Q8_0-00002-of-00002.gguf", "m-Q4_K_M.gguf")
    assert len(chosen(found, HubRef("a", "b", file="m-Q8_0-00002-of-00002.gguf"), fits_in(100)).files) == 2


def test_an_incomplete_set_is_refused_when_it_is_named_or_there_is_nothing_else() -> None:
    names = ["m-Q4_K_M-00001-of-00005.gguf", "m-Q4_K_M-00003-of-00005.gguf", "m-Q4_K_M-00005-of-00005.gguf"]
    for ref in (REF, HubRef("a", "b", "Q4_K_M"), HubRef("a", "b", file=names[1])):
        with pytest.raises(IncompleteModelError, match="lacks shards 2, 4 of 5 of Q4_K_M") as caught:
            chosen(listed(*names), ref, fits_in(100))
        assert caught.value.exit_status == 5
    assert chosen(listed(*names, "m-Q8_0.gguf"), REF, fits_in(100)).quant == "Q8_0"


NAMED = st.builds(
    "{}{}-{}{}.gguf".format,
    st.sampled_from(["", "d/", "Q8_0/"]),
    st.sampled_from(["m", "n", "mmproj"]),
    st.sampled_from(["Q4_K_M", "Q8_0", "x", "F16", "UD-Q4_K_XL"]),
    st.sampled_from(["", "-00001-of-00002", "-00002-of-00002", "-00003-of-00002", "-00001-of-00001"]),
)


@given(st.lists(NAMED, unique=True, max_size=12), st.sampled_from([None, "Q4", "q8_0", "x"]), st.integers(0, 3))
def test_a_choice_is_a_whole_offer_or_an_error(names: list[str], quant: str | None, limit: int) -> None:
    found = listed(*names)
    files = [file.name for one in found for file in one.files]
    assert len(files) == len(set(files))
    with suppress(AmbiguousModelError, UnknownModelError, IncompleteModelError):
        offer = chosen(found, HubRef("a", "b", quant), fits_in(limit))
        assert offer.is_whole
        assert offer in found
