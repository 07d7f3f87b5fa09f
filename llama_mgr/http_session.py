"""The door of `requests`: sessions with the user's proxies and certificates that follow redirects by our rules.

What is different from `requests`: redirects follow `redirects.py`, secrets stay at the first origin, no cookie is kept,
only the environment that was handed in counts, and an answer that comes byte by byte counts as silence.
"""

import socket
import ssl
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llama_mgr import __version__
from llama_mgr.errors import BadInputError, LlamaMgrError, RemoteDeniedError, RemoteError
from llama_mgr.http_answer import is_worth_repeating, retry_after_s
from llama_mgr.redirects import Reach, Trail, innermost, reach_of, require_within, without_login
from llama_mgr.text import printable

if TYPE_CHECKING:
    import requests
    import requests.adapters
    import urllib3
    from requests import Response as Response  # noqa: PLC0414 (for those who may not import requests)
    from requests import Session as Session  # noqa: PLC0414

_CERTIFICATE_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "PIP_CERT")
_READ_BYTES = 256 * 1024
_SLOWEST_BYTES_PER_S = 1024


class CutError(Exception):
    """A try ended early; another one may go on from there. Never leaves `HttpClient.retrying`."""

    def __init__(self, why: str, wait_s: float = 0.0) -> None:
        super().__init__(why)
        self.wait_s = wait_s


class _Guard:
    """What the next new connection of a session must keep: how far inside its peer may lie."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self.url = ""
        self.limit: Reach | None = None

    def aim(self, first_url: str, url: str) -> None:
        """Check where `url` leads, and remember what its connection must keep.

        Raises:
            RefusedError: it leads too far inside.
        """
        self.url = url
        self.limit = innermost(first_url, url, resolve=not _proxy(url, self.environ))

    def check(self, connected: socket.socket) -> None:
        """Close and raise where a name leads further inside than a moment before; nothing was sent yet."""
        if self.limit is None:
            return
        try:
            require_within(self.limit, [reach_of(str(connected.getpeername()[0]))], self.url)
        except LlamaMgrError:
            connected.close()
            raise


def open_session(environ: Mapping[str, str], *, use_netrc: bool, led_from: str = "") -> "requests.Session":
    """Return a session; the caller closes it.

    Args:
        environ: where proxies and certificates are looked up.
        use_netrc: whether a login from the user's netrc file goes to the first address of a request, as with pip.
        led_from: the address whose answers name those that the session is for, as where to put a file. They must keep
            the rules of redirects from there; a request to another one raises RefusedError, and nothing is sent.

    Raises:
        BadInputError: the file of certificates that `environ` names is not there.
    """
    import requests  # noqa: PLC0415 (heavy; this is its door)

    guard = _Guard(environ)

    class CheckedSession(requests.Session):
        def prepare_request(self, request: requests.Request) -> requests.PreparedRequest:
            if use_netrc and request.url and not request.auth and "@" not in urlsplit(str(request.url)).netloc:
                request.auth = requests.utils.get_netrc_auth(request.url)
            return super().prepare_request(request)

        def send(self, request: requests.PreparedRequest, **kwargs: Any) -> requests.Response:  # noqa: ANN401
            kwargs["proxies"] = _proxies(request.url or "", environ)
            if led_from:
                guard.aim(led_from, Trail(led_from).follow(request.url or ""))
            return super().send(request, **kwargs)

        def resolve_redirects(
            self,
            resp: requests.Response,
            req: requests.PreparedRequest,
            *_: Any,  # noqa: ANN401
            yield_requests: bool = False,
            **kwargs: Any,  # noqa: ANN401
        ) -> Iterator[requests.Response]:
            if not yield_requests:
                yield from _hops(self, guard, resp, req, kwargs)

    session = CheckedSession()
    session.trust_env = False
    session.headers["User-Agent"] = f"llama-mgr/{__version__}"
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
    session.verify = _certificates(environ) or True
    adapter = _guarded_adapter(guard)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session


def _hops(
    session: "requests.Session",
    guard: _Guard,
    response: "requests.Response",
    request: "requests.PreparedRequest",
    sending: dict[str, Any],
) -> "Iterator[requests.Response]":
    """Yield the answers of all the places that `response` leads to, one after the other."""
    trail, headers = Trail(request.url or ""), dict(request.headers)
    try:
        while location := session.get_redirect_target(response):
            response.close()  # its body may be endless, and nobody wants it
            url = trail.follow(location)
            guard.aim(trail.first_url, url)
            hop = request.copy()
            hop.prepare_url(url, None)
            hop.headers.clear()
            hop.headers.update(trail.headers(url, headers))
            response = session.send(hop, **{**sending, "allow_redirects": False})
            yield response
    finally:
        guard.limit = None


def _guarded_adapter(guard: _Guard) -> "requests.adapters.HTTPAdapter":
    """Return an adapter whose own connections, not those of proxies, ask `guard` before anything is sent."""
    from requests.adapters import HTTPAdapter  # noqa: PLC0415 (heavy; this is its door)
    from urllib3 import HTTPConnectionPool, HTTPSConnectionPool  # noqa: PLC0415
    from urllib3.connection import HTTPConnection, HTTPSConnection  # noqa: PLC0415

    class Checked(HTTPConnection):
        def _new_conn(self) -> socket.socket:
            connected: socket.socket = super()._new_conn()
            guard.check(connected)
            return connected

        def getresponse(self) -> "urllib3.HTTPResponse":  # type: ignore[override]
            with _ended_after(self.sock, self.timeout):
                return super().getresponse()

    class CheckedTls(Checked, HTTPSConnection):
        pass

    class Pool(HTTPConnectionPool):
        ConnectionCls = Checked

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = CheckedTls

    class Adapter(HTTPAdapter):
        def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
            super().init_poolmanager(*args, **kwargs)
            self.poolmanager.pool_classes_by_scheme = {"http": Pool, "https": TlsPool}

    return Adapter()


@contextmanager
def _ended_after(connected: socket.socket | None, timeout_s: object) -> Iterator[None]:
    """End the connection if the body takes twice as long as one silence may: head lines come byte by byte."""
    if connected is None or not isinstance(timeout_s, int | float):
        yield
        return

    def end() -> None:
        with suppress(OSError):
            connected.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(2 * timeout_s, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _certificates(environ: Mapping[str, str]) -> str | None:
    for name in _CERTIFICATE_VARIABLES:
        value = environ.get(name, "")
        if value and not Path(value).exists():
            raise BadInputError(f"cannot use {name}", value, "there is no such file", hint=f"unset {name}")
        if value:
            return value
    return None


def _proxies(url: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the proxies that `environ` names for `url`, by scheme; lower-case names win, as with curl."""
    import requests  # noqa: PLC0415 (heavy; this is its door)

    named = {
        name.lower().removesuffix("_proxy"): value
        for name, value in sorted(environ.items())
        if value and name.lower().endswith("_proxy")
    }
    excepted = named.pop("no", "")
    if not named and sys.platform == "darwin":
        import urllib.request  # noqa: PLC0415 (slow)

        named = urllib.request.getproxies()
    return {} if not named or requests.utils.should_bypass_proxies(url, excepted) else named


