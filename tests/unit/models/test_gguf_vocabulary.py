"""Vocabularies that were seen before are compared, not gone over; what is read stays the same."""

import pytest

from llama_mgr.errors import BadGgufError
from llama_mgr.models.gguf import GgufHeader, parse_gguf
from llama_mgr.models.gguf_vocabulary import COMPARED_FROM, Vocabularies
from tests.tools.gguf_file import gguf_head
from tests.tools.gguf_fuzz import BytesSource

COUNT = COMPARED_FROM + 5_000
WORDS = [f"word {number}" for number in range(COUNT)]
OTHERS = [*WORDS[:-1], "another end"]


def head(words: list[str], after: int) -> bytes:
    return gguf_head({"before": after, "words": words, "after": after})


def read(content: bytes, vocabularies: Vocabularies | None) -> GgufHeader:
    return parse_gguf(BytesSource(content, len(content)), "test", vocabularies)


def test_what_is_read_is_the_same() -> None:
    known = Vocabularies()
    for number, words in enumerate([WORDS, WORDS, OTHERS, WORDS, OTHERS, WORDS[:COMPARED_FROM]]):
        content = head(words, number)
        assert read(content, known) == read(content, None)


def test_equal_vocabularies_are_kept_once() -> None:
    known = Vocabularies()
    for number, words in enumerate([WORDS, OTHERS, WORDS, OTHERS]):
        read(head(words, number), known)
    assert len(list(known.of(COUNT))) == 2


def test_short_arrays_are_not_kept() -> None:
    known = Vocabularies()
    read(head(WORDS[: COMPARED_FROM - 1], 1), known)
    assert list(known.of(COMPARED_FROM - 1)) == []


def test_a_file_that_ends_inside_a_known_vocabulary_is_cut_off() -> None:
    known = Vocabularies()
    content = head(WORDS, 1)
    read(content, known)
    for length in (len(content) // 2, len(content) - 40):
        with pytest.raises(BadGgufError, match="cut off"):
            read(content[:length], known)


def test_the_oldest_go_first() -> None:
    known = Vocabularies()
    for number in range(5):
        known.keep(number, bytes(5 * 1024 * 1024))
    assert [number for number in range(5) if list(known.of(number))] == [2, 3, 4]
    assert not known.has_room_for(9 * 1024 * 1024)
