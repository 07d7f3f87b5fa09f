"""What a user can type to mean a model, and what may become a path of what others wrote.

The form alone decides what a text is; nothing looks at the disk. In this order: the prefix `f:`, a URL, the prefixes
`p:`, `hf:` and `h:`, a path (`/x`, `./x`, `../x`, `~/x`), something with a `/` (a repository on the hub), a bare name.
"""

import re
import shlex
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import unquote, urlsplit

from llama_mgr.errors import BadReferenceError, RefusedError, UnknownModelError
from llama_mgr.models.repo_path import checked_listing, checked_repo_path
from llama_mgr.names import is_name
from llama_mgr.text import without_secrets

if TYPE_CHECKING:
    from llama_mgr.models.aliases import Aliases

__all__ = [
    "FileRef",
    "HubRef",
    "NameRef",
    "PresetRef",
    "Reference",
    "UrlRef",
    "checked_listing",
    "checked_repo_path",
    "is_revision",
    "parse_hub_reference",
    "parse_reference",
]

HUB_FORM = "owner/name[:quant][@rev] or owner/name/file.gguf[@rev]"
HUB_HOSTS = ("hf.co", "huggingface.co")
LATEST = "latest"
"""The tag by which Ollama means "no tag": it is left out."""
_OTHER_PAGES = frozenset({"datasets", "spaces", "docs", "blog", "collections", "api", "papers"})
_LIMIT_CHARACTERS = 4096
_HUB_PREFIXES = ("hf:", "h:", "hf.co/", "huggingface.co/")
_PATH_STARTS = ("/", "./", "../", "~/")
_PATHS = frozenset({".", "..", "~"})

# As huggingface_hub checks it (utils/_validators.py): 1 to 96 of these for owner and for name, word characters at both
# ends, neither `--` nor `..`, not `.git` at the end.
_REPO_PART = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?")
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# What git check-ref-format allows, less what a URL or a shell would take for something else.
_REVISION = re.compile(r"(?!.*\.\.)(?!.*\.lock(?:/|\Z))[A-Za-z0-9_](?:[A-Za-z0-9._+-]|/(?=[A-Za-z0-9_]))*(?<!\.)")
_REVISION_LIMIT = 255
_FILE_END = re.compile(r".*\.gguf(?=@)", re.DOTALL)
_URL_START = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_NAME = re.compile(r"\w(?:[\w.+ -]{0,126}[\w+])?")


@dataclass(frozen=True)
class HubRef:
    """A repository on the hub, or one quant or file of it."""

    owner: str
    repo: str
    quant: str | None = None
    file: str | None = None
    """A path in the repository that ends in `.gguf`; then `quant` is None."""
    revision: str | None = None

    @property
    def name(self) -> str:
        """`owner/repo`."""
        return f"{self.owner}/{self.repo}"

    def __str__(self) -> str:
        quant = f":{self.quant}" if self.quant else ""
        file = f"/{self.file}" if self.file else ""
        return f"{self.name}{quant}{file}{f'@{self.revision}' if self.revision else ''}"


@dataclass(frozen=True)
class FileRef:
    """A path on this machine, as typed: relative ones stay relative, and `~` stays `~`."""

    path: Path

    def __str__(self) -> str:
        return f"f:{self.path}"


@dataclass(frozen=True)
class PresetRef:
    """A named way of serving."""

    name: str

    def __str__(self) -> str:
        return f"p:{self.name}"


@dataclass(frozen=True)
class NameRef:
    """A bare word: an alias, or a part of the name of a model in the library. It never becomes a path."""

    name: str
    quant: str | None = None
    """What stands after the colon: a quant, or the tag of an alias."""

    def __str__(self) -> str:
        return f"{self.name}:{self.quant}" if self.quant else self.name


@dataclass(frozen=True)
class UrlRef:
    """A `.gguf` file anywhere on the web. Nobody vouches for it, so only `pull` takes one, with its sha256."""

    url: str
    """https, without a login."""

    @property
    def file_name(self) -> str:
        """The last part of the URL's path: the name that the file may have here."""
        return unquote(urlsplit(self.url).path.rpartition("/")[2])

    def __str__(self) -> str:
        return self.url


Reference = HubRef | FileRef | PresetRef | UrlRef | NameRef


def parse_reference(text: str) -> Reference:
    """Return what `text` means by its form.

    Raises:
        BadReferenceError: it has none of the forms.
    """
    if not text.strip():
        raise BadReferenceError("cannot use as a model", text, f"it is empty; the form is {HUB_FORM}")
    if len(text) > _LIMIT_CHARACTERS or "\0" in text:
        raise BadReferenceError(
            "cannot use as a model", text, f"at most {_LIMIT_CHARACTERS} characters are allowed, and no NUL"
        )
    if text.startswith("f:"):
        return FileRef(Path(text[2:])) if len(text) > 2 else _refuse(text)  # noqa: PLR2004
    if _URL_START.match(text):
        return _parsed_url(text)
    if text.startswith("p:"):
        return PresetRef(text[2:]) if is_name(text[2:]) else _refuse(text, "p: stands before the name of a preset")
    if text.lower().startswith(_HUB_PREFIXES):
        prefix = next(one for one in _HUB_PREFIXES if text.lower().startswith(one))
        return _parsed_hub(text, text[len(prefix) :])
    if text.startswith(_PATH_STARTS) or text in _PATHS:
        return FileRef(Path(text))
    return _parsed_hub(text, text) if "/" in text else _parsed_name(text)


