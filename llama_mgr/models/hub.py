"""The door to the Hugging Face hub: repositories at a fixed commit, their files checked against their hashes, search.

The library knows the hub's interface; the wire is ours. Its downloader does not go on after a kill and does not check
sha256 while it writes, and its client waits as long as a server tells it to, follows every link and reads answers of
any length. hf-xet would be a second transfer, and is not used: its protocol could not be tried against any server.
"""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit, urlunsplit

from llama_mgr import __version__
from llama_mgr.arrival import Download
from llama_mgr.download import HttpClient, Patience
from llama_mgr.errors import BadInputError, BadReferenceError, HashMismatchError, RemoteDeniedError, RemoteError
from llama_mgr.http_session import answered
from llama_mgr.models.hub_login import (
    OFFLINE_VARIABLE,
    TOKEN_VARIABLE,
    Login,
    endpoint_from,
    is_offline,
    is_private_way,
    login_from,
)
from llama_mgr.models.hub_refusal import Refusal, Wanted, error_for
from llama_mgr.models.hub_repo import HubFile as HubFile  # noqa: PLC0414 (what the hub gives is spoken of everywhere)
from llama_mgr.models.hub_repo import HubModel as HubModel  # noqa: PLC0414
from llama_mgr.models.hub_repo import HubRepo as HubRepo  # noqa: PLC0414
from llama_mgr.models.hub_repo import commit_of, model_of, repository_of
from llama_mgr.partial import Partial
from llama_mgr.redirects import origin_of
from llama_mgr.report import Progress, Reporter
from llama_mgr.text import printable

if TYPE_CHECKING:
    import httpx2
    from httpx2 import Request as Request  # noqa: PLC0414 (for wires elsewhere, which may not import httpx2)
    from huggingface_hub import HfApi

Order = Literal["downloads", "updated", "likes"]
_ORDERS: Mapping[Order, Literal["downloads", "last_modified", "likes"]] = {
    "downloads": "downloads", "updated": "last_modified", "likes": "likes",
}  # fmt: skip
_MEBIBYTE = 1024 * 1024
_PAGE_LIMIT_BYTES = 2 * _MEBIBYTE  # 1,000 entries, as many as a page has, take a quarter of it
_LISTING_LIMIT_BYTES = 16 * _MEBIBYTE
_SEARCH_LIMIT_BYTES = 8 * _MEBIBYTE
_PAGES_LIMIT = 100
_PARTS_LIMIT = 100_000  # an empty object takes thirty times as much memory as it has bytes
_TIME_LIMIT_S = 30.0
_HITS_LIMIT = 1000
_FACTS: Any = ["sha", "gated", "tags", "downloads", "lastModified"]
_HIT_FACTS: Any = ["downloads", "likes", "lastModified", "gated", "siblings"]
_NO_HUB = "what answered is not a Hugging Face hub, or speaks another language"
_library_lock = threading.Lock()  # the library has one client for the whole process


