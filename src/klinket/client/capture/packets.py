"""IP packets as bytes: reading a SYN, writing a datagram and an ICMP error (RFC 791, 8200, 768, 792, 4443)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass

from klinket.domain.errors import ProtocolError
from klinket.net.checksum import checksum

#: Bytes of content one IPv4 datagram can carry: 65,535 less both headers.
MAX_DATAGRAM_BYTES = 65_507
_IP_HEADER_BYTES = 20
_UDP_HEADER_BYTES = 8
_TCP, _UDP, _ICMP, _ICMPV6 = 6, 17, 1, 58
_UNREACHABLE = 3
_V6_HEADER_BYTES = 40
_V6_UNREACHABLE = 1
_FRAGMENT = 44
#: Bytes of content in a fragment: with both headers at most 1,280, which every IPv6 link carries. A multiple of 8.
FRAGMENT_BYTES = 1_232
PORT_UNREACHABLE = 3
HOST_UNREACHABLE = 1
#: The same in ICMPv6: port unreachable, address unreachable.
_V6_CODES = {PORT_UNREACHABLE: 4, HOST_UNREACHABLE: 3}

Endpoint = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Syn:
    """The first packet of a connection. `number`: its sequence number, the same in each repetition."""

    source: Endpoint
    destination: Endpoint
    number: int


def read_syn(packet: bytes) -> Syn:
    """Return the SYN in an IP packet; raises ProtocolError. IPv6 without extension headers: a SYN has none."""
    if packet and packet[0] >> 4 == 6:
        if len(packet) < _V6_HEADER_BYTES + 8 or packet[6] != _TCP:
            raise ProtocolError("not an IPv6 packet with TCP in it")
        source_port, destination_port, number = struct.unpack_from(">HHI", packet, _V6_HEADER_BYTES)
        addresses = (socket.inet_ntop(socket.AF_INET6, packet[start : start + 16]) for start in (8, 24))
        return Syn((next(addresses), source_port), (next(addresses), destination_port), number)
    header = (packet[0] & 0x0F) * 4 if packet else 0
    if len(packet) < header + 8 or header < _IP_HEADER_BYTES or packet[0] >> 4 != 4 or packet[9] != _TCP:
        raise ProtocolError("not an IPv4 packet with TCP in it")
    source_port, destination_port, number = struct.unpack_from(">HHI", packet, header)
    return Syn((socket.inet_ntoa(packet[12:16]), source_port), (socket.inet_ntoa(packet[16:20]), destination_port), number)


def ip_header(source: str, destination: str, protocol: int, length: int) -> bytes:
    """Return the header of a packet with so many bytes behind it."""
    if ":" in source:
        return struct.pack(">IHBB", 6 << 28, length, protocol, 64) + _v6_addresses(source, destination)
    # The kernel fills in id and checksum (raw(7), IP_HDRINCL).
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    return struct.pack(">BBHHHBBH", 0x45, 0, _IP_HEADER_BYTES + length, 0, 0, 64, protocol, 0) + addresses


def _v6_addresses(source: str, destination: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6, source) + socket.inet_pton(socket.AF_INET6, destination)


def v6_checksum(source: str, destination: str, protocol: int, message: bytes) -> int:
    """Return the checksum over pseudo-header and message (RFC 8200 §8.1)."""
    return checksum(_v6_addresses(source, destination) + struct.pack(">II", len(message), protocol) + message)


def datagram(source: Endpoint, destination: Endpoint, content: bytes) -> bytes:
    """Return a UDP packet; raises ValueError beyond MAX_DATAGRAM_BYTES. No checksum on IPv4, where it may be left out."""
    if len(content) > MAX_DATAGRAM_BYTES:
        raise ValueError(f"a datagram of {len(content)} bytes")
    length = _UDP_HEADER_BYTES + len(content)
    header = struct.pack(">HHHH", source[1], destination[1], length, 0)
    if ":" in source[0]:
        total = v6_checksum(source[0], destination[0], _UDP, header + content) or 0xFFFF
        header = struct.pack(">HHHH", source[1], destination[1], length, total)
    return ip_header(source[0], destination[0], _UDP, length) + header + content


def datagram_maker(source: Endpoint, destination: Endpoint) -> Callable[[bytes], bytes]:
    """Return what datagram() does, for one pair of ends: what is the same in each packet is made once."""
    if ":" in source[0]:
        return lambda content: datagram(source, destination, content)
    ports = struct.pack(">HH", source[1], destination[1])
    addresses = socket.inet_aton(source[0]) + socket.inet_aton(destination[0])
    middle = struct.pack(">HHBBH", 0, 0, 64, _UDP, 0) + addresses + ports
    begin, end = struct.Struct(">BBH").pack, struct.Struct(">HH").pack

    def make(content: bytes) -> bytes:
        size = len(content)
        if size > MAX_DATAGRAM_BYTES:
            raise ValueError(f"a datagram of {size} bytes")
        headers = _IP_HEADER_BYTES + _UDP_HEADER_BYTES
        return b"".join((begin(0x45, 0, headers + size), middle, end(_UDP_HEADER_BYTES + size, 0), content))

    return make


def fragments(packet: bytes, identification: int) -> list[bytes]:
    """Return a packet in parts that every link carries (RFC 791 §3.2, RFC 8200 §4.5). `identification`: below 2^16."""
    is_v6 = packet[0] >> 4 == 6
    header, content = packet[:_V6_HEADER_BYTES], packet[_V6_HEADER_BYTES:]
    if not is_v6:
        header, content = packet[:_IP_HEADER_BYTES], packet[_IP_HEADER_BYTES:]
    parts = []
    for start in range(0, len(content), FRAGMENT_BYTES):
        part = content[start : start + FRAGMENT_BYTES]
        more = start + len(part) < len(content)
        if is_v6:
            extension = struct.pack(">BBHI", header[6], 0, start | more, identification)
            length = struct.pack(">H", len(extension) + len(part))
            parts.append(header[:4] + length + bytes([_FRAGMENT]) + header[7:] + extension + part)
        else:
            fields = struct.pack(">HHH", _IP_HEADER_BYTES + len(part), identification, more << 13 | start >> 3)
            parts.append(header[:2] + fields + header[8:] + part)
    return parts


def datagram_refused(source: Endpoint, destination: Endpoint, code: int) -> bytes:
    """Return the ICMP error that tells `source` that its datagram to `destination` could not be delivered."""
    original = datagram(source, destination, b"")
    if ":" in source[0]:
        v6_code = _V6_CODES.get(code, code)
        message = struct.pack(">BBHI", _V6_UNREACHABLE, v6_code, 0, 0) + original
        total = v6_checksum(destination[0], source[0], _ICMPV6, message)
        message = message[:2] + struct.pack(">H", total) + message[4:]
        return ip_header(destination[0], source[0], _ICMPV6, len(message)) + message
    message = struct.pack(">BBHI", _UNREACHABLE, code, 0, 0) + original
    total = checksum(message)
    message = message[:2] + struct.pack(">H", total) + message[4:]
    return ip_header(destination[0], source[0], _ICMP, len(message)) + message
