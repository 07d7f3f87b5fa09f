"""Uploading GGUF files and a model card to a repository on the hub: all of them in one commit, or none."""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from llama_mgr.arrival import Download
from llama_mgr.errors import (
    BadInputError,
    BadReferenceError,
    ConflictError,
    HashMismatchError,
    RefusedError,
    RemoteDeniedError,
    UnknownRepositoryError,
)
from llama_mgr.models.hub import Hub, HubFile, HubRepo
from llama_mgr.models.hub_login import is_private_way
from llama_mgr.models.hub_writer import HubWriter
from llama_mgr.models.model_card import CARD_FILE
from llama_mgr.models.repo_path import checked_listing
from llama_mgr.models.upload_wire import Content
from llama_mgr.report import Reporter
from llama_mgr.store import storage_errors
from llama_mgr.text import printable

if TYPE_CHECKING:
    from llama_mgr.models.hub_writer import Addition

CARD_MARK = "<!-- made by llama-mgr -->"
"""In a model card that is ours, and may be replaced."""
# What plain HTTP carries: up says `HfApi.upload_file`, down `constants.MAX_HTTP_DOWNLOAD_SIZE` of huggingface_hub.
FILE_LIMIT_BYTES = 50 * 1000**3
_CARD_LIMIT_BYTES = 1024 * 1024
_REPO = re.compile(r"[^/]+/[^/]+")


@dataclass(frozen=True)
class UploadFile:
    """A file here, the name that it gets in the repository, and the sha256 that it is known to have."""

    path: Path
    name_in_repo: str
    sha256: str


@dataclass(frozen=True)
class Uploaded:
    """What an upload came to: the repository's page, its commit, and which files had to be sent."""

    url: str
    commit: str
    sent: tuple[str, ...]
    already_there: tuple[str, ...]
    """In the repository, or stored at the hub because somebody sent them before."""
    sent_bytes: int
    """Of files over the network; what had to be sent twice counts twice."""


class Uploader:
    """Uploads to one hub.

    Args:
        hub: where to, with the user's login.
        reporter: hears what happens, and shows how far it is.
    """

    def __init__(self, hub: Hub, reporter: Reporter) -> None:
        self._hub = hub
        self._reporter = reporter

    def upload(self, repo: str, files: Sequence[UploadFile], card: str, *, private: bool, message: str) -> Uploaded:
        """Make `files` and `card` part of the repository `owner/name`, which is made if it is not there.

        On the hub afterwards: one commit with all that was not there. After an error or a kill there is none; what
        arrived whole is stored, and is not sent again by the next call. A README.md without `CARD_MARK` stays.

        Args:
            repo: the repository.
            files: what it shall have; other files of it stay.
            card: its README.md.
            private: whether nobody else shall see it; one that everybody sees is then refused.
            message: the first line of the commit.

        Raises:
            RemoteDeniedError: there is no login, or the hub refuses it.
            RefusedError: names that are not safe together, a public repository, or a place that is not safe.
            BadInputError: a file is too large, or the hub does not accept the card.
            BadReferenceError: `repo` is no name.
            HashMismatchError: a file here is not what it should be, or the hub lists something else afterwards.
            ConflictError: somebody else changed the repository meanwhile.
            RemoteError: the hub cannot be reached, or makes no sense.
            StorageError: a file cannot be read.
        """
        writer = self._writer(repo)
        for file in files:
            _require_sendable(file)
        there = self._repository(repo, writer, private=private)
        _require_apart(there, files)
        missing = [file for file in files if not _is_same(_found(there, file.name_in_repo), file)]
        content = self._wanted_card(there, card.encode())
        if not missing and content is None:
            return _uploaded(writer, there.commit, files, {})
        if content is not None:
            writer.require_good(content)
        sent: dict[str, int] = {}
        additions = [self._stored(writer, file, sent) for file in missing]
        commit = self._commit(writer, there, additions, content, message, files)
        return _uploaded(writer, commit, files, sent)

    # -- before --------------------------------------------------------------------------------------------------------

    def _writer(self, repo: str) -> HubWriter:
        if not _REPO.fullmatch(repo):
            raise BadReferenceError("cannot upload to", repo, "the form is owner/name")
        writer = HubWriter(self._hub, repo)
        if self._hub.login is None:
            why = "the hub takes files only from those whom it knows"
            raise RemoteDeniedError("cannot upload to", repo, why, hint=writer.wanted.login_words)
        if not is_private_way(self._hub.endpoint):
            host = printable(urlsplit(self._hub.endpoint).hostname)
            why = f"the token would go to {host} without encryption"
            raise RemoteDeniedError("cannot upload to", repo, why, hint="use an endpoint with https")
        return writer

    def _repository(self, repo: str, writer: HubWriter, *, private: bool) -> HubRepo:
        """Return the repository as it is now; make it if it is not there."""
        try:
            there = self._hub.repository(repo)
        except UnknownRepositoryError:
            self._reporter.step(f"create the {'private' if private else 'public'} repository {printable(repo)}")
            writer.create(private=private)
            there = self._hub.repository(repo)
        if private and not writer.is_private():
            hint = f"make it private at {writer.wanted.page_url}/settings, or name another one"
            raise RefusedError("cannot upload to", repo, "everybody can see it, and it shall be private", hint=hint)
        return there

    def _wanted_card(self, there: HubRepo, card: bytes) -> bytes | None:
        """Return `card` if it is to be written; None where it is there already, or another one stays."""
        old = _old_card(there)
        if old is None:
            return card
        content = self._hub.fetch_small(old, _CARD_LIMIT_BYTES)
        if old.name != CARD_FILE or CARD_MARK.encode() not in content:
            name = printable(old.name)
            self._reporter.note(f"{printable(there.repo)} has a {name} that llama-mgr did not write; it stays as it is")
            return None
        return card if content != card else None

    # -- sending -------------------------------------------------------------------------------------------------------

    def _stored(self, writer: HubWriter, file: UploadFile, sent: dict[str, int]) -> "Addition":
        """Check the file, store it at the hub, and count in `sent` what went over the network."""
        name = printable(file.name_in_repo)
        with Content(file.path) as content:
            with self._reporter.progress(f"check {name}", content.size_bytes, "bytes") as content.progress:
                addition = writer.addition(file.name_in_repo, content)
            if addition.upload_info.sha256.hex() != file.sha256:
                why, hint = "it is not the file any more that was recorded", "make it again"
                raise HashMismatchError("cannot upload", file.path, why, hint=hint)
            with self._reporter.progress(f"upload {name}", content.size_bytes, "bytes") as content.progress:
                writer.store(addition, content)
                content.progress.update(content.size_bytes, content.size_bytes)
            is_in_commit = bool(addition.path_or_fileobj)
            if content.sent_bytes or is_in_commit:
                sent[file.name_in_repo] = content.sent_bytes or content.size_bytes
        return addition

    def _commit(
        self,
        writer: HubWriter,
        there: HubRepo,
        additions: "list[Addition]",
        card: bytes | None,
        message: str,
        files: Sequence[UploadFile],
    ) -> str:
        """Make the commit, unless somebody else changed the repository; check that it has all, and return it."""
        repo = there.repo
        try:
            commit = writer.commit(additions, card, message, there.commit)
        except ConflictError:
            # The answer to a commit may get lost; then the same commit, sent again, meets itself.
            now = self._hub.repository(repo)
            if _lacking(now, files, card):
                raise
            return now.commit
        lacking = _lacking(self._hub.repository(repo, commit), files, card)
        if lacking:
            why = f"the hub does not list {printable(lacking)} as it was sent; a .gitignore there may name it"
            raise HashMismatchError("cannot trust the commit to", repo, why, hint=f"see {writer.wanted.page_url}")
        return commit


