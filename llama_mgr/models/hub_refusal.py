"""What it means when the hub says no, in one sentence, and what to do about it."""

from dataclasses import dataclass
from http import HTTPStatus

from llama_mgr.errors import LlamaMgrError, RemoteDeniedError, RemoteError, UnknownRepositoryError
from llama_mgr.models.hub_login import TOKEN_VARIABLE, Login
from llama_mgr.text import printable

_DISABLED = "Access to this resource is disabled."
_NOBODY = "Invalid credentials in Authorization header"


@dataclass(frozen=True)
class Refusal:
    """An answer of the hub: its status, and its headers X-Error-Code and X-Error-Message."""

    status: int
    code: str = ""
    message: str = ""


@dataclass(frozen=True)
class Wanted:
    """What was asked for: a repository, a revision or a file of it, at a hub, with or without a login."""

    endpoint: str
    login: Login | None
    repo: str
    revision: str | None = None
    file: str | None = None

    @property
    def page_url(self) -> str:
        """Where people look at the repository."""
        return f"{self.endpoint}/{self.repo}"

    @property
    def login_words(self) -> str:
        """What to do so that the hub knows who asks; or where the token came from."""
        if self.login:
            return f"check the token, which comes from {printable(self.login.place)}"
        return f"log in: set {TOKEN_VARIABLE}, or run `hf auth login`, or name a token file in hub.token-file"


def error_for(refusal: Refusal, wanted: Wanted) -> LlamaMgrError:
    """Return the error that `refusal` is."""
    if refusal.code == "RevisionNotFound":
        subject = f"{wanted.repo}@{wanted.revision}" if wanted.revision else wanted.repo
        why = "the repository has no such branch, tag or commit"
        return UnknownRepositoryError("cannot find", subject, why, hint=f"see {wanted.page_url}/tree/main")
    if refusal.code == "EntryNotFound":
        subject = f"{wanted.repo}/{wanted.file}" if wanted.file else wanted.repo
        return UnknownRepositoryError("cannot find", subject, "the repository has no such file")
    if refusal.code == "GatedRepo":
        return _gated(wanted)
    if refusal.message == _DISABLED:
        return RemoteDeniedError("cannot read", wanted.repo, "the hub has disabled it")
    return _unnamed(refusal, wanted)


def _unnamed(refusal: Refusal, wanted: Wanted) -> LlamaMgrError:
    """Return the error for an answer of which only the status says something."""
    if refusal.status == HTTPStatus.UNAUTHORIZED and wanted.login:
        why = "the hub does not accept the token" if refusal.message == _NOBODY else "the hub refuses this token"
        return RemoteDeniedError("cannot read", wanted.repo, why, hint=wanted.login_words)
    # Without a login, the public hub answers 401 for what does not exist, so as not to tell what is private.
    if refusal.code == "RepoNotFound" or refusal.status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.NOT_FOUND}:
        why = "the hub has no such repository, or it is private"
        return UnknownRepositoryError("cannot find", wanted.repo, why, hint=_unknown_hint(wanted))
    if refusal.status == HTTPStatus.FORBIDDEN:
        return RemoteDeniedError("cannot read", wanted.repo, "the hub forbids it", hint=wanted.login_words)
    return RemoteError("cannot read", wanted.repo, f"the hub answered {refusal.status}")


def _gated(wanted: Wanted) -> RemoteDeniedError:
    why = "its owner gives it only to those who accepted the terms" if wanted.login is None else (
        "its owner has not given it to you: the terms were not accepted, or not yet granted"
    )  # fmt: skip
    hint = f"accept the terms at {wanted.page_url}, then {wanted.login_words}"
    return RemoteDeniedError("cannot read", wanted.repo, why, hint=hint)


def _unknown_hint(wanted: Wanted) -> str:
    if wanted.login:
        return f"check the name with `llama-mgr search`; the token comes from {printable(wanted.login.place)}"
    return f"check the name with `llama-mgr search`; if it is private, {wanted.login_words}"
