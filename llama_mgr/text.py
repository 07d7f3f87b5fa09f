"""Text for people: outside strings made harmless, nearest spellings, sizes and durations in words."""

import re
import unicodedata
from collections.abc import Iterable

_SHOWN_CHARACTERS = 200
_ESCAPED_CATEGORIES = frozenset({"Cc", "Cf", "Co", "Cs", "Zl", "Zp"})

_WORD = re.compile(r"[^\s'\"]+")
_LOGIN = re.compile(r"(?<=://)[^/?#]+(?=@)")  # a later '@' belongs to the path
_QUERY_VALUE = re.compile(r"(?P<name>(?:^|&)(?:[^&=#]*=)?)[^&#]+")
_ANY_QUERY = re.compile(r"(?<=\?)[^\s'\"]*=[^\s'\"]*")
_CCACHE_CREDENTIAL = re.compile(r"(?<=\|bearer-token=)[^|'\"\n]+|(?<=\|header=)[^|'\"\n]+")  # after a remote's URL


def printable(text: object, limit: int = _SHOWN_CHARACTERS) -> str:
    """Return `text` safe for a terminal and a log line: controls and bidi marks escaped, cut at `limit` characters."""
    whole = str(text)
    return f"{escaped(whole[:limit])}…" if len(whole) > limit else escaped(whole)


def escaped(text: str) -> str:
    """Return the whole of `text`, with every control character and bidi mark written out in hexadecimal."""
    if text.isprintable():  # most is, and long tables have a million characters
        return text
    return "".join(
        character.encode("unicode_escape", "backslashreplace").decode("ascii")
        if unicodedata.category(character) in _ESCAPED_CATEGORIES
        else character
        for character in text
    )


def without_secrets(text: str) -> str:
    """Return `text` with the secrets that its URLs may hold replaced by `***`.

    These are the user name and password before the host, the values of all parameters of the query (which of them are
    secret, only the server knows), and the credentials that ccache takes after `|`. URLs end at white space and quotes.
    The time taken grows with the length of `text` alone.
    """
    return _WORD.sub(lambda word: _without_url_secrets(word[0]), _CCACHE_CREDENTIAL.sub("***", text))


def story_without_secrets(traceback: str) -> str:
    """Return a traceback as it may be shown and kept: as `without_secrets`, and without the queries of relative URLs.

    HTTP libraries name what they could not fetch by its path and query alone.
    """
    return _ANY_QUERY.sub("***", without_secrets(traceback))


def _without_url_secrets(word: str) -> str:
    address, mark, query = _LOGIN.sub("***", word).partition("?")
    is_url = ":/" in address
    return address + mark + (_QUERY_VALUE.sub(r"\g<name>***", query) if is_url else query)


def printable_lines(text: str, last: int) -> list[str]:
    """Return the `last` lines of `text`, each made printable."""
    return [printable(line.rstrip()) for line in text.splitlines()[-last:]]


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Return the known word that `word` most probably was meant to be, or None when nothing is close."""
    import difflib  # noqa: PLC0415 (only mistakes need it, and every start would pay for it)

    by_folded = {candidate.casefold(): candidate for candidate in known}
    close = difflib.get_close_matches(word.casefold(), by_folded, n=1, cutoff=0.65)
    return by_folded[close[0]] if close else None


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return the hint `did you mean 'x'?`, or None when no known word is close."""
    candidate = nearest(word, known)
    return f"did you mean '{candidate}'?" if candidate else None


def size_words(size_bytes: float) -> str:
    """Return a size as people read it: `512 B`, `1.5 GiB` (powers of 1024)."""
    value = float(size_bytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:  # noqa: PLR2004
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def duration_words(seconds: float) -> str:
    """Return a duration as people read it: `0.4 s`, `48 s`, `4 min 53 s`, `2 h 05 min`."""
    if seconds < 10:  # noqa: PLR2004
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    hours, minutes_rest = divmod(minutes, 60)
    return f"{hours} h {minutes_rest:02d} min" if hours else f"{minutes} min {rest:02d} s"