def _uploaded(writer: HubWriter, commit: str, files: Sequence[UploadFile], sent: dict[str, int]) -> Uploaded:
    names = [file.name_in_repo for file in files]
    return Uploaded(
        url=writer.wanted.page_url,
        commit=commit,
        sent=tuple(name for name in names if name in sent),
        already_there=tuple(name for name in names if name not in sent),
        sent_bytes=sum(sent.values()),
    )


# -- files -------------------------------------------------------------------------------------------------------------


def _require_sendable(file: UploadFile) -> None:
    with storage_errors("cannot read", file.path):
        size_bytes = file.path.stat().st_size
    if size_bytes > FILE_LIMIT_BYTES:
        why = (
            f"it has {size_bytes / 1000**3:.1f} GB, and the limit of the hub is {FILE_LIMIT_BYTES // 1000**3} GB a file"
        )
        hint = "split it first: `llama-mgr split MODEL --max-size 40G`"
        raise BadInputError("cannot upload", file.path, why, hint=hint)


def _require_apart(there: HubRepo, files: Sequence[UploadFile]) -> None:
    """Raise where the repository would have names that cannot lie in one directory."""
    new = [file.name_in_repo for file in files]
    old = {file.name for file in there.files} - set(new)
    checked_listing([*old, *new, *([] if _old_card(there) else [CARD_FILE])])


def _old_card(there: HubRepo) -> HubFile | None:
    return next((file for file in there.files if file.name.casefold() == CARD_FILE.casefold()), None)


def _found(there: HubRepo, name: str) -> HubFile | None:
    return next((file for file in there.files if file.name == name), None)


def _is_same(there: HubFile | None, file: UploadFile) -> bool:
    if there is None or there.sha256:
        return there is not None and there.sha256 == file.sha256
    with storage_errors("cannot read", file.path):
        return Download(there.name, "", size_bytes=there.size_bytes, git_sha1=there.git_sha1).is_in(file.path)


def _lacking(now: HubRepo, files: Sequence[UploadFile], card: bytes | None) -> str | None:
    """Return what the repository does not have, or has otherwise; None when it has all."""
    other = (file.name_in_repo for file in files if not _is_same(_found(now, file.name_in_repo), file))
    if card is not None:
        found = _found(now, CARD_FILE)
        blob = hashlib.sha1(b"blob %d\0%b" % (len(card), card)).hexdigest()  # noqa: S324 (git's choice)
        if found is None or found.git_sha1 != blob:
            return CARD_FILE
    return next(other, None)