def _proxy(url: str, environ: Mapping[str, str]) -> str | None:
    import requests  # noqa: PLC0415 (heavy; this is its door)

    return requests.utils.select_proxy(url, _proxies(url, environ))


def body_of(response: "requests.Response", stall_s: float) -> Iterator[bytes]:
    """Yield the body as it comes, not decoded.

    Raises:
        CutError: too little came for `stall_s` seconds.
    """
    began_at, came = time.monotonic(), 0
    while chunk := response.raw.read1(_READ_BYTES, decode_content=False):
        yield chunk
        came += len(chunk)
        passed_s = time.monotonic() - began_at
        if passed_s >= stall_s:
            if came < _SLOWEST_BYTES_PER_S * passed_s:
                raise CutError(f"only {came} bytes came in {passed_s:.0f} s")
            began_at, came = time.monotonic(), 0


@contextmanager
def remote_errors(url: str) -> Iterator[None]:
    """Turn the HTTP trouble of the body into our errors: CutError where another try may help.

    Raises:
        CutError: no connection, a cut, a stall, or an answer like 503.
        RemoteDeniedError: the answer is 401 or 403.
        RemoteError: any other refusal, a certificate that is not accepted, or an address that is not HTTP.
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
    except UnicodeError as error:
        raise RemoteError("cannot read", without_login(url), "an address in the answer is malformed") from error
    except requests.JSONDecodeError:
        raise  # the answer came, and is no index: trying again does not help
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        host = printable(urlsplit(url).hostname or "the server")
        reason = _tls_reason(error)
        if reason:
            raise RemoteError("cannot trust", host, reason, hint=_TLS_HINT) from error
        raise CutError(f"{host} cannot be reached ({_cause(error)})") from error


_TLS_HINT = "check this machine's clock; certificates of a company's network are named by SSL_CERT_FILE"


def _tls_reason(error: BaseException) -> str | None:
    """Return what is wrong with the encryption for good; None when it is not that, or another try may help."""
    for one in _causes(error):
        if isinstance(one, ssl.SSLEOFError | ssl.SSLZeroReturnError | ssl.SSLSyscallError | ConnectionError):
            return None
        if isinstance(one, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted: {printable(one.verify_message or one, 120)}"
        if isinstance(one, ssl.SSLError):
            return f"no encrypted connection can be made: {printable(one.reason or one, 120)}"
    return None


def _status_error(url: str, error: "requests.HTTPError") -> Exception:
    response = error.response
    if response is None:
        return CutError("the server's answer was not understood")
    shown = without_login(url)
    if response.status_code in {401, 403}:
        return RemoteDeniedError("cannot read", shown, f"it answered {response.status_code}")
    if is_worth_repeating(response):
        wait_s = retry_after_s(response.headers.get("Retry-After", ""))
        return CutError(f"the server answered {response.status_code}", wait_s)
    return RemoteError("cannot read", shown, f"it answered {response.status_code}")


def answered(error: LlamaMgrError) -> "requests.Response | None":
    """Return the answer that `error`, raised by `remote_errors`, is about; None when there was none."""
    response: requests.Response | None = getattr(error.__cause__, "response", None)
    return response


def _cause(error: BaseException) -> str:
    *_, last = _causes(error)
    return type(last).__name__ if not str(last) else printable(last, 120)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield `error` and what caused it, the last cause last."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__
