"""What an HTTP answer says: whether to ask again and when, which part of a file it brings, and whether it is a file."""

import re
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llama_mgr.errors import RemoteError
from llama_mgr.text import printable

if TYPE_CHECKING:
    from llama_mgr.http_session import Response

DELAY_LIMIT_S = 60.0
"""No server makes us wait longer than this before the next try."""
_OK, PARTIAL_CONTENT, UNSATISFIABLE_RANGE = 200, 206, 416
_CONTENT_RANGE = re.compile(r"bytes (?:(?P<start>\d{1,18})-\d{1,18}|\*)/(?:(?P<total>\d{1,18})|\*)")
_BINARY_SUFFIXES = (".gguf", ".safetensors", ".bin", ".whl", ".gz", ".zip")
_AGAIN = frozenset({408, 425, 429})
_SERVER_ERRORS = 500
_SECONDS = re.compile(r"[0-9]{1,9}")


def is_worth_repeating(response: "Response") -> bool:
    """Tell whether the same request may be answered better in a moment."""
    return response.status_code in _AGAIN or response.status_code >= _SERVER_ERRORS


def retry_after_s(text: str) -> float:
    """Return how long a `Retry-After` header asks to wait, at most a minute; what is not understood asks for nothing.

    It holds seconds or a date (RFC 9110, 10.2.3).
    """
    text = text.strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), DELAY_LIMIT_S)
    with suppress(ValueError, TypeError, OverflowError, IndexError):
        at = parsedate_to_datetime(text)
        left = at.replace(tzinfo=at.tzinfo or UTC) - datetime.now(UTC)
        return min(max(left.total_seconds(), 0.0), DELAY_LIMIT_S)
    return 0.0


def total_bytes(response: "Response") -> int | None:
    """Return how long the answer says that the whole file is."""
    ranged = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    if response.status_code in {PARTIAL_CONTENT, UNSATISFIABLE_RANGE}:
        return int(ranged["total"]) if ranged and ranged["total"] else None
    length = response.headers.get("Content-Length", "")
    is_plain = response.status_code == _OK and response.headers.get("Content-Encoding", "identity") == "identity"
    return int(length) if is_plain and re.fullmatch(r"\d{1,18}", length) else None


def range_start(response: "Response") -> int | None:
    """Return at which byte of the file a partial answer begins; None when it does not say so."""
    ranged = _CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
    return int(ranged["start"]) if ranged and ranged["start"] else None


def strong_etag(response: "Response") -> str:
    """Return the ETag if it stands for exact bytes, else nothing (RFC 9110, 8.8.3)."""
    etag: str = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else ""  # a weak one says nothing about bytes


def require_file(response: "Response", name: str) -> None:
    """Raise where no file came, or a page for a file that is none, as the login pages of networks do.

    Raises:
        RemoteError: that is so; the host is named.
    """
    if response.status_code not in {_OK, PARTIAL_CONTENT}:
        host = printable(urlsplit(response.url).hostname)
        raise RemoteError("cannot read", name, f"{host} answered {response.status_code}")
    if name.endswith(_BINARY_SUFFIXES) and "text/html" in response.headers.get("Content-Type", "").lower():
        raise _page_error(response, name)


def require_no_page(head: bytes, response: "Response", name: str) -> None:
    """Raise where `head`, the first bytes of the body, begins a page, and the file `name` is none.

    Raises:
        RemoteError: it does; the host is named.
    """
    if name.endswith(_BINARY_SUFFIXES) and head.lstrip()[:1] == b"<":
        raise _page_error(response, name)


def _page_error(response: "Response", name: str) -> RemoteError:
    host, kind = printable(urlsplit(response.url).hostname), "a GGUF" if name.endswith(".gguf") else "the file"
    return RemoteError(
        "cannot download", name, f"what {host} sent is not {kind}, but a web page",
        hint="log in to the network if it wants that, and look at HF_ENDPOINT and proxies",
    )  # fmt: skip
