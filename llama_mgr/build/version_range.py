"""Version ranges such as `>=11.8,<12.8`."""

import re
from collections.abc import Callable

_COMPARISON = re.compile(r"(?P<sign>>=|<=|==|!=|>|<)\s*(?P<limit>\d+(?:\.\d+)*)")
_NUMBERS = re.compile(r"\d+(?:\.\d+)*")
_SIGNS: dict[str, Callable[[list[int], list[int]], bool]] = {
    ">=": lambda have, limit: have >= limit,
    "<=": lambda have, limit: have <= limit,
    "==": lambda have, limit: have == limit,
    "!=": lambda have, limit: have != limit,
    ">": lambda have, limit: have > limit,
    "<": lambda have, limit: have < limit,
}


def version_in(version: str, version_range: str) -> bool:
    """Tell whether `version` lies in a range such as `>=11.8,<12.8`.

    Only as many numbers as a limit has are compared: 13.2 is `<=13`, and not `>13`; a missing number is 0. Text around
    the first number of `version` (`V12.8.93`, `6.2.41133-dd7f95766`) does not count; without a number no range holds.

    Raises:
        ValueError: the range has another form; recipes are checked for that when they are read.
    """
    found = _NUMBERS.search(version)
    have = [int(number) for number in found[0].split(".")] if found else []
    return all(_compared(have, sign, limit) for sign, limit in comparisons(version_range)) if have else False


def _compared(have: list[int], sign: str, limit: list[int]) -> bool:
    same_length = [*have, *[0] * len(limit)][: len(limit)]
    return _SIGNS[sign](same_length, limit)


def comparisons(version_range: str) -> list[tuple[str, list[int]]]:
    """Return the parts of a version range as (sign, numbers).

    Raises:
        ValueError: it is not a list of comparisons.
    """
    parts = [_COMPARISON.fullmatch(part.strip()) for part in version_range.split(",")]
    if None in parts:
        raise ValueError(f"'{version_range}' is not a version range such as '>=11.8,<12.8'")
    return [(part["sign"], [int(number) for number in part["limit"].split(".")]) for part in parts if part]
