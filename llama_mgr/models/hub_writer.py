"""The door through which a repository on the hub is written: made, given files, given a commit.

huggingface_hub builds the requests, as for listings: it asks how each file is to be stored, walks through git's LFS
protocol (one PUT, or many parts) and makes the commit. The requests travel over our wire, so that one set of rules
covers tokens, addresses, certificates, proxies and retries, and files are read piece by piece. hf-xet is off: its
protocol could not be tried against any server, and the hub takes LFS from everybody ("Backward Compatibility with LFS"
of its documentation). Files are stored one by one: the threads that the library has for more keep Ctrl-C waiting.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from llama_mgr.errors import BadInputError, ConflictError, LlamaMgrError, RemoteDeniedError, RemoteError
from llama_mgr.models.hub import Hub
from llama_mgr.models.hub_refusal import Refusal, Wanted, error_for
from llama_mgr.models.model_card import CARD_FILE
from llama_mgr.models.upload_wire import Content, UploadWire
from llama_mgr.text import printable

if TYPE_CHECKING:
    from typing import TypeAlias

    from huggingface_hub import CommitOperationAdd, HfApi

    Addition: TypeAlias = CommitOperationAdd  # for those who may not import the library

_SMALL_LIMIT_BYTES = 5 * 1024 * 1024  # of what the hub keeps in git itself: `_local_oid` of _commit_api.py there
_WORDS_SHOWN = 300
_BATCH_TROUBLE = "LFS batch API returned errors:"
_NO_SENSE = "the hub's answer makes no sense"


class HubWriter:
    """Writes one repository.

    Args:
        hub: where it is, with the user's login.
        repo: its name, `owner/name`.
    """

    def __init__(self, hub: Hub, repo: str) -> None:
        self._hub, self._repo = hub, repo
        self.wanted = Wanted(hub.endpoint, hub.login, repo)

    def create(self, *, private: bool) -> None:
        """Make the repository; one that is there already stays as it is.

        Raises:
            RemoteDeniedError, RemoteError: the hub refuses, or cannot be reached.
        """
        with self._library(f"create {self._repo}") as api:
            api.create_repo(self._repo, private=private, exist_ok=True)

    def is_private(self) -> bool:
        """Tell whether only some can see the repository. Raises as `create`."""
        with self._library(f"look at {self._repo}") as api:
            return api.model_info(self._repo, expand=["private"]).private is True

    def require_good(self, card: bytes) -> None:
        """Raise where the hub would not take `card`; with a commit, it says so only after files were sent.

        Raises:
            BadInputError: its front matter is not what the hub wants.
            RemoteDeniedError, RemoteError: as `create`.
        """
        from huggingface_hub import get_session  # noqa: PLC0415 (heavy; this is a door)

        with self._library("check the model card"):
            document = {"content": card.decode(), "repoType": "model"}
            answer = get_session().post(f"{self._hub.endpoint}/api/validate-yaml", json=document)
            found = answer.json().get("errors", []) if answer.status_code == HTTPStatus.BAD_REQUEST else []
            words = "; ".join(str(one["message"]) for one in found)
        if words:
            why = f"the hub does not accept its front matter: {printable(words, _WORDS_SHOWN)}"
            raise BadInputError("cannot use the model card for", self._repo, why)

    def addition(self, name: str, content: Content) -> "Addition":
        """Read `content` once, for its sha256, and return what is to be done with it; nothing is sent.

        Raises:
            BadInputError: no file of a repository can have the name.
            StorageError: the file cannot be read.
        """
        from huggingface_hub import CommitOperationAdd  # noqa: PLC0415 (heavy; this is a door)

        try:
            return CommitOperationAdd(name, content)
        except ValueError as error:
            raise BadInputError("cannot upload as", name, printable(error)) from error

    def store(self, addition: "Addition", content: Content) -> None:
        """Have the content stored at the hub, or in `addition` where the hub wants it in the commit itself.

        Nothing is sent of what the hub has.

        Raises:
            HashMismatchError: somebody wrote to the file meanwhile.
            RefusedError: the place that the hub names for it is not safe.
            RemoteDeniedError, RemoteError: as `create`; or the hub wants a large file in the commit.
        """
        name = addition.path_in_repo
        with self._library(f"upload {name}", content) as api:
            api.preupload_lfs_files(self._repo, [addition], num_threads=1)
        if addition.path_or_fileobj is not content:
            return
        if content.size_bytes > _SMALL_LIMIT_BYTES:
            why = "the hub does not store it as a large file"
            hint = "look whether a .gitignore or .gitattributes of the repository names it"
            raise RemoteError("cannot upload", name, why, hint=hint)
        content.seek(0)
        addition.path_or_fileobj = content.read()

    def commit(self, additions: "Sequence[Addition]", card: bytes | None, message: str, parent: str) -> str:
        """Make one commit of all on top of the commit `parent`, and return it.

        Raises:
            ConflictError: `parent` is not the newest one any more.
            RemoteDeniedError, RemoteError: as `create`.
        """
        from huggingface_hub import CommitOperationAdd  # noqa: PLC0415 (heavy; this is a door)

        operations = [*additions, *([] if card is None else [CommitOperationAdd(CARD_FILE, card)])]
        with self._library(f"upload to {self._repo}") as api:
            return api.create_commit(
                self._repo, operations, commit_message=message, parent_commit=parent, num_threads=1
            ).oid

    @contextmanager
    def _library(self, purpose: str, content: Content | None = None) -> "Iterator[HfApi]":
        with closing(self._hub.client.session(led_from=self._hub.endpoint)) as session:
            wire = UploadWire(self._hub, session, purpose, content)
            with self._hub.library(self.wanted, wire) as api, _refusals(self.wanted), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it shows what the hub thinks of a card
                yield api


@contextmanager
def _refusals(wanted: Wanted) -> Iterator[None]:
    """Say what it means that the hub does not take something; `Hub.library` makes sense of all that goes on to it."""
    from huggingface_hub.errors import HfHubHTTPError  # noqa: PLC0415 (heavy; this is a door)

    try:
        yield
    except HfHubHTTPError as error:
        raise _error_for(error, wanted) from error
    except RuntimeError as error:  # the library's, around all that goes wrong with a file
        cause = error.__cause__
        if isinstance(cause, LlamaMgrError):
            raise cause from cause.__cause__
        if isinstance(cause, HfHubHTTPError):
            raise _error_for(cause, wanted) from error
        raise ValueError(_NO_SENSE) from error
    except NameError as error:  # the library's, on an answer about a file that nobody asked about
        raise ValueError(_NO_SENSE) from error
    except ValueError as error:
        if not str(error).startswith(_BATCH_TROUBLE):
            raise
        words = printable(str(error).removeprefix(_BATCH_TROUBLE).strip(), _WORDS_SHOWN)
        raise RemoteError("cannot upload to", wanted.repo, f"the hub does not take a file: {words}") from error


def _error_for(error: Any, wanted: Wanted) -> LlamaMgrError:  # noqa: ANN401 (the library's type, imported late)
    """Return the error that a refusal of the hub is."""
    status, words = error.response.status_code, printable(error.server_message or "", _WORDS_SHOWN)
    said = f": {words}" if words else ""
    if status == HTTPStatus.UNAUTHORIZED:
        why = f"the hub does not accept the token{said}"
        return RemoteDeniedError("cannot upload to", wanted.repo, why, hint=wanted.login_words)
    if status == HTTPStatus.FORBIDDEN:
        hint = f"a token that may write is made at {wanted.endpoint}/settings/tokens; {wanted.login_words}"
        return RemoteDeniedError("cannot upload to", wanted.repo, f"the hub forbids it{said}", hint=hint)
    if status in {HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED}:
        hint = "run the same command again: what was sent is not sent again"
        return ConflictError("cannot upload to", wanted.repo, "somebody else changed it meanwhile", hint=hint)
    code = error.response.headers.get("X-Error-Code", "")
    if code or status == HTTPStatus.NOT_FOUND:
        return error_for(Refusal(status, code, words), wanted)
    return RemoteError("cannot upload to", wanted.repo, f"the hub answered {status}{said}")