class Hub:
    """The hub that HF_ENDPOINT or the setting names, or the public one, with the user's login.

    Args:
        environ: where HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE, the token file, certificates and proxies are looked up.
        reporter: hears of retries and shows downloads.
        patience: how long to try.
        endpoint: the hub's address, if HF_ENDPOINT does not name one.
        token_file: where a token lies, if nothing else has one.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        reporter: Reporter,
        patience: Patience | None = None,
        *,
        endpoint: str = "",
        token_file: Path | None = None,
    ) -> None:
        self._environ = environ
        self._reporter = reporter
        self.client = HttpClient(environ, reporter, patience, use_netrc=False)
        self._setting = endpoint
        self._token_file = token_file
        self._has_warned = False

    @cached_property
    def endpoint(self) -> str:
        """The address of the hub, without a slash at its end."""
        return endpoint_from(self._environ, self._setting)

    @cached_property
    def login(self) -> Login | None:
        """The user's login, which goes to the endpoint only."""
        return login_from(self._environ, self._token_file)

    # -- listings ------------------------------------------------------------------------------------------------------

    def repository(self, repo: str, revision: str | None = None) -> HubRepo:
        """Return the repository `owner/name` at the commit that `revision` (main) names now.

        Raises:
            UnknownRepositoryError: the hub has no such repository or revision.
            RemoteDeniedError: it wants a login, or refuses this one.
            RefusedError: a file name is not safe, or two of them are one.
            RemoteError: the hub cannot be reached, makes no sense, or lists more than a limit.
        """
        wire = Wire(self, f"list {repo}", _PAGE_LIMIT_BYTES)
        with self.library(Wanted(self.endpoint, self.login, repo, revision), wire) as api:
            info = api.model_info(repo, revision=revision, expand=_FACTS)
            entries = api.list_repo_tree(repo, revision=commit_of(info), recursive=True)
            return repository_of(repo, info, entries)

    def search(self, words: str, limit: int, page: int = 1, order: Order = "downloads") -> list[HubModel]:
        """Return at most `limit` repositories that do list GGUF files, the best first: page number `page` of them.

        The hub's own tag is set by whoever uploads; hits without a GGUF file are left out.

        Raises:
            RemoteDeniedError: the hub refuses the token.
            RemoteError: the hub cannot be reached, or makes no sense.
        """
        last = limit * page
        asked = last + limit // 2
        wanted = Wanted(self.endpoint, self.login, "the list of models")
        with self.library(wanted, Wire(self, "search the hub", _SEARCH_LIMIT_BYTES)) as api:
            while True:
                found = list(
                    api.list_models(
                        filter="gguf", search=words or None, sort=_ORDERS[order], limit=asked, expand=_HIT_FACTS
                    )
                )
                hits = [hit for hit in map(model_of, found) if hit.ggufs]
                if len(hits) >= last or len(found) < asked or asked >= _HITS_LIMIT:
                    return hits[last - limit : last]
                asked = min(2 * asked, _HITS_LIMIT)

    # -- files ---------------------------------------------------------------------------------------------------------

    def fill(self, file: HubFile, partial: Partial, progress: Progress) -> int:
        """Have the content of `file` in `partial`; return how many bytes came. On disk: as `HttpClient.fill`.

        Raises:
            RemoteError: the hub cannot be reached, or HF_HUB_OFFLINE is set.
            RemoteDeniedError: the hub wants a login.
            UnknownRepositoryError: the file is gone.
            HashMismatchError: something else arrived, twice.
            StorageError: the disk is full or failing.
        """
        with self._refusals(file):
            return self.client.fill(partial, self._download(file), progress)

    def fetch_small(self, file: HubFile, limit_bytes: int) -> bytes:
        """Return the content of `file`, or its first `limit_bytes`; all of it is checked, a beginning cannot be.

        Raises:
            RemoteError, RemoteDeniedError, UnknownRepositoryError: as `fill`.
            HashMismatchError: it is not what the repository lists.
        """
        download = self._download(file)
        with self._refusals(file):
            content = self.client.read_part(download, 0, min(limit_bytes, file.size_bytes)) if file.size_bytes else b""
        if file.size_bytes <= limit_bytes and not download.matches(content):
            raise HashMismatchError("cannot use", file.name, "its hash is not the one that the repository lists")
        return content

    def source(self, file: HubFile) -> "HubSource":
        """Return `file` as a source of which parts can be read without fetching it."""
        return HubSource(self, file)

    def read_part(self, file: HubFile, offset: int, length: int) -> bytes:
        """Return `length` bytes of `file`, fewer only at its end; they cannot be checked. Raised: as `fill`."""
        with self._refusals(file):
            return self.client.read_part(self._download(file), offset, length)

    def _download(self, file: HubFile) -> Download:
        self._require_online(file.source)
        _prepare_library()
        from huggingface_hub import hf_hub_url  # noqa: PLC0415 (heavy; this is its door)

        url = hf_hub_url(file.repo, file.name, revision=file.revision, endpoint=self.endpoint)
        return Download(file.name, url, file.sha256, file.size_bytes, self.headers(url), file.git_sha1)

    def headers(self, url: str) -> dict[str, str]:
        """Return the secret headers for `url`: the login, where it belongs."""
        if self.login is None or origin_of(url) != origin_of(self.endpoint):
            return {}
        if is_private_way(url):
            return {"Authorization": f"Bearer {self.login.token}"}
        if not self._has_warned:
            host = printable(urlsplit(url).hostname)
            self._reporter.warn(f"{TOKEN_VARIABLE} is not sent, because {host} is reached without encryption")
            self._has_warned = True
        return {}

    def _require_online(self, subject: str) -> None:
        if is_offline(self._environ):
            why, hint = f"{OFFLINE_VARIABLE} is set", f"unset {OFFLINE_VARIABLE}"
            raise RemoteError("cannot ask the hub for", subject, why, hint=hint)

    @contextmanager
    def _refusals(self, file: HubFile) -> Iterator[None]:
        """Say what a refusal of the hub means; one of its storage means that the transfer did not work."""
        try:
            yield
        except (RemoteError, RemoteDeniedError) as error:
            response = answered(error)
            if response is None:
                raise
            if origin_of(response.url) != origin_of(self.endpoint):
                host = printable(urlsplit(response.url).hostname)
                why = f"{host}, where it is stored, answered {response.status_code}"
                raise RemoteError("cannot download", file.name, why, hint="try again in a moment") from error
            words = (response.headers.get(name, "") for name in ("X-Error-Code", "X-Error-Message"))
            refusal = Refusal(response.status_code, *words)
            wanted = Wanted(self.endpoint, self.login, file.repo, file.revision, file.name)
            raise error_for(refusal, wanted) from error

    # -- the library ---------------------------------------------------------------------------------------------------

    @contextmanager
    def library(self, wanted: Wanted, wire: "Wire") -> "Iterator[HfApi]":
        """Lend the library for one purpose, with its requests going over `wire`, and its errors made ours.

        Nobody else in this process has it meanwhile.

        Raises:
            RemoteError: HF_HUB_OFFLINE is set, or what answers makes no sense.
            BadReferenceError: the name has not the form of a repository's.
            RemoteDeniedError, UnknownRepositoryError: the hub's refusals: see `error_for`.
        """
        self._require_online(wanted.repo)
        with _library_lock:
            _prepare_library()
            import httpx2  # noqa: PLC0415 (comes with the library)
            from huggingface_hub import HfApi, close_session, errors, set_client_factory  # noqa: PLC0415 (heavy; its door)

            set_client_factory(wire.new_client)
            try:
                yield HfApi(endpoint=self.endpoint, token=False, library_name="llama-mgr", library_version=__version__)
            except errors.HfHubHTTPError as error:
                names = ("X-Error-Code", "X-Error-Message")
                words = (error.response.headers.get(name, "") for name in names)
                raise error_for(Refusal(error.response.status_code, *words), wanted) from error
            except errors.HFValidationError as error:
                why = "the form is owner/name, of letters, digits, '-', '_' and '.'"
                raise BadReferenceError("cannot ask the hub for", wanted.repo, why) from error
            except (
                httpx2.HTTPError, httpx2.InvalidURL, ValueError, KeyError, TypeError, AttributeError, RecursionError,
            ) as error:  # fmt: skip
                host = urlsplit(self.endpoint).hostname
                hint = "look at HF_ENDPOINT and hub.endpoint, or at the network's login page"
                raise RemoteError(f"cannot {printable(wire.purpose)} at", host, _NO_HUB, hint=hint) from error
            finally:
                close_session()


