"""Echo requests as programs send them, and what answers them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.client.capture import echo_packets, packets
from klinket.domain.errors import ProtocolError
from klinket.net.checksum import checksum
from klinket.wire.echo import Echo
from tests.unit.wire.conftest import MODERATE

V4, V6 = ("192.0.2.1", "10.9.0.5"), ("2001:db8::1", "fd00::5")
PAIRS = st.sampled_from([V4, V6])


def request(source: str, destination: str, identifier: int, echo: Echo) -> bytes:
    """Return the packet a program's request is."""
    is_v6 = ":" in source
    message = struct.pack(">BBHHH", 128 if is_v6 else 8, 0, 0, identifier, echo.sequence) + echo.payload
    total = packets.v6_checksum(source, destination, 58, message) if is_v6 else checksum(message)
    message = message[:2] + struct.pack(">H", total) + message[4:]
    header = bytearray(packets.ip_header(source, destination, 58 if is_v6 else 1, len(message)))
    return bytes(header) + message


@MODERATE
@given(PAIRS, st.integers(0, 65_535), st.integers(0, 65_535), st.binary(max_size=600))
def test_a_request_is_read_as_it_was_sent(pair: tuple[str, str], identifier: int, sequence: int, payload: bytes) -> None:
    packet = request(*pair, identifier, Echo(sequence, payload))
    read = echo_packets.read(packet + b"padding")
    assert (read.source, read.destination, read.identifier, read.echo) == (*pair, identifier, Echo(sequence, payload))
    assert read.quoted == packet[: echo_packets.QUOTED_BYTES]


@MODERATE
@given(PAIRS, st.integers(0, 65_535), st.integers(0, 65_535), st.binary(max_size=600))
def test_a_reply_has_the_requests_identifier_and_a_right_checksum(
    pair: tuple[str, str], identifier: int, sequence: int, payload: bytes
) -> None:
    source, destination = pair
    packet = echo_packets.reply(destination, source, identifier, Echo(sequence, payload))
    header = 40 if ":" in source else 20
    kind, code, _, *rest = struct.unpack_from(">BBHHH", packet, header)
    assert (kind, code, *rest) == (129 if ":" in source else 0, 0, identifier, sequence)
    message = packet[header:]
    assert message[8:] == payload
    assert (packets.v6_checksum(destination, source, 58, message) if ":" in source else checksum(message)) == 0


@pytest.mark.parametrize("pair", [V4, V6], ids=["IPv4", "IPv6"])
def test_a_refusal_quotes_the_request_and_says_why(pair: tuple[str, str]) -> None:
    source, destination = pair
    quoted = echo_packets.read(request(*pair, 1, Echo(2, b"x" * 2000))).quoted
    words = {
        echo_packets.HOST_UNREACHABLE: (3, 1, 3),
        echo_packets.PROTOCOL_UNREACHABLE: (3, 2, 3),
        echo_packets.PROHIBITED: (3, 13, 1),
    }
    for code, (kind, v4_code, v6_code) in words.items():
        packet = echo_packets.refusal(quoted, destination, source, code)
        message = packet[40 if ":" in source else 20 :]
        assert message[:2] == (bytes([1, v6_code]) if ":" in source else bytes([kind, v4_code]))
        assert message[8:] == quoted
        assert len(packet) < 576


@pytest.mark.parametrize("pair", [V4, V6], ids=["IPv4", "IPv6"])
def test_what_is_damaged_cut_short_or_no_request_is_refused(pair: tuple[str, str]) -> None:
    packet = request(*pair, 1, Echo(2, b"payload"))
    header = 40 if ":" in pair[0] else 20
    reply = echo_packets.reply(*pair, 1, Echo(2, b"payload"))
    for wrong in (
        packet[:-1],
        packet[:-1] + b"?",
        packet[: header + 4],
        b"",
        reply,
        packet[:header] + b"\x0d" + packet[header + 1 :],
    ):
        with pytest.raises(ProtocolError):
            echo_packets.read(wrong)


def test_a_fragment_is_refused() -> None:
    packet = request(*V4, 1, Echo(2, b"payload"))
    with pytest.raises(ProtocolError):
        echo_packets.read(packet[:6] + b"\x20\x00" + packet[8:])


@MODERATE
@given(
    st.binary(max_size=80) | st.binary(max_size=80).map(lambda rest: b"\x45" + rest) | st.binary(max_size=80).map(b"\x60".__add__)
)
def test_arbitrary_bytes_are_a_request_or_refused(packet: bytes) -> None:
    try:
        read = echo_packets.read(packet)
    except ProtocolError:
        return
    assert packet.startswith(read.quoted)
