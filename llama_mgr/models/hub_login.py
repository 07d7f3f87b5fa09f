"""Which hub is used, and with which token: what the user's environment and settings say about it."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from llama_mgr.errors import BadInputError, NotFoundError, StorageError
from llama_mgr.redirects import is_loopback_host, origin_of
from llama_mgr.store import read_bounded
from llama_mgr.text import without_secrets

PUBLIC_ENDPOINT = "https://huggingface.co"
ENDPOINT_VARIABLE = "HF_ENDPOINT"
TOKEN_VARIABLE = "HF_TOKEN"  # noqa: S105 (the name of a variable)
TOKEN_PATH_VARIABLE = "HF_TOKEN_PATH"  # noqa: S105 (the name of a variable)
OFFLINE_VARIABLE = "HF_HUB_OFFLINE"
_TRUE_WORDS = frozenset({"1", "ON", "YES", "TRUE"})  # huggingface_hub/constants.py
_TOKEN = re.compile(r"[\x21-\x7e]{1,1000}")
_FILE_LIMIT_BYTES = 4096


@dataclass(frozen=True)
class Login:
    """A token, and where it was read: a variable or a file."""

    token: str = field(repr=False)
    place: str


def is_offline(environ: Mapping[str, str]) -> bool:
    """Tell whether the user forbids to ask the hub."""
    return environ.get(OFFLINE_VARIABLE, "").strip().upper() in _TRUE_WORDS


def endpoint_from(environ: Mapping[str, str], setting: str = "") -> str:
    """Return the address of the hub, without a slash at its end: HF_ENDPOINT, else the setting, else the public one.

    Raises:
        BadInputError: HF_ENDPOINT is no http or https URL, or carries a login or a query.
    """
    named = environ.get(ENDPOINT_VARIABLE, "").strip()
    why = endpoint_trouble(named) if named else None
    if why:
        raise BadInputError(f"cannot use {ENDPOINT_VARIABLE}", without_secrets(named), why, hint="unset HF_ENDPOINT")
    return (named or setting.strip() or PUBLIC_ENDPOINT).rstrip("/")


def endpoint_trouble(url: str) -> str | None:
    """Return why `url` cannot be the address of a hub, or None when it can."""
    try:
        parts = urlsplit(url)
        is_address = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        is_address = False
    if not is_address or not url.isascii() or not url.isprintable() or set(url) & set(' \\"<>'):
        return "an http or https URL is needed, such as https://huggingface.co"
    if "@" in parts.netloc:
        return "it must carry no login; tokens are set by HF_TOKEN"
    if parts.query or parts.fragment:
        return "it must have no query"
    return None


def is_private_way(url: str) -> bool:
    """Tell whether nobody on the way to `url` can listen: it is encrypted, or on this machine."""
    scheme, host, _ = origin_of(url)
    return scheme == "https" or is_loopback_host(host)


def login_from(environ: Mapping[str, str], token_file: Path | None = None) -> Login | None:
    """Return the login: HF_TOKEN, else the token file of `hf auth login`, else `token_file`; None without any.

    Raises:
        BadInputError: what is there has not the form of a token.
        NotFoundError: `token_file` is needed, and is not there.
        StorageError: a file cannot be read.
    """
    named = environ.get(TOKEN_VARIABLE, "")
    if named.strip():
        return Login(_checked_token(named, TOKEN_VARIABLE), TOKEN_VARIABLE)
    for path in _usual_files(environ):
        try:
            found = _token_in(path)
        except NotFoundError:
            continue
        except (BadInputError, StorageError) as error:
            if not environ.get(TOKEN_PATH_VARIABLE):
                raise
            hint = f"correct {TOKEN_PATH_VARIABLE}, or unset it"
            raise type(error)(f"cannot use {TOKEN_PATH_VARIABLE}", None, error.message, hint=hint) from error
        if found:
            return found
    return _token_in(token_file) if token_file else None


def _usual_files(environ: Mapping[str, str]) -> Iterator[Path]:
    """Yield where huggingface_hub keeps the token of its login (its constants.py): one place."""
    home = environ.get("HOME", "")
    cache = environ.get("XDG_CACHE_HOME") or (f"{home}/.cache" if home else "")
    hub_home = environ.get("HF_HOME") or (f"{cache}/huggingface" if cache else "")
    named = environ.get(TOKEN_PATH_VARIABLE) or (f"{hub_home}/token" if hub_home else "")
    if named:
        yield Path(_expanded(named, environ))


def _expanded(path: str, environ: Mapping[str, str]) -> str:
    if path.startswith("~/"):
        path = environ.get("HOME", "~") + path[1:]
    return re.sub(r"\$(\w+)|\$\{(\w+)\}", lambda found: environ.get(found[1] or found[2], found[0]), path)


def _token_in(path: Path) -> Login | None:
    text = read_bounded(path, _FILE_LIMIT_BYTES).decode("utf-8", "replace").strip()
    return Login(_checked_token(text, str(path)), str(path)) if text else None


def _checked_token(text: str, place: str) -> str:
    if not _TOKEN.fullmatch(text):
        raise BadInputError(
            "cannot use the token in", place, "it has not the form of a token: letters and digits without spaces",
            hint="make a new one at https://huggingface.co/settings/tokens",
        )  # fmt: skip
    return text