class HubSource:
    """A file on the hub, of which parts are read by HTTP ranges; see `gguf_source.Source`."""

    def __init__(self, hub: Hub, file: HubFile) -> None:
        self._hub, self._file = hub, file

    @property
    def size_bytes(self) -> int:
        """How long the repository says that it is."""
        return self._file.size_bytes

    def read(self, offset: int, length: int) -> bytes:
        """Return the `length` bytes at `offset`, fewer only at the end. Raised: as `Hub.fill`."""
        length = min(length, self.size_bytes - offset)
        return self._hub.read_part(self._file, offset, length) if length > 0 else b""


class Wire:
    """How the library's requests travel: by our client, to the endpoint only, within limits.

    Args:
        hub: whose client and login are used.
        purpose: what it is for, as a verb: `list owner/repo`.
        page_limit_bytes: a longer answer is an error.
    """

    def __init__(self, hub: Hub, purpose: str, page_limit_bytes: int = _PAGE_LIMIT_BYTES) -> None:
        self.hub, self.purpose = hub, purpose
        self._page_limit_bytes = page_limit_bytes
        self._left_bytes = max(_LISTING_LIMIT_BYTES, page_limit_bytes)
        self._left_s, self._pages = _TIME_LIMIT_S, 0

    def new_client(self) -> "httpx2.Client":
        """Return the client that the library uses instead of its own."""
        import httpx2  # noqa: PLC0415 (comes with the library)

        wire = self

        class Transport(httpx2.BaseTransport):
            def handle_request(self, request: httpx2.Request) -> httpx2.Response:
                status, headers, body = wire.answer(request)
                return httpx2.Response(status, headers=headers, content=body)

        return httpx2.Client(transport=Transport(), trust_env=False)

    def answer(self, request: "Request") -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body of the answer to a GET; the library's own headers are left out."""
        self._pages += 1
        if self._pages > _PAGES_LIMIT:
            raise self._beyond(f"the answer has more than {_PAGES_LIMIT} pages")
        url = _at_endpoint(str(request.url), self.hub.endpoint)
        headers = {"Accept": "application/json", **self.hub.headers(url)}
        reply = self.hub.client.read(self.purpose, url, headers, self._page_limit_bytes, time_limit_s=self._left_s)
        self._left_bytes -= len(reply.body)
        self._left_s -= reply.took_s
        if self._left_bytes < 0:
            raise self._beyond(f"its pages are longer than {_LISTING_LIMIT_BYTES // _MEBIBYTE} MiB")
        self.require_few_parts(reply.body)
        if self._left_s < 0:
            raise self._beyond(f"its pages take longer than {_TIME_LIMIT_S:.0f} s")
        kept = ("Content-Type", "Link", "X-Error-Code", "X-Error-Message")
        return reply.status, {name: value for name in kept if (value := reply.header(name))}, reply.body

    def require_few_parts(self, body: bytes) -> None:
        """Raise where a JSON document would take far more memory than it has bytes.

        Raises:
            RemoteError: it would.
        """
        if body.count(b"{") + body.count(b"[") > _PARTS_LIMIT:
            raise self._beyond(f"a page has more than {_PARTS_LIMIT:,} parts")

    def _beyond(self, why: str) -> RemoteError:
        return RemoteError(f"cannot {printable(self.purpose)}", None, f"{why}, which is the limit")


