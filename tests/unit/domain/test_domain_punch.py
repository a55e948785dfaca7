"""Which endpoint of another is dialled: never services, special ranges, oneself, nor private networks from outside."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.errors import InvalidInput
from klinket.domain.punch import MIN_PORT, Endpoint, objection, objection_to_anybody
from klinket.domain.special_ranges import SPECIAL, meanings

ADDRESSES = st.ip_addresses()
ENDPOINTS = st.builds(Endpoint, ADDRESSES.filter(lambda one: getattr(one, "ipv4_mapped", None) is None), st.integers(1, 65_535))


@given(ENDPOINTS)
def test_an_endpoint_reads_as_it_is_written(endpoint: Endpoint) -> None:
    assert Endpoint.parse(str(endpoint)) == endpoint


@given(st.text(max_size=100) | st.from_regex(r"[0-9.:\[\]a-f%-]{0,60}", fullmatch=True))
def test_any_text_is_an_endpoint_or_refused(text: str) -> None:
    try:
        endpoint = Endpoint.parse(text)
    except InvalidInput:
        return
    assert Endpoint.parse(str(endpoint)) == endpoint


@pytest.mark.parametrize(
    "text",
    ["", ":", "8.8.8.8", "8.8.8.8:", "8.8.8.8:0", "8.8.8.8:65536", "8.8.8.8:-1", "8.8.8.8:+80", "8.8.8.8: 80", "host.internal:80",
     "0x7f.1:80", "127.1:80", "8.8.8.8:٣٣", "fe80::1%eth0:80", "[8.8.8.8:80", "8.8.8.8:080000", "[::1]:2000 "],
)  # fmt: skip
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Endpoint.parse(text)


@given(ADDRESSES, ENDPOINTS)
def test_nobody_is_ever_led_to_services_special_ranges_or_itself(own: ipaddress.IPv4Address, other: Endpoint) -> None:
    if objection(own, other) is None:
        assert other.port >= MIN_PORT
        assert not any(one in special for one in meanings(other.host) for special in SPECIAL)
        assert own != other.host
        assert own.version == other.host.version
        assert other.host.is_global or not own.is_global


@pytest.mark.parametrize(
    ("own", "other", "allowed"),
    [
        ("8.8.8.8", "9.9.9.9:40000", True),
        ("10.1.0.1", "10.2.0.1:40000", True),
        ("10.1.0.1", "9.9.9.9:40000", True),
        ("8.8.8.8", "10.2.0.1:40000", False),
        ("8.8.8.8", "100.64.0.1:40000", False),
        ("8.8.8.8", "192.168.1.1:40000", False),
        ("8.8.8.8", "9.9.9.9:1023", False),
        ("8.8.8.8", "8.8.8.8:40000", False),
        ("8.8.8.8", "[2606:4700::1]:40000", False),
        ("2606:4700::2", "[2606:4700::1]:40000", True),
        ("2606:4700::2", "[fd12::1]:40000", False),
        ("2606:4700::2", "[64:ff9b::a00:1]:40000", False),
        ("10.1.0.1", "127.0.0.1:40000", False),
        ("10.1.0.1", "169.254.169.254:40000", False),
        ("10.1.0.1", "224.0.0.1:40000", False),
        ("10.1.0.1", "0.0.0.0:40000", False),
        ("fd12::2", "[::1]:40000", False),
        ("fd12::2", "[64:ff9b::a9fe:a9fe]:40000", False),
        ("fd12::2", "[2002:7f00:1::1]:40000", False),
    ],
)
def test_where_a_peer_may_be_led(own: str, other: str, allowed: bool) -> None:
    assert (objection(ipaddress.ip_address(own), Endpoint.parse(other)) is None) is allowed


def test_what_nobody_may_dial_is_known_before_the_other_side_is() -> None:
    assert objection_to_anybody(Endpoint.parse("10.0.0.1:2000")) is None
    assert objection_to_anybody(Endpoint.parse("10.0.0.1:22")) is not None
    assert objection_to_anybody(Endpoint.parse("127.0.0.1:2000")) is not None
