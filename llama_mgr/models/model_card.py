"""The beginning of a model card, made fit for a terminal. Anybody can write one; nothing in it is trusted."""

import re

from llama_mgr.text import escaped

CARD_FILE = "README.md"
READ_LIMIT_BYTES = 64 * 1024
_EXCERPT_CHARACTERS = 1500
_EXCERPT_LINES = 30
_LINE_CHARACTERS = 1000
_TAG = re.compile(  # of HTML; <s> and <think> are tokens that a card may speak of
    r"</?(?:a|b|big|blockquote|br|center|code|details|div|em|figure|font|h[1-6]|hr|i|iframe|img|kbd|li|ol|p|picture|pre"
    r"|script|small|source|span|strong|style|sub|summary|sup|svg|table|tbody|td|th|thead|tr|u|ul|video)\b[^<>]{0,500}>",
    re.IGNORECASE,
)
_IMAGE = re.compile(r"!\[[^\[\]]{0,200}\]\([^()]{0,500}\)")
_EMPTY_LINK = re.compile(r"\[\s{0,20}\]\([^()]{0,500}\)")
_FENCE = "---"


def excerpt(card: bytes) -> str:
    """Return the first paragraphs of a card: Markdown without front matter, pictures and HTML, safe to print.

    Control characters are written out, as everywhere; lines, and the whole, have a limited length. A card that goes on
    ends in `…`.
    """
    text = _without_comments(_without_front_matter(card.decode("utf-8", "replace").replace("\r\n", "\n")))
    text = _EMPTY_LINK.sub("", _IMAGE.sub("", _TAG.sub("", text)))
    lines: list[str] = []
    for line in text.split("\n"):
        shown = escaped(line.expandtabs(4).rstrip()[:_LINE_CHARACTERS])
        if not shown and (not lines or not lines[-1]):
            continue
        if len(lines) >= _EXCERPT_LINES or sum(map(len, lines)) + len(shown) > _EXCERPT_CHARACTERS:
            lines.append("…")
            break
        lines.append(shown)
    return "\n".join(lines).strip()


def _without_front_matter(text: str) -> str:
    """Leave out the YAML between two lines of `---` at the beginning."""
    first, newline, rest = text.lstrip("\ufeff\n").partition("\n")
    if first.rstrip() != _FENCE or not newline:
        return text.lstrip("\ufeff")
    lines = rest.split("\n")
    for number, line in enumerate(lines):
        if line.rstrip() == _FENCE:
            return "\n".join(lines[number + 1 :])
    return ""


def _without_comments(text: str) -> str:
    kept, at = [], 0
    while (begin := text.find("<!--", at)) >= 0:
        kept.append(text[at:begin])
        end = text.find("-->", begin)
        if end < 0:
            return "".join(kept)
        at = end + len("-->")
    return "".join([*kept, text[at:]])