def _at_endpoint(url: str, endpoint: str) -> str:
    """Return `url` at the endpoint: the next page is read where the first one was, whatever host a `Link` names."""
    if origin_of(url) == origin_of(endpoint):
        return url
    ours, parts = urlsplit(endpoint), urlsplit(url)
    path = parts.path if parts.path.startswith(f"{ours.path}/") else ours.path + parts.path
    return urlunsplit((ours.scheme, ours.netloc, path, parts.query, ""))


def _prepare_library() -> None:
    """Import the library so that nothing of the environment that it reads by itself has a say here.

    Its telemetry asks another address for a list of programs, and tells the hub which of them it runs in; its log
    writes to stderr what servers send; it looks for a token by itself, draws bars, and would send files by hf-xet.

    Raises:
        BadInputError: a variable of the library has a value on which it breaks.
    """
    import logging  # noqa: PLC0415 (only the library logs)

    try:
        from huggingface_hub import constants  # noqa: PLC0415 (heavy; this is its door)

        constants.HF_HUB_DISABLE_TELEMETRY = True
        constants.HF_HUB_DISABLE_IMPLICIT_TOKEN = True
        constants.HF_HUB_DISABLE_XET = True
        constants.HF_HUB_DISABLE_PROGRESS_BARS = True  # before anything else is imported, which copies it
        from huggingface_hub.utils import logging as library_logging  # noqa: PLC0415
    except ValueError as error:
        why = f"{printable(error)}; one of the HF_HUB_* variables is not the number that it must be"
        raise BadInputError("cannot use the environment", None, why, hint="env | grep HF_HUB") from error
    library_logging.set_verbosity(logging.CRITICAL)