def parse_hub_reference(text: str, aliases: "Aliases") -> HubRef | UrlRef:
    """Return what on the hub (or at a URL) `text` means, aliases replaced by what they stand for.

    Raises:
        BadReferenceError: it has another form.
        UnknownModelError: it is a bare name, and no alias.
    """
    try:
        reference = parse_reference(text)
    except BadReferenceError:
        target = aliases.expand(text)  # qwen3:4b:q8_0 has no form of a reference
        if target is None:
            raise
        return target
    if isinstance(reference, HubRef | UrlRef):
        return reference
    if not isinstance(reference, NameRef):
        _refuse(text)
    target = aliases.expand(str(reference))
    if target is None:
        raise UnknownModelError(
            "cannot find the model", text, f"no alias has this name; the form of others is {HUB_FORM}",
            hint=aliases.suggestion(text) or f"llama-mgr search {shlex.quote(reference.name)}",
        )  # fmt: skip
    return target


def _parsed_hub(text: str, words: str) -> HubRef:
    place, at, revision = _split_at_revision(words)
    owner, _, rest = place.partition("/")
    repo, slash, file = rest.partition("/")
    repo, colon, quant = repo.partition(":")
    if slash:
        _require_file(text, file, with_quant=bool(colon))
    if not (_is_repo_part(owner) and _is_repo_part(repo)) or owner.lower() in HUB_HOSTS or repo.endswith(".git"):
        _refuse(text)
    if colon and not _TAG.fullmatch(quant):
        _refuse(text, "a quant such as Q4_K_M must follow the colon")
    if at and not is_revision(revision):
        _refuse(text, "the name of a branch or tag, or a commit, must follow the @")
    return HubRef(owner, repo, _tag(quant), file or None, revision or None)


def _split_at_revision(words: str) -> tuple[str, str, str]:
    """Return what stands before the `@`, the `@`, and the revision. The name of a file may hold an `@`, too."""
    if words.partition("@")[0].count("/") < 2:  # noqa: PLR2004 (owner/name, no file)
        return words.partition("@")
    end = _FILE_END.match(words)
    if end:
        return end[0], "@", words[end.end() + 1 :]
    return (words, "", "") if words.endswith(".gguf") else words.partition("@")


def _require_file(text: str, file: str, *, with_quant: bool) -> None:
    if with_quant:
        _refuse(text, "a quant and a file cannot be named together")
    if not file.endswith(".gguf"):
        _refuse(text, "what follows owner/name/ must be a .gguf file")
    try:
        checked_repo_path(file)
    except RefusedError:
        _refuse(text, "what follows owner/name/ must be the path of a file in the repository")


def _is_repo_part(text: str) -> bool:
    if not _REPO_PART.fullmatch(text):
        return False
    try:
        return checked_repo_path(text) == (text,)
    except RefusedError:
        return False


def is_revision(text: str) -> bool:
    """Tell whether `text` can be a branch, a tag or a commit on the hub."""
    return len(text) <= _REVISION_LIMIT and _REVISION.fullmatch(text) is not None


def _parsed_name(text: str) -> NameRef:
    name, colon, tag = unicodedata.normalize("NFC", text).partition(":")
    if not _NAME.fullmatch(name) or (colon and not _TAG.fullmatch(tag)):
        _refuse(text)
    return NameRef(name, _tag(tag))


def _parsed_url(text: str) -> UrlRef:
    if not text.lower().startswith("https://"):
        _refuse(text, "models are named by references, not URLs; only https:// ones are taken, with --sha256")
    if not (text.isascii() and text.isprintable()) or " " in text or "\\" in text:
        _refuse(text, "a URL has neither spaces nor backslashes, and other characters are percent-encoded")
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        _refuse(text, "it is not a URL")
    if not host or "@" in parts.netloc:
        _refuse(text, "a URL needs a host, and must not hold a user name or a password")
    if host in HUB_HOSTS:
        _refuse(text, "files of the hub are named by references, not URLs", _reference_of_page(unquote(parts.path)))
    reference = UrlRef(text)
    if not _is_file_name(reference.file_name):
        _refuse(text, "the URL must end in the name of a .gguf file")
    return reference


def _is_file_name(text: str) -> bool:
    try:
        return text.endswith(".gguf") and checked_repo_path(text) == (text,)
    except RefusedError:
        return False


def _reference_of_page(path: str) -> str | None:
    """Return the hint for the path of one of the hub's pages: `/owner/repo/blob/main/file.gguf`, or shorter."""
    owner, repo, kind, revision, *file = [*path.strip("/").split("/"), "", "", "", ""]
    if owner in _OTHER_PAGES:
        return None
    is_file = kind in {"blob", "resolve"} and path.endswith(".gguf")
    words = "/".join([owner, repo, *(part for part in file if part and is_file)])
    try:
        reference = _parsed_hub(words, words if revision in {"", "main"} else f"{words}@{revision}")
    except BadReferenceError:
        return None
    return f"write {shlex.quote(str(reference))}"


def _tag(text: str) -> str | None:
    return None if not text or text.lower() == LATEST else text


def _refuse(text: str, why: str = "", hint: str | None = None) -> NoReturn:
    reason = f"{why}; the form is {HUB_FORM}" if why else f"the form is {HUB_FORM}"
    raise BadReferenceError("cannot use as a model", without_secrets(text), reason, hint=hint)
