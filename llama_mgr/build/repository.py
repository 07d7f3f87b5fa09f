"""Repository URLs: which ones we talk to, and the name of the mirror that each gets."""

import hashlib
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from llama_mgr.errors import BadUrlError, RefusedError

UPSTREAM_URL = "https://github.com/ggml-org/llama.cpp"
ALLOWED_PROTOCOLS = "https://, ssh://, git@host:path and file://"
_LIMIT = 2000
_REFUSAL = "cannot use the repository"
_SCHEME = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)://")
_SCP_FORM = re.compile(r"(?P<user>[A-Za-z0-9_][A-Za-z0-9._-]*)@(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*):(?P<path>[^:-].*)")
_USER_PART = re.compile(r"(?<=://)[^/?#]*@")


@dataclass(frozen=True)
class Repository:
    """A git repository that may be fetched from."""

    url: str
    protocol: str
    """`https`, `http`, `ssh` or `file`."""

    @property
    def is_upstream(self) -> bool:
        """Whether this is llama.cpp's own repository."""
        return _key(self.url) == _key(UPSTREAM_URL)

    @property
    def name(self) -> str:
        """The name of its mirror: `llama.cpp` for upstream, `<last part>-<hash of the URL>` for all others."""
        last = re.sub(r"[^a-z0-9._-]+", "-", _key(self.url).rpartition("/")[2].lower()).strip("-.")[:40]
        if self.is_upstream:
            return last
        return f"{last or 'repository'}-{hashlib.sha256(_key(self.url).encode()).hexdigest()[:8]}"


def repository(url: str, *, allow_http: bool = False, refusal: str = _REFUSAL) -> Repository:
    """Return the repository at `url`, if it is of a kind that we fetch from; nothing is contacted.

    Args:
        url: what the user wrote.
        allow_http: whether plain http will do.
        refusal: how the sentence about a URL that cannot be used begins.

    Raises:
        RefusedError: another protocol than https, ssh or file (git's `ext::` runs commands), or plain http.
        BadUrlError: it is malformed or carries credentials, which are not repeated in the message.
    """
    shown = without_credentials(url)
    if scp := _SCP_FORM.fullmatch(url):
        _check_characters(scp["path"], shown, refusal)
        return Repository(url, "ssh")
    scheme = _SCHEME.match(url)
    if not scheme or scheme["scheme"].lower() not in {"https", "http", "ssh", "file"}:
        raise RefusedError(
            refusal, shown, f"the allowed protocols are {ALLOWED_PROTOCOLS}",
            hint=f"for a local repository: --repo-url file://{shown}" if url.startswith("/") else None,
        )  # fmt: skip
    protocol = scheme["scheme"].lower()
    if protocol == "http" and not allow_http:
        raise RefusedError(
            refusal, shown, "plain http can be changed on its way; only https is used",
            hint="pass --allow-http if you trust the network",
        )  # fmt: skip
    _check_characters(url, shown, refusal)
    _check_parts(url, protocol, shown, refusal)
    return Repository(protocol + url[len(protocol) :], protocol)


def without_credentials(url: str) -> str:
    """Return `url` with user name, password, query and fragment removed, fit for messages."""
    return re.split(r"[?#]", _USER_PART.sub("", url), maxsplit=1)[0]


def _check_characters(text: str, shown: str, refusal: str) -> None:
    if len(text) > _LIMIT:
        raise BadUrlError(refusal, shown, f"it is longer than the limit of {_LIMIT} characters")
    if re.search(r"[\x00-\x20\x7f]", text):
        raise BadUrlError(refusal, shown, "it holds spaces or control characters")


def _check_parts(url: str, protocol: str, shown: str, refusal: str) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise BadUrlError(refusal, shown, f"not a URL ({error})") from error
    if parts.password is not None or (parts.username is not None and protocol != "ssh"):
        raise BadUrlError(
            refusal, shown, "no credentials in URLs",
            hint="use a git credential helper, or ssh://",
        )  # fmt: skip
    if parts.query or parts.fragment:
        raise BadUrlError(refusal, shown, "a URL without '?' and '#' is needed")
    if protocol == "file":
        if host or not parts.path.startswith("/") or parts.path == "/":
            raise BadUrlError(refusal, shown, "file:// is followed by an absolute path")
    elif not host or host.startswith("-") or (parts.username or "").startswith("-") or parts.path in {"", "/"}:
        raise BadUrlError(refusal, shown, f"the form {protocol}://HOST/PATH is needed")


def _key(url: str) -> str:
    scheme = _SCHEME.match(url)
    if not scheme:
        return url.rstrip("/").removesuffix(".git")
    host, slash, path = url[scheme.end() :].partition("/")
    return f"{scheme['scheme'].lower()}://{host.lower()}{slash}{path}".rstrip("/").removesuffix(".git")
