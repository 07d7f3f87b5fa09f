"""The model card of quants that were made here: what they are, how good, and how they came to be.

The front matter has the keys that the hub knows ("Model Cards" of its documentation). Whatever came from outside may
hold marks of Markdown, HTML and YAML; it is shown as it is, and never becomes one of them.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from llama_mgr import __version__
from llama_mgr.models.hub_upload import CARD_MARK
from llama_mgr.text import escaped, printable, size_words

_TEXT_LIMIT = 1000
_REPO = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}")  # the hub refuses a card with another form
_MARKS = re.compile(r"([\\`*_{}\[\]()#.!|~:@$])")  # those within a line; no text from outside begins one
_BACKTICKS = re.compile(r"`+")
_USUAL_QUANT = "Q4_K_M"
_UNKNOWN = "-"


@dataclass(frozen=True)
class CardFile:
    """One file: its name in the repository, and its sha256."""

    name: str
    sha256: str


@dataclass(frozen=True)
class CardRow:
    """One quant: its file, or all shards in order; what was measured of it, as in `ledger.Evaluation`."""

    files: tuple[CardFile, ...]
    quant: str
    size_bytes: int
    bits_per_weight: float | None = None
    perplexity: float | None = None
    perplexity_error: float | None = None
    kld: float | None = None
    same_top: float | None = None
    prompt_tokens_per_s: float | None = None
    generation_tokens_per_s: float | None = None


@dataclass(frozen=True)
class CardFacts:
    """What a card tells. Of what is None or empty, nothing is said."""

    name: str
    """Of the model, for people."""
    repo: str
    """Where the card will be, `owner/name`."""
    rows: tuple[CardRow, ...]
    commands: tuple[str, ...]
    """As they ran, each in one line."""
    build_id: str
    build_version: str
    build_commit: str
    converter_commit: str
    made_at: str
    source_repo: str | None = None
    source_revision: str | None = None
    license: str | None = None
    imatrix_sha256: str | None = None
    imatrix_text: str | None = None
    """The name of what the importance matrix was computed over."""
    evaluation_text: str | None = None
    """The name of what perplexity and divergence were computed over."""
    devices: str | None = None
    """What the speeds were measured on."""


def model_card(facts: CardFacts) -> str:
    """Return the card: Markdown with YAML front matter, and `CARD_MARK`. The same facts give the same text."""
    parts = (
        _front_matter(facts),
        [CARD_MARK],
        [f"# {_plain(facts.name)} GGUF"],
        [_opening(facts)],
        _table(facts.rows),
        _legend(facts),
        ["## Run them"],
        _block("sh", _uses(facts)),
        ["## How they were made"],
        [f"- {line}" for line in _making(facts)],
        _block("sh", facts.commands),
        ["## Checksums"],
        _block("text", [f"{file.sha256}  {file.name}" for row in facts.rows for file in row.files]),
    )
    return "\n\n".join("\n".join(part) for part in map(list, parts) if part) + "\n"


# -- parts -------------------------------------------------------------------------------------------------------------


def _front_matter(facts: CardFacts) -> Iterator[str]:
    yield "---"
    if facts.source_repo and _REPO.fullmatch(facts.source_repo):
        yield f"base_model: {_yaml(facts.source_repo)}"
        yield f"base_model_relation: {_yaml('quantized')}"
    if facts.license and _LICENSE.fullmatch(facts.license):
        yield f"license: {_yaml(facts.license)}"
    yield f"library_name: {_yaml('gguf')}"
    yield "tags:"
    yield from (f"- {_yaml(tag)}" for tag in ("gguf", "llama-mgr"))
    yield "---"


def _opening(facts: CardFacts) -> str:
    of = f" of {_code(facts.source_repo)}" if facts.source_repo else ""
    made = f"made with llama.cpp {_plain(facts.build_version)} by llama-mgr {__version__}"
    return f"Quants{of} for llama.cpp and all that is built on it, {made}."


_COLUMNS: tuple[tuple[str, Callable[[CardRow], str | None]], ...] = (
    ("file", lambda row: _files_words(row.files)),
    ("quant", lambda row: _plain(row.quant)),
    ("size", lambda row: size_words(row.size_bytes)),
    ("bits per weight", lambda row: _number(row.bits_per_weight, 2)),
    ("PPL", lambda row: _number(row.perplexity, 4, row.perplexity_error)),
    ("KLD", lambda row: _number(row.kld, 5)),
    ("same top token", lambda row: None if row.same_top is None else f"{100 * row.same_top:.2f} %"),
    ("prompt t/s", lambda row: _number(row.prompt_tokens_per_s, 1)),
    ("generation t/s", lambda row: _number(row.generation_tokens_per_s, 1)),
)  # fmt: skip
_NAMES = 2  # columns of words; the others are aligned at their ends


def _table(rows: Sequence[CardRow]) -> list[str]:
    """Return a table with a line for each row, and without columns of which nothing is known."""
    cells = [[show(row) for row in rows] for _, show in _COLUMNS]
    known = [place for place, column in enumerate(cells) if any(cell is not None for cell in column)]
    lines = [[_COLUMNS[place][0] for place in known], ["---" if place < _NAMES else "--:" for place in known]]
    lines += [[cells[place][number] or _UNKNOWN for place in known] for number in range(len(rows))]
    return [f"| {' | '.join(line)} |" for line in lines] if rows else []


def _files_words(files: Sequence[CardFile]) -> str:
    name = files[0].name
    first = _plain(name) if "|" in name else _code(name)  # within code, a table would end its cell at a '|'
    return f"{first} and {len(files) - 1} more" if len(files) > 1 else first


def _legend(facts: CardFacts) -> Iterator[str]:
    rows = facts.rows
    over = f" over {_code(facts.evaluation_text)}" if facts.evaluation_text else ""
    on = f" on {_plain(facts.devices)}" if facts.devices else ""
    if any(row.perplexity is not None for row in rows):
        yield f"- PPL: perplexity{over}; less is better."
    if any(row.kld is not None for row in rows):
        yield f"- KLD: mean Kullback-Leibler divergence from what was quantized, in nats{over}; less is better."
    if any(row.same_top is not None for row in rows):
        yield "- same top token: how often both think the same token the likeliest."
    if any(row.prompt_tokens_per_s is not None or row.generation_tokens_per_s is not None for row in rows):
        yield f"- t/s: tokens a second of llama-bench{on}."


def _uses(facts: CardFacts) -> Iterator[str]:
    quants = [row.quant for row in facts.rows]
    quant = _USUAL_QUANT if _USUAL_QUANT in quants or not quants else quants[0]
    yield f"llama-mgr pull {facts.repo}:{quant}"
    yield f"llama-server -hf {facts.repo}:{quant}"


def _making(facts: CardFacts) -> Iterator[str]:
    if facts.source_repo:
        at = f" at revision {_code(facts.source_revision)}" if facts.source_revision else ""
        yield f"source: {_code(facts.source_repo)}{at}"
    if facts.license and not _LICENSE.fullmatch(facts.license):
        yield f"license of the source: {_plain(facts.license)}"
    if facts.converter_commit:
        yield f"converted by convert_hf_to_gguf.py of llama.cpp commit {_code(facts.converter_commit)}"
    yield (
        f"quantized by llama-quantize of llama.cpp {_plain(facts.build_version)}, commit {_code(facts.build_commit)}, "
        f"build {_code(facts.build_id)}"
    )
    if facts.imatrix_sha256:
        over = f", computed over {_code(facts.imatrix_text)}" if facts.imatrix_text else ""
        yield f"importance matrix: sha256 {_code(facts.imatrix_sha256)}{over}"
    yield f"finished: {_code(facts.made_at)}"


# -- text from outside -------------------------------------------------------------------------------------------------


def _plain(text: str) -> str:
    """Return `text` so that Markdown shows it as it is, in one line."""
    shown = _MARKS.sub(r"\\\1", printable(text, _TEXT_LIMIT))
    return shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _code(text: str) -> str:
    """Return `text` as code within a line; its fence is longer than all that it holds."""
    shown = printable(text, _TEXT_LIMIT)
    fence = "`" * (_longest_fence([shown]) + 1)
    pad = " " if shown[:1] in {"`", " ", ""} or shown[-1:] in {"`", " "} else ""
    return f"{fence}{pad}{shown}{pad}{fence}"


def _block(language: str, lines: Iterable[str]) -> list[str]:
    """Return a block of code, one line each; nothing for none."""
    shown = [escaped(line) for line in lines]
    fence = "`" * max(3, _longest_fence(shown) + 1)
    return [f"{fence}{language}", *shown, fence] if shown else []


def _longest_fence(lines: Iterable[str]) -> int:
    return max((len(found) for line in lines for found in _BACKTICKS.findall(line)), default=0)


def _yaml(text: str) -> str:
    """Return `text` as a double-quoted scalar, whose escapes are those of JSON (YAML 1.2.2, 5.7)."""
    return json.dumps(printable(text, _TEXT_LIMIT), ensure_ascii=False)


def _number(value: float | None, digits: int, error: float | None = None) -> str | None:
    if value is None:
        return None
    return f"{value:.{digits}f}" + (f" ± {error:.{digits}f}" if error is not None else "")
