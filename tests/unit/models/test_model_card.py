"""The excerpt of a model card."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from llama_mgr.models.model_card import READ_LIMIT_BYTES, excerpt


def test_front_matter_html_and_pictures_are_left_out() -> None:
    card = b"""\xef\xbb\xbf---
license: mit
tags: [a]
---

<div align="center"><img src="x.png"></div>

[![badge](https://a.test/b.svg)](https://a.test)
![picture](p.png)
<!-- a comment
over lines -->
# Name

Words, and 1 < 2 > 0, and `<unk>`.
"""
    assert excerpt(card) == "# Name\n\nWords, and 1 < 2 > 0, and `<unk>`."


def test_a_card_without_front_matter_is_kept() -> None:
    assert excerpt(b"hello\r\n\r\n\r\n\r\nworld\n---\nmore") == "hello\n\nworld\n---\nmore"


def test_an_open_front_matter_or_comment_leaves_nothing() -> None:
    assert excerpt(b"---\nlicense: mit\n") == ""
    assert excerpt(b"before <!-- never closed") == "before"


def test_a_long_card_is_cut_at_a_line() -> None:
    assert excerpt(b"line\n" * 100).endswith("line\n…")
    assert len(excerpt(b"x" * READ_LIMIT_BYTES)) < 2000


def test_hostile_cards_take_no_time() -> None:
    for part in (b"<!--", b"<a ", b"![", b"[ ](", b"![x](", b"---\n", b"\t" * 3):
        excerpt(part * (READ_LIMIT_BYTES // len(part)))  # quadratic work would be noticed by the clock of the whole run


@given(st.binary(max_size=500))
def test_nothing_in_it_moves_a_terminal(card: bytes) -> None:
    shown = excerpt(card)
    assert not [one for one in shown if one != "\n" and unicodedata.category(one) in {"Cc", "Cf", "Cs"}]
