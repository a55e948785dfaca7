"""IPv4 packets as bytes: reading a SYN, writing a datagram and an ICMP error (RFC 791, 768, 792)."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from klinket.domain.errors import ProtocolError

#: Bytes of content one IPv4 datagram can carry: 65,535 less both headers.
MAX_DATAGRAM_BYTES = 65_507
_IP_HEADER_BYTES = 20
_UDP_HEADER_BYTES = 8
_TCP, _UDP, _ICMP = 6, 17, 1
_UNREACHABLE = 3
PORT_UNREACHABLE = 3
HOST_UNREACHABLE = 1

Endpoint = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Syn:
    """The first packet of a connection. `number`: its sequence number, the same in each repetition."""

    source: Endpoint
    destination: Endpoint
    number: int


def read_syn(packet: bytes) -> Syn:
    """Return the SYN in an IPv4 packet; raises ProtocolError."""
    header = (packet[0] & 0x0F) * 4 if packet else 0
    if len(packet) < header + 8 or header < _IP_HEADER_BYTES or packet[0] >> 4 != 4 or packet[9] != _TCP:
        raise ProtocolError("not an IPv4 packet with TCP in it")
    source_port, destination_port, number = struct.unpack_from(">HHI", packet, header)
    return Syn((socket.inet_ntoa(packet[12:16]), source_port), (socket.inet_ntoa(packet[16:20]), destination_port), number)


def _ip_header(source: str, destination: str, protocol: int, length: int) -> bytes:
    # The kernel fills in id and checksum (raw(7), IP_HDRINCL).
    addresses = socket.inet_aton(source) + socket.inet_aton(destination)
    return struct.pack(">BBHHHBBH", 0x45, 0, _IP_HEADER_BYTES + length, 0, 0, 64, protocol, 0) + addresses


def datagram(source: Endpoint, destination: Endpoint, content: bytes) -> bytes:
    """Return a UDP packet; raises ValueError beyond MAX_DATAGRAM_BYTES. No checksum: it never leaves the host."""
    if len(content) > MAX_DATAGRAM_BYTES:
        raise ValueError(f"a datagram of {len(content)} bytes")
    length = _UDP_HEADER_BYTES + len(content)
    header = struct.pack(">HHHH", source[1], destination[1], length, 0)
    return _ip_header(source[0], destination[0], _UDP, length) + header + content


def datagram_refused(source: Endpoint, destination: Endpoint, code: int) -> bytes:
    """Return the ICMP error that tells `source` that its datagram to `destination` could not be delivered."""
    original = datagram(source, destination, b"")
    message = struct.pack(">BBHI", _UNREACHABLE, code, 0, 0) + original
    checksum = _checksum(message)
    message = message[:2] + struct.pack(">H", checksum) + message[4:]
    return _ip_header(destination[0], source[0], _ICMP, len(message)) + message


def _checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    total = sum(int.from_bytes(data[start : start + 2].ljust(2, b"\0")) for start in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
