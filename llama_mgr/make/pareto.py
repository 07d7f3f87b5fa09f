"""Which quants are worth having: those that no other beats in both size and quality."""

import re
from collections.abc import Sequence

from llama_mgr.errors import BadInputError, NotFoundError
from llama_mgr.make.ledger import Evaluation
from llama_mgr.text import size_words

_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s*([KMGT]?)(I?B)?", re.IGNORECASE)
_POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def loss_of(one: Evaluation) -> float | None:
    """Return how much worse it is than its base, as far as that was measured: the divergence, else the perplexity."""
    return one.kld if one.kld is not None else one.perplexity


def front(entries: Sequence[Evaluation]) -> set[int]:
    """Return the places in `entries` of those that no other beats: smaller and no worse, or better and no larger."""
    return {place for place, one in enumerate(entries) if loss_of(one) is not None and not _is_beaten(one, entries)}


def _is_beaten(one: Evaluation, entries: Sequence[Evaluation]) -> bool:
    loss = loss_of(one)
    for other in entries:
        others = loss_of(other)
        if loss is None or others is None:
            continue
        no_worse = other.size_bytes <= one.size_bytes and others <= loss
        if no_worse and (other.size_bytes < one.size_bytes or others < loss):
            return True
    return False


def best_under(entries: Sequence[Evaluation], limit_bytes: int) -> Evaluation:
    """Return the one with the least loss among those of at most `limit_bytes`.

    Raises:
        NotFoundError: there is none.
    """
    fitting = [one for one in entries if one.size_bytes <= limit_bytes and loss_of(one) is not None]
    if not fitting:
        sizes = [one.size_bytes for one in entries]
        why = f"the smallest has {size_words(min(sizes))}" if sizes else "none was measured"
        raise NotFoundError("cannot find a quant under", size_words(limit_bytes), why)
    return min(fitting, key=lambda one: (loss_of(one), one.size_bytes))


def size_in(text: str) -> int:
    """Return the bytes of `6GiB`, `6G`, `500MB` or `1000000`; all are powers of 1024, as files are shown here.

    Raises:
        BadInputError: it has another form.
    """
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise BadInputError("cannot use as a size", text, "the form is a number with K, M, G or T, such as 6GiB")
    return int(float(found[1]) * 1024 ** _POWERS[found[2].upper()])
