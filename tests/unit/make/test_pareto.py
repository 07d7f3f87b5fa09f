"""Which quants are worth having: the front, the best of a size, and sizes as users write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_mgr.errors import BadInputError, NotFoundError
from llama_mgr.make.ledger import Evaluation
from llama_mgr.make.pareto import best_under, front, loss_of, size_in
from tests.tools.made_models import measured

Q8 = measured("Q8_0", 8000, kld=0.001)
Q6 = measured("Q6_K", 6000, kld=0.004)
Q5 = measured("Q5_1", 6500, kld=0.010)
Q4 = measured("Q4_K_M", 4500, kld=0.03)
IQ4 = measured("IQ4_XS", 4200, kld=0.03)
UNKNOWN = measured("Q2_K", 10, kld=None, perplexity=None)

some_entries = st.lists(
    st.builds(
        measured,
        size_bytes=st.integers(1, 6),
        kld=st.one_of(st.none(), st.integers(0, 5).map(float)),
        perplexity=st.none(),
    ),
    max_size=9,
)


def beats(one: Evaluation, other: Evaluation) -> bool:
    """Tell whether `one` is smaller and no worse, or better and no larger, than `other`."""
    if one.kld is None or other.kld is None:
        return False
    return (one.size_bytes < other.size_bytes and one.kld <= other.kld) or (
        one.kld < other.kld and one.size_bytes <= other.size_bytes
    )


def test_a_quant_that_is_larger_and_worse_than_another_is_off_the_front() -> None:
    entries = [Q8, Q5, Q6, IQ4, Q4, UNKNOWN]
    assert {entries[place].quant for place in front(entries)} == {"Q8_0", "Q6_K", "IQ4_XS"}
    assert front([]) == set()
    assert front([UNKNOWN]) == set()
    assert front([Q4, Q4]) == {0, 1}  # neither beats the other


@given(some_entries)
def test_nothing_on_the_front_is_beaten_and_everything_off_it_is(entries: list[Evaluation]) -> None:
    found = front(entries)
    for place, one in enumerate(entries):
        is_beaten = any(beats(other, one) for other in entries)
        assert (place in found) == (one.kld is not None and not is_beaten)


@given(some_entries)
def test_what_is_off_the_front_is_beaten_by_something_on_it(entries: list[Evaluation]) -> None:
    found = front(entries)
    for place, one in enumerate(entries):
        if place not in found and one.kld is not None:
            assert any(beats(entries[best], one) for best in found)


def test_the_loss_is_the_divergence_and_else_the_perplexity() -> None:
    assert loss_of(measured(kld=0.0, perplexity=5.0)) == 0.0
    assert loss_of(measured(kld=None, perplexity=5.0)) == 5.0
    assert loss_of(UNKNOWN) is None
    by_perplexity = [measured("A", 2, kld=None, perplexity=5.0), measured("B", 3, kld=None, perplexity=5.1)]
    assert front(by_perplexity) == {0}


def test_the_best_of_at_most_a_size() -> None:
    entries = [IQ4, Q4, Q5, Q6, Q8, UNKNOWN]
    assert best_under(entries, 8000) == Q8
    assert best_under(entries, 7999) == Q6
    assert best_under(entries, 4500) == IQ4  # as good as the other, and smaller
    assert best_under([Q4, IQ4], 5000) == IQ4
    with pytest.raises(NotFoundError, match=r"under '4.1 KiB': the smallest has 10 B"):
        best_under(entries, 4199)
    with pytest.raises(NotFoundError, match="none was measured"):
        best_under([], 4199)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("6GiB", 6 * 1024**3), ("6G", 6 * 1024**3), ("6 gb", 6 * 1024**3), ("1.5GiB", 1536 * 1024**2),
        ("500MB", 500 * 1024**2), ("64k", 65_536), ("2T", 2 * 1024**4), (" 1000000 ", 1_000_000), ("12B", 12), ("0", 0),
    ],
)  # fmt: skip
def test_sizes_as_users_write_them(text: str, expected: int) -> None:
    assert size_in(text) == expected


@pytest.mark.parametrize("text", ["", "G", "-1G", "1,5G", "6 GiB RAM", "1e9", "6PiB", "nan", ".5G", "6G6"])
def test_other_words_are_no_size(text: str) -> None:
    with pytest.raises(BadInputError, match="such as 6GiB"):
        size_in(text)
