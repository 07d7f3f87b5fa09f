"""Where redirects may lead, told by the address alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llama_mgr.errors import RefusedError
from llama_mgr.redirects import (
    HOPS_LIMIT,
    Reach,
    Trail,
    innermost,
    is_loopback_host,
    origin_of,
    reach_of,
    require_within,
)


@pytest.mark.parametrize(
    ("address", "reach"),
    [
        ("93.184.216.34", Reach.PUBLIC),
        ("2606:2800:220:1::1", Reach.PUBLIC),
        ("::ffff:93.184.216.34", Reach.PUBLIC),
        ("64:ff9b::5db8:d822", Reach.PUBLIC),
        ("10.1.2.3", Reach.PRIVATE),
        ("172.31.255.255", Reach.PRIVATE),
        ("192.168.0.1", Reach.PRIVATE),
        ("100.64.0.1", Reach.PRIVATE),
        ("fd12::1", Reach.PRIVATE),
        ("64:ff9b::a00:1", Reach.PRIVATE),
        ("127.0.0.1", Reach.LOOPBACK),
        ("127.255.255.255", Reach.LOOPBACK),
        ("0.0.0.0", Reach.LOOPBACK),  # noqa: S104 (nothing is bound to it)
        ("::", Reach.LOOPBACK),
        ("::1", Reach.LOOPBACK),
        ("::ffff:127.0.0.1", Reach.LOOPBACK),
        ("::7f00:1", Reach.LOOPBACK),
        ("2002:7f00:1::", Reach.LOOPBACK),
        ("169.254.169.254", Reach.NOBODY),
        ("fe80::1%eth0", Reach.NOBODY),
        ("fd00:ec2::254", Reach.NOBODY),
        ("168.63.129.16", Reach.NOBODY),
        ("100.100.100.200", Reach.NOBODY),
        ("224.0.0.1", Reach.NOBODY),
        ("ff02::1", Reach.NOBODY),
        ("255.255.255.255", Reach.NOBODY),
    ],
)
def test_reach(address: str, reach: Reach) -> None:
    assert reach_of(address) is reach


@given(st.ip_addresses())
def test_every_address_has_a_reach(address: object) -> None:
    assert reach_of(str(address)) in Reach


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]", "localhost", "LOCALHOST.", "a.localhost"])
def test_this_machine_has_many_names(host: str) -> None:
    assert is_loopback_host(host)


@pytest.mark.parametrize("host", ["localhost.evil.test", "127.0.0.1.evil.test", "10.0.0.1", "hub.test", ""])
def test_other_machines_are_not_this_one(host: str) -> None:
    assert not is_loopback_host(host)


@pytest.mark.parametrize(
    ("first", "second", "is_allowed"),
    [
        ("http://127.0.0.1:1/", "http://127.0.0.1:2/", True),
        ("http://127.0.0.1:1/", "http://localhost:2/", True),
        ("http://127.0.0.1/", "http://10.0.0.1/", True),
        ("http://127.0.0.1/", "http://93.184.216.34/", True),
        ("http://127.0.0.1/", "http://169.254.169.254/", False),
        ("http://10.0.0.1/", "http://10.0.0.2/", True),
        ("http://10.0.0.1/", "http://127.0.0.1/", False),
        ("http://10.0.0.1/", "http://93.184.216.34/", True),
        ("http://93.184.216.34/", "http://10.0.0.1/", False),
        ("http://93.184.216.34/", "http://127.0.0.1/", False),
        ("http://93.184.216.34/", "http://[::ffff:10.0.0.1]/", False),
        ("http://93.184.216.34/", "http://8.8.8.8/", True),
        ("http://169.254.169.254/", "http://169.254.169.254:81/", True),  # whoever asks there shall get it
    ],
)
def test_redirects_lead_outwards_only(first: str, second: str, is_allowed: bool) -> None:
    if is_allowed:
        innermost(first, second, resolve=True)
        return
    with pytest.raises(RefusedError):
        innermost(first, second, resolve=True)


def test_the_worst_address_of_a_name_counts() -> None:
    require_within(Reach.PUBLIC, [Reach.PUBLIC], "http://a.test")
    with pytest.raises(RefusedError, match="to a private network"):
        require_within(Reach.PUBLIC, [Reach.PUBLIC, Reach.PRIVATE], "http://a.test")


def test_a_trail_follows_relative_addresses() -> None:
    trail = Trail("https://a.test/x/y?q=1")
    assert trail.follow("z") == "https://a.test/x/z"
    assert trail.follow("/w") == "https://a.test/w"
    assert trail.follow("//b.test/v") == "https://b.test/v"


def test_encryption_may_begin_and_not_end() -> None:
    trail = Trail("http://a.test/")
    assert trail.follow("https://a.test/") == "https://a.test/"
    with pytest.raises(RefusedError, match="gives up encryption"):
        trail.follow("http://a.test/2")


def test_a_trail_has_a_limited_length() -> None:
    trail = Trail("https://a.test/")
    for number in range(HOPS_LIMIT):
        trail.follow(f"/{number}")
    with pytest.raises(RefusedError, match=f"redirect number 11, and the limit is {HOPS_LIMIT}"):
        trail.follow("/last")


def test_a_refusal_shows_neither_login_nor_query() -> None:
    with pytest.raises(RefusedError) as caught:
        Trail("https://a.test/").follow("https://me:secret@b.test/x?token=secret")
    assert "secret" not in str(caught.value)
    assert "b.test/x" in str(caught.value)


@given(st.text(max_size=60))
def test_no_location_is_more_than_refused(location: str) -> None:
    trail = Trail("https://a.test/x")
    try:
        url = trail.follow(location)
    except RefusedError:
        return
    assert origin_of(url)[0] == "https"


def test_secrets_stay_at_the_first_origin() -> None:
    trail = Trail("https://a.test/")
    headers = {"Authorization": "Bearer x", "X-Key": "y", "Range": "bytes=5-", "If-Range": '"e"', "User-Agent": "me"}
    assert trail.headers("https://A.test:443/other", headers) == headers
    for url in ("https://b.test/", "https://a.test:444/", "http://a.test/"):
        assert set(trail.headers(url, headers)) == {"Range", "If-Range", "User-Agent"}
