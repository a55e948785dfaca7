"""IPv6 packets as bytes: a SYN is read, a datagram and an ICMPv6 error have the checksums that RFC 8200 wants."""

from __future__ import annotations

import ipaddress
import socket
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klinket.client.capture import packets
from klinket.client.capture.packets import Endpoint, Syn, read_syn
from klinket.domain.errors import ProtocolError

ADDRESSES = st.ip_addresses(v=6).map(lambda one: socket.inet_ntop(socket.AF_INET6, one.packed))
ENDPOINTS = st.tuples(ADDRESSES, st.integers(0, 65_535))


def packed(address: str) -> bytes:
    return ipaddress.IPv6Address(address).packed


def syn(source: Endpoint, destination: Endpoint, number: int) -> bytes:
    header = struct.pack(">IHBB", 6 << 28, 20, 6, 64) + packed(source[0]) + packed(destination[0])
    return header + struct.pack(">HHIIBBHHH", source[1], destination[1], number, 0, 0x50, 2, 64_240, 0, 0)


def sum_of(packet: bytes) -> int:
    """Return the sum over pseudo-header and message, in which the checksum counts: 0xFFFF when it is right (RFC 1071)."""
    length, protocol = struct.unpack_from(">HB", packet, 4)
    data = packet[8:40] + struct.pack(">II", length, protocol) + packet[40:]
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


@settings(deadline=None)
@given(ENDPOINTS, ENDPOINTS, st.integers(0, 2**32 - 1))
def test_a_syn_is_read(source: Endpoint, destination: Endpoint, number: int) -> None:
    assert read_syn(syn(source, destination, number)) == Syn(source, destination, number)


@pytest.mark.parametrize("cut", [1, 39, 47])
def test_a_packet_that_is_cut_off_is_refused(cut: int) -> None:
    with pytest.raises(ProtocolError):
        read_syn(syn(("::1", 1), ("::2", 2), 3)[:cut])


def test_what_has_no_tcp_behind_its_header_is_refused() -> None:
    with pytest.raises(ProtocolError):
        read_syn(packets.datagram(("::1", 1), ("::2", 2), b"12345678"))


@settings(deadline=None)
@given(ENDPOINTS, ENDPOINTS, st.binary(max_size=2000))
def test_a_datagram_is_what_a_host_takes(source: Endpoint, destination: Endpoint, content: bytes) -> None:
    packet = packets.datagram(source, destination, content)
    assert packet[0] >> 4 == 6
    assert struct.unpack_from(">HB", packet, 4) == (8 + len(content), 17)
    assert (packet[8:24], packet[24:40]) == (packed(source[0]), packed(destination[0]))
    assert struct.unpack_from(">HHH", packet, 40) == (source[1], destination[1], 8 + len(content))
    assert struct.unpack_from(">H", packet, 46)[0] != 0, "zero would say that there is no checksum, which IPv6 forbids"
    assert sum_of(packet) == 0xFFFF
    assert packet[48:] == content


@settings(deadline=None)
@given(ENDPOINTS, ENDPOINTS, st.sampled_from([(packets.PORT_UNREACHABLE, 4), (packets.HOST_UNREACHABLE, 3)]))
def test_an_error_tells_the_sender_of_its_own_datagram(source: Endpoint, destination: Endpoint, code: tuple[int, int]) -> None:
    packet = packets.datagram_refused(source, destination, code[0])
    assert (packet[8:24], packet[24:40]) == (packed(destination[0]), packed(source[0]))
    assert packet[6] == 58
    assert packet[40:42] == bytes([1, code[1]])
    assert sum_of(packet) == 0xFFFF
    assert packet[48:] == packets.datagram(source, destination, b"")


def together(parts: list[bytes]) -> bytes:
    """Put fragments together as a host does; fails where they do not fit."""
    v6 = parts[0][0] >> 4 == 6
    content, ends = b"", []
    for part in parts:
        assert len(part) <= 1280
        if v6:
            assert struct.unpack_from(">H", part, 4)[0] == len(part) - 40
            assert part[6] == 44
            following, offset = struct.unpack_from(">BxH", part, 40)
            assert following == 17
            assert offset & ~7 == len(content)
            ends.append(not offset & 1)
            content += part[48:]
        else:
            length, _, field = struct.unpack_from(">HHH", part, 2)
            assert length == len(part)
            assert (field & 0x1FFF) * 8 == len(content)
            ends.append(not field >> 13 & 1)
            content += part[20:]
    assert ends == [False] * (len(parts) - 1) + [True]
    return content


@given(
    st.sampled_from([("::1", "::2"), ("10.0.0.1", "10.0.0.2")]),
    st.integers(0, 5000) | st.integers(60_000, 65_507),
    st.integers(0, 65_535),
)
@settings(deadline=None)
def test_fragments_are_the_packet_again(hosts: tuple[str, str], size: int, identification: int) -> None:
    packet = packets.datagram((hosts[0], 1), (hosts[1], 2), b"x" * size)
    parts = packets.fragments(packet, identification)
    assert together(parts) == packet[40 if ":" in hosts[0] else 20 :]
