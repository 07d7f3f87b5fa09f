"""What a model card says, as those read it who show it: a Markdown and a YAML parser."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from llama_mgr.make.model_card import CardFacts, CardFile, CardRow, model_card
from llama_mgr.models.hub_upload import CARD_MARK
from llama_mgr.text import printable

SHA = {"Q4_K_M": "4" * 64, "Q8_0": "8" * 64}


def row(quant: str, **more: object) -> CardRow:
    file = CardFile(f"SmolLM2-135M-{quant}.gguf", SHA.get(quant, "a" * 64))
    return replace(CardRow((file,), quant, 105_000_000), **more)  # type: ignore[arg-type]


FACTS = CardFacts(
    name="SmolLM2-135M-Instruct",
    repo="me/SmolLM2-135M-Instruct-GGUF",
    rows=(
        row("Q8_0", bits_per_weight=8.5, perplexity=20.1234, perplexity_error=0.31, kld=0.00123, same_top=0.9712),
        row("Q4_K_M", bits_per_weight=5.0321, prompt_tokens_per_s=812.34, generation_tokens_per_s=95.04),
    ),
    commands=("convert_hf_to_gguf.py model --outtype bf16", "llama-quantize f.gguf q.gguf Q4_K_M"),
    build_id="b11434-cpu-0123abcd",
    build_version="b11434",
    build_commit="c" * 40,
    converter_commit="d" * 40,
    made_at="2026-10-01T12:00:00Z",
    source_repo="HuggingFaceTB/SmolLM2-135M-Instruct",
    source_revision="e" * 40,
    license="apache-2.0",
    imatrix_sha256="f" * 64,
    imatrix_text="calibration",
    evaluation_text="evaluation",
    devices="AMD EPYC",
)
BARE = CardFacts("tiny", "me/tiny", (row("Q8_0"),), (), "b1", "b11434", "c" * 40, "", "2026-10-01T12:00:00Z")
PLAIN = "Plain-1"
HOSTILE = (
    "a|b", "**a** _b_ `c`", "x\n# y", "--- \n", "[a](http://b.invalid)", "<script>a</script>", "<!-- a", "&lt;",
    "``` \n```", "```", "````", "~~~",
    "\\|", "\\", "~~a~~", "1. a", "a\u202eb", "\ud800", '": "', "!!python/object", "{{a}}", "    a",
    "http://b.invalid", "@somebody", "`", "``", "|", "\u2028", "\x85a", "\ufeff", "#", "- a", "\x7f", "a\tb", "",
)  # fmt: skip


def matter(card: str) -> object:
    opening, front, _ = re.split(r"^---$", card, maxsplit=2, flags=re.MULTILINE)
    assert opening == ""
    return yaml.safe_load(front)


def tokens(card: str) -> list[Token]:
    body = card.split("\n---\n", 1)[1]
    return MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(body)


def kinds(found: list[Token]) -> Iterator[str]:
    for token in found:
        yield token.type
        yield from kinds(token.children or [])


def shown(inline: Token) -> str:
    return "".join(child.content for child in inline.children or [])


def cells(card: str) -> list[list[str]]:
    rows: list[list[str]] = []
    inside = False
    for token in tokens(card):
        if token.type == "tr_open":
            rows.append([])
        inside = token.type in {"th_open", "td_open"} or (inside and token.type == "inline")
        if inside and token.type == "inline":
            rows[-1].append(shown(token))
    return rows


def lines(card: str) -> list[str]:
    return [shown(token) for token in tokens(card) if token.type == "inline"]


def blocks(card: str) -> list[str]:
    return [token.content for token in tokens(card) if token.type == "fence"]


def test_the_front_matter_has_what_the_hub_looks_for() -> None:
    assert matter(model_card(FACTS)) == {
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "base_model_relation": "quantized",
        "license": "apache-2.0",
        "library_name": "gguf",
        "tags": ["gguf", "llama-mgr"],
    }
    assert matter(model_card(BARE)) == {"library_name": "gguf", "tags": ["gguf", "llama-mgr"]}


@pytest.mark.parametrize(("field", "value"), [("license", "Apache License 2.0"), ("source_repo", "/home/me/model")])
def test_what_the_hub_would_refuse_stays_out_of_the_front_matter(field: str, value: str) -> None:
    card = model_card(replace(FACTS, **{field: value}))  # type: ignore[arg-type]
    assert value not in str(matter(card))
    assert value in " ".join(lines(card))


@pytest.mark.parametrize("name", ["no", "1", "1e5", "0x10"])
def test_no_license_becomes_a_number(name: str) -> None:
    assert dict(matter(model_card(replace(FACTS, license=name))))["license"] == name  # type: ignore[call-overload]


def test_the_table_has_all_that_was_measured() -> None:
    assert cells(model_card(FACTS)) == [
        [
            "file", "quant", "size", "bits per weight", "PPL", "KLD", "same top token", "prompt t/s", "generation t/s",
        ],
        ["SmolLM2-135M-Q8_0.gguf", "Q8_0", "100.1 MiB", "8.50", "20.1234 ± 0.3100", "0.00123", "97.12 %", "-", "-"],
        ["SmolLM2-135M-Q4_K_M.gguf", "Q4_K_M", "100.1 MiB", "5.03", "-", "-", "-", "812.3", "95.0"],
    ]  # fmt: skip


def test_columns_and_words_about_what_was_not_measured_are_left_out() -> None:
    card = model_card(BARE)
    assert cells(card) == [["file", "quant", "size"], ["SmolLM2-135M-Q8_0.gguf", "Q8_0", "100.1 MiB"]]
    assert not re.search(r"PPL|KLD|t/s|importance|None|converted", card)
    assert len(blocks(card)) == 2  # how to run, and checksums


def test_a_split_model_is_one_row_with_all_its_checksums() -> None:
    files = tuple(CardFile(f"m-{number:05}-of-00003.gguf", str(number) * 64) for number in (1, 2, 3))
    card = model_card(replace(BARE, rows=(CardRow(files, "Q8_0", 10**9),)))
    assert cells(card)[1][0] == "m-00001-of-00003.gguf and 2 more"
    assert blocks(card)[-1].splitlines() == [f"{file.sha256}  {file.name}" for file in files]


def test_the_commands_that_use_and_that_made_it_can_be_copied() -> None:
    run, made, sums = blocks(model_card(FACTS))
    assert run.splitlines() == [
        "llama-mgr pull me/SmolLM2-135M-Instruct-GGUF:Q4_K_M",
        "llama-server -hf me/SmolLM2-135M-Instruct-GGUF:Q4_K_M",
    ]
    assert made.splitlines() == list(FACTS.commands)
    assert sums.splitlines() == [f"{SHA[q]}  SmolLM2-135M-{q}.gguf" for q in ("Q8_0", "Q4_K_M")]
    assert "llama-mgr pull me/tiny:Q8_0" in model_card(BARE)


def test_every_input_of_the_making_is_named() -> None:
    card = model_card(FACTS)
    for one in (
        FACTS.source_revision,
        FACTS.converter_commit,
        FACTS.build_commit,
        FACTS.build_id,
        FACTS.imatrix_sha256,
    ):
        assert f"`{one}`" in card
    assert "`calibration`" in card
    assert "`evaluation`" in card
    assert "AMD EPYC" in card
    assert card.count(CARD_MARK) == 1


def test_the_same_facts_give_the_same_card() -> None:
    assert model_card(FACTS) == model_card(replace(FACTS))


def hostile(text: str) -> CardFacts:
    """Return facts of which everything that comes from outside is `text`."""
    rows = (replace(row(text), files=(CardFile(text, text),), bits_per_weight=1.0, kld=0.1, prompt_tokens_per_s=1.0),)
    words = dict.fromkeys(CardFacts.__dataclass_fields__, text)
    return CardFacts(**{**words, "rows": rows, "commands": (text, text), "license": f"{text} Z"})  # type: ignore[arg-type]


def require_harmless(text: str) -> None:
    card, plain = model_card(hostile(text)), model_card(hostile(PLAIN if text else ""))
    front = matter(card)
    assert isinstance(front, dict)
    assert set(front) <= {"base_model", "base_model_relation", "license", "library_name", "tags"}
    # code or words, whichever shows a name: nothing else becomes of it
    become = {"code_inline", "text"}
    assert [kind for kind in kinds(tokens(card)) if kind not in become] == [
        kind for kind in kinds(tokens(plain)) if kind not in become
    ]
    assert [" ".join(words.split()) for words in lines(card)] == [
        " ".join(words.replace(PLAIN, printable(text)).split()) for words in lines(plain)
    ]
    assert not set(kinds(tokens(card))) & {"html_inline", "link_open", "em_open", "strong_open", "s_open", "image"}
    assert blocks(card) == [one.replace(PLAIN, printable(text)) for one in blocks(plain)]
    json.dumps(card, ensure_ascii=False).encode()  # no half characters


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_text_from_outside_stays_text(text: str) -> None:
    require_harmless(text)


@given(
    st.text(
        alphabet=st.one_of(st.sampled_from(list("`|\\*_[]()<>!#-~&:\n\t \"'{}@.=1a")), st.characters()), max_size=12
    )
)
def test_any_text_stays_text(text: str) -> None:
    require_harmless(text)


def test_a_name_is_read_as_it_was_written() -> None:
    name = "a|b *c* `d` <e> [f](g) \\| ~~h~~ &amp;"
    card = model_card(replace(FACTS, name=name, rows=(replace(FACTS.rows[0], quant=name),)))
    heading = next(
        token for number, token in enumerate(tokens(card)) if tokens(card)[number - 1].type == "heading_open"
    )
    assert shown(heading) == f"{name} GGUF"
    assert cells(card)[1][1] == name
