"""SOCKS5 as bytes: addresses in, honest replies out (RFC 1928)."""

from __future__ import annotations

import ipaddress
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.client.capture import socks5
from klinket.client.capture.socks5 import Reply
from klinket.domain.address import canonical_host
from klinket.domain.errors import FlowRefused, ProtocolError
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol


def parse(kind: int, address: bytes, port: int) -> Destination:
    """Return the destination as the proxy reads it: first byte, length, rest."""
    first, rest = address[0], address[1:] + struct.pack(">H", port)
    assert socks5.address_length(kind, first) == len(rest)
    return socks5.parse_destination(kind, first, rest)


@given(st.ip_addresses(), st.integers(1, 65_535))
def test_addresses_are_read(address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int) -> None:
    kind = 1 if address.version == 4 else 4
    destination = parse(kind, address.packed, port)
    assert destination == Destination(canonical_host(str(address)), port, TransportProtocol.TCP)


@pytest.mark.parametrize(
    ("name", "host"), [(b"db.internal", "db.internal"), (b"DB.Internal.", "db.internal"), (b"10.0.0.5", "10.0.0.5")]
)
def test_names_are_canonical(name: bytes, host: str) -> None:
    assert parse(3, bytes([len(name)]) + name, 443).host == host


@pytest.mark.parametrize(
    ("kind", "address", "port"),
    [
        (1, bytes([10, 0, 0, 5]), 0),
        (3, b"\x00", 80),
        (3, b"\x02\xc3\xa4", 80),
        (3, b"\x0bdb internal", 80),
        (3, b"\x09300.1.1.1", 80),
        (3, b"\x0bdb.internal", 0),
    ],
)
def test_what_is_no_name_or_address_is_refused(kind: int, address: bytes, port: int) -> None:
    with pytest.raises(ProtocolError):
        parse(kind, address, port)


@pytest.mark.parametrize("kind", [0, 2, 5, 255])
def test_other_address_types_are_refused(kind: int) -> None:
    with pytest.raises(ProtocolError, match="address type"):
        socks5.address_length(kind, 1)


@given(st.sampled_from([1, 3, 4]), st.integers(0, 255), st.data())
def test_any_bytes_are_a_destination_or_refused(kind: int, first: int, data: st.DataObject) -> None:
    length = socks5.address_length(kind, first)
    rest = data.draw(st.binary(min_size=length, max_size=length))
    try:
        destination = socks5.parse_destination(kind, first, rest)
    except ProtocolError:
        return
    assert destination.port == int.from_bytes(rest[-2:])
    assert destination.host == canonical_host(destination.host)


@given(st.binary(max_size=255))
def test_only_no_authentication_is_spoken(methods: bytes) -> None:
    assert socks5.accepts_no_authentication(methods) == (b"\0" in methods)


EXPECTED = {
    FlowFailure.NOT_GRANTED: Reply.NOT_ALLOWED,
    FlowFailure.CUT: Reply.NOT_ALLOWED,
    FlowFailure.NAME_NOT_FOUND: Reply.HOST_UNREACHABLE,
    FlowFailure.UNREACHABLE: Reply.HOST_UNREACHABLE,
    FlowFailure.REFUSED: Reply.REFUSED,
    FlowFailure.TIMED_OUT: Reply.TTL_EXPIRED,
    FlowFailure.THROTTLED: Reply.FAILED,
    FlowFailure.NO_CONNECTOR: Reply.FAILED,
}


@pytest.mark.parametrize(("failure", "code"), EXPECTED.items(), ids=lambda value: getattr(value, "value", value))
def test_replies_tell_failures_apart(failure: FlowFailure, code: Reply) -> None:
    version, told, reserved, kind = socks5.refusal(FlowRefused(failure, "no"))[:4]
    assert (version, told, reserved, kind) == (5, code, 0, 1)


@pytest.mark.parametrize("failure", FlowFailure)
def test_no_failure_looks_like_success(failure: FlowFailure) -> None:
    answer = socks5.refusal(FlowRefused(failure, "no"))
    assert len(answer) == 10
    assert answer[1] != Reply.SUCCEEDED


@given(st.lists(st.integers(0, 255), max_size=5), st.ip_addresses(), st.integers(1, 65_535), st.binary(max_size=20))
def test_a_request_that_came_whole_is_read_in_one_step(
    others: list[int], address: ipaddress.IPv4Address | ipaddress.IPv6Address, port: int, early: bytes
) -> None:
    methods = bytes([*others, 0])
    kind = 1 if address.version == 4 else 4
    asked = bytes([5, len(methods)]) + methods + bytes([5, 1, 0, kind]) + address.packed + struct.pack(">H", port)
    destination = Destination(canonical_host(str(address)), port, TransportProtocol.TCP)
    assert socks5.whole_request(asked + early) == (destination, len(asked))
    for end in range(len(asked)):
        assert socks5.whole_request(asked[:end]) is None


@pytest.mark.parametrize(
    "asked",
    [
        b"\x04\x01\x00\x05\x01\x00\x01\x0a\x00\x00\x05\x00\x50",  # another version
        b"\x05\x01\x02\x05\x01\x00\x01\x0a\x00\x00\x05\x00\x50",  # only with a password
        b"\x05\x00\x05\x01\x00\x01\x0a\x00\x00\x05\x00\x50",  # no method at all
        b"\x05\x01\x00\x04\x01\x00\x01\x0a\x00\x00\x05\x00\x50",  # another version in the request
        b"\x05\x01\x00\x05\x03\x00\x01\x0a\x00\x00\x05\x00\x50",  # not CONNECT
        b"\x05\x01\x00\x05\x01\x00\x02\x0a\x00\x00\x05\x00\x50",  # no such kind of address
        b"\x05\x01\x00\x05\x01\x00\x01\x0a\x00\x00\x05\x00\x00",  # port 0
        b"\x05\x01\x00\x05\x01\x00\x03\x03a b\x00\x50",  # not a name
    ],
)
def test_what_is_wrong_is_left_to_who_answers_it(asked: bytes) -> None:
    assert socks5.whole_request(asked) is None


@given(st.binary(max_size=300))
def test_any_bytes_are_a_whole_request_or_none(received: bytes) -> None:
    found = socks5.whole_request(received)
    assert found is None or found[1] <= len(received)
