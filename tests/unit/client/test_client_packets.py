"""IPv4 packets as bytes: a SYN is read, a datagram and an ICMP error are what the kernel itself would take."""

from __future__ import annotations

import ipaddress
import os
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.client.capture import packets
from klinket.client.capture.packets import Endpoint, Syn, read_syn
from klinket.domain.errors import ProtocolError

ADDRESSES = st.ip_addresses(v=4).map(str)
ENDPOINTS = st.tuples(ADDRESSES, st.integers(0, 65_535))


def tcp_packet(source: Endpoint, destination: Endpoint, number: int, options: int) -> bytes:
    """Return an IPv4 packet with `options` words of IP options and a TCP header."""
    addresses = socket.inet_aton(source[0]) + socket.inet_aton(destination[0])
    ip = struct.pack(">BBHHHBBH", 0x45 + options, 0, 40 + 4 * options, 7, 0x4000, 64, 6, 0) + addresses + b"\1" * 4 * options
    return ip + struct.pack(">HHIIBBHHH", source[1], destination[1], number, 0, 0x50, 2, 64_240, 0, 0)


@given(ENDPOINTS, ENDPOINTS, st.integers(0, 2**32 - 1), st.integers(0, 10))
def test_a_syn_is_read(source: Endpoint, destination: Endpoint, number: int, options: int) -> None:
    assert read_syn(tcp_packet(source, destination, number, options)) == Syn(source, destination, number)


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"\x45",
        tcp_packet(("10.0.0.1", 1), ("10.0.0.2", 2), 3, 0)[:27],
        b"\x44" + tcp_packet(("10.0.0.1", 1), ("10.0.0.2", 2), 3, 0)[1:],
        b"\x65" + tcp_packet(("10.0.0.1", 1), ("10.0.0.2", 2), 3, 0)[1:],
        packets.datagram(("10.0.0.1", 1), ("10.0.0.2", 2), b"12345678"),
    ],
    ids=["empty", "one byte", "cut off", "short header", "IPv6", "UDP"],
)
def test_what_is_no_tcp_packet_is_refused(packet: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_syn(packet)


@given(st.binary(max_size=128))
def test_any_bytes_are_a_packet_or_refused(packet: bytes) -> None:
    try:
        syn = read_syn(packet)
    except ProtocolError:
        return
    assert ipaddress.ip_address(syn.destination[0]).packed == packet[16:20]


@given(ENDPOINTS, ENDPOINTS, st.binary(max_size=2000))
def test_a_datagram_holds_its_content_and_both_ends(source: Endpoint, destination: Endpoint, content: bytes) -> None:
    packet = packets.datagram(source, destination, content)
    version, _, length, _, _, ttl, protocol, _ = struct.unpack_from(">BBHHHBBH", packet)
    assert (version, length, protocol) == (0x45, len(packet), socket.IPPROTO_UDP)
    assert ttl > 1
    assert (socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])) == (source[0], destination[0])
    assert struct.unpack_from(">HHHH", packet, 20) == (source[1], destination[1], 8 + len(content), 0)
    assert packet[28:] == content


def test_the_largest_datagram_fits_an_ip_packet_and_a_larger_one_is_refused() -> None:
    ends = ("10.0.0.1", 1), ("10.0.0.2", 2)
    assert len(packets.datagram(*ends, bytes(packets.MAX_DATAGRAM_BYTES))) == 65_535
    with pytest.raises(ValueError, match="65508 bytes"):
        packets.datagram(*ends, bytes(packets.MAX_DATAGRAM_BYTES + 1))


@given(ENDPOINTS, ENDPOINTS, st.sampled_from([packets.PORT_UNREACHABLE, packets.HOST_UNREACHABLE]))
def test_an_icmp_error_quotes_the_datagram_and_its_checksum_holds(source: Endpoint, destination: Endpoint, code: int) -> None:
    packet = packets.datagram_refused(source, destination, code)
    assert packet[9] == socket.IPPROTO_ICMP
    assert (socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])) == (destination[0], source[0])
    message = packet[20:]
    assert message[:2] == bytes([3, code])
    total = sum(struct.unpack(f">{len(message) // 2}H", message))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF
    assert message[8:] == packets.datagram(source, destination, b"")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a raw socket")
def test_the_kernel_delivers_what_is_written() -> None:
    """A datagram from an address nobody has bound, and the errors, reach the program's socket."""
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as program,
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw,
    ):
        program.bind(("127.0.0.1", 0))
        ours, theirs = program.getsockname(), ("127.77.5.1", 4321)
        program.connect(theirs)
        program.settimeout(5)
        raw.sendto(packets.datagram(theirs, ours, b"answer"), (ours[0], 0))
        assert program.recv(100) == b"answer"
        raw.sendto(packets.datagram_refused(ours, theirs, packets.PORT_UNREACHABLE), (ours[0], 0))
        with pytest.raises(ConnectionRefusedError):
            program.recv(100)


@pytest.mark.parametrize("host", ["192.0.2.1", "2001:db8::1"])
@pytest.mark.parametrize("content", [b"", b"x", bytes(1200)])
def test_a_maker_of_datagrams_makes_what_is_made_one_by_one(host: str, content: bytes) -> None:
    ends = (host, 53), (host[:-1] + "2", 40_000)
    assert packets.datagram_maker(*ends)(content) == packets.datagram(*ends, content)
