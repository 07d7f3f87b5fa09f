"""Where a redirect may lead. The server chooses the next address; it is checked before anybody connects to it."""

import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping
from enum import IntEnum
from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from llama_mgr.errors import RefusedError

HOPS_LIMIT = 10
_HOST = re.compile(r"(?:[A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HARMLESS_HEADERS = frozenset({"accept", "accept-encoding", "if-range", "range", "user-agent"})

# Where clouds tell a machine its own secrets: AWS and most others, AWS over IPv6, Alibaba, Azure, Oracle.
_METADATA = frozenset(
    {"169.254.169.254", "fd00:ec2::254", "100.100.100.200", "168.63.129.16", "192.0.0.192"}
)  # fmt: skip
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # RFC 6052


class Reach(IntEnum):
    """From how far away an address can be reached. A redirect may lead to the same or a wider reach, never inwards."""

    PUBLIC = 0
    PRIVATE = 1
    LOOPBACK = 2
    NOBODY = 3
    """Link-local, multicast, reserved, and the metadata services of clouds."""


class Trail:
    """The addresses of one request: the one that was asked for, and those that redirects led to."""

    def __init__(self, url: str) -> None:
        self._urls = [url]

    @property
    def first_url(self) -> str:
        """The address that was asked for."""
        return self._urls[0]

    def follow(self, location: str) -> str:
        """Return the absolute address that a `Location` header means.

        Raises:
            RefusedError: it is no http or https address, gives up encryption, carries a login, was there before, or is
                one too many.
        """
        try:
            url = urljoin(self._urls[-1], location)
        except ValueError:
            raise refused(location, "it is malformed") from None
        why = self._objection(url)
        if why:
            raise refused(url, why)
        self._urls.append(url)
        return url

    def _objection(self, url: str) -> str | None:
        why = _malformed(url)
        if why:
            return why
        if origin_of(url)[0] == "http" and origin_of(self._urls[-1])[0] == "https":
            return "it gives up encryption"
        if url in self._urls:
            return "it leads in a circle"
        if len(self._urls) > HOPS_LIMIT:
            return f"it is redirect number {len(self._urls)}, and the limit is {HOPS_LIMIT}"
        return None

    def headers(self, url: str, headers: Mapping[str, str]) -> dict[str, str]:
        """Return which of `headers`, those of the first request, may go to `url`: secrets stay at the first origin."""
        if origin_of(url) == origin_of(self.first_url):
            return dict(headers)
        return {name: value for name, value in headers.items() if name.lower() in _HARMLESS_HEADERS}


def origin_of(url: str) -> tuple[str, str, int | None]:
    """Return scheme, host and port of `url`; what is sent to one origin is nobody else's business."""
    parts = urlsplit(url)
    return parts.scheme.lower(), _host_of(parts), parts.port or _DEFAULT_PORTS.get(parts.scheme.lower())


def is_loopback_host(host: str) -> bool:
    """Tell whether `host` names this machine itself, in a form that no resolver is asked about."""
    host = host.strip("[]").rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return reach_of(host) is Reach.LOOPBACK
    except ValueError:
        return False


def innermost(first_url: str, url: str, *, resolve: bool) -> Reach | None:
    """Return up to which reach the host of `url` may lie; None where all is allowed, because it is the first host.

    Args:
        first_url: what was asked for.
        url: where a redirect leads.
        resolve: whether this machine connects to the host; False when a proxy does, who alone knows its address.

    Raises:
        RefusedError: it lies further inside now, as far as can be told.
    """
    first, host = _host_of(urlsplit(first_url)), _host_of(urlsplit(url))
    if first == host:
        return None
    limit = min(Reach.LOOPBACK, *_reaches(first, resolve=resolve))
    require_within(limit, _reaches(host, resolve=resolve), url)
    return limit


def require_within(limit: Reach, reaches: Iterable[Reach], url: str) -> None:
    """Raise when one of `reaches`, those of the host of `url`, is more inside than `limit`.

    Raises:
        RefusedError: it is.
    """
    worst = max(reaches)
    if worst is Reach.NOBODY:
        raise refused(url, "its address is for one network link, or a cloud's metadata service")
    if worst > limit:
        inside = "this machine itself" if worst is Reach.LOOPBACK else "a private network"
        raise refused(url, f"it leads from outside to {inside}")


def reach_of(address: str) -> Reach:
    """Return the reach of an IP address.

    Raises:
        ValueError: it is none.
    """
    ip = _unwrapped(ipaddress.ip_address(address.partition("%")[0]))
    if str(ip) in _METADATA or ip.is_link_local or ip.is_multicast:
        return Reach.NOBODY
    if ip.is_loopback or ip.is_unspecified:
        return Reach.LOOPBACK
    if isinstance(ip, ipaddress.IPv4Address) and ip.is_reserved:
        return Reach.NOBODY
    return Reach.PUBLIC if ip.is_global else Reach.PRIVATE


def refused(url: str, why: str) -> RefusedError:
    """Return the error that a redirect to `url` is not followed."""
    hint = "tell who runs the server, or use another endpoint or mirror"
    return RefusedError("cannot follow the redirect to", without_login(url), why, hint=hint)


def without_login(url: str) -> str:
    """Return `url` as it may be shown: no user name or password, no query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.partition("?")[0].rpartition("@")[2]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def _malformed(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        if parts.scheme not in _DEFAULT_PORTS:
            return "only http and https are followed"
        if "@" in parts.netloc:
            return "it carries a login"
        is_good = bool(_HOST.fullmatch(parts.netloc)) and (parts.port or 1) > 0
    except ValueError:
        is_good = False
    return None if is_good else "it is malformed"


def _host_of(parts: SplitResult) -> str:
    return (parts.hostname or "").rstrip(".").lower()


def _reaches(host: str, *, resolve: bool) -> list[Reach]:
    """Return the reaches of all addresses of `host`; `0`, `127.1` and the like are addresses, too."""
    if is_loopback_host(host):
        return [Reach.LOOPBACK]
    flags = 0 if resolve else socket.AI_NUMERICHOST
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM, flags=flags)
    except (OSError, UnicodeError):
        return [Reach.PUBLIC]  # nobody will connect to it; or the proxy will, to what it thinks fit
    return [reach_of(str(address[0])) for *_, address in found]


def _unwrapped(
    ip: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """Return the IPv4 address inside an IPv6 address that carries one, else `ip`."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    if ip in _NAT64:
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    if int(ip) >> 32 == 0 and int(ip) > 1:  # ::a.b.c.d, which nobody uses any more and some systems still route
        return ipaddress.IPv4Address(int(ip))
    return ip.ipv4_mapped or ip.sixtofour or ip
