"""ICMP echoes and what answers them, as IP packets (RFC 792, RFC 4443)."""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

from klinket.client.capture import packets
from klinket.domain.errors import ProtocolError
from klinket.net.checksum import checksum
from klinket.wire.echo import Echo

_ICMP, _ICMPV6 = 1, 58
_REQUEST, _REPLY, _UNREACHABLE = 8, 0, 3
_V6_REQUEST, _V6_REPLY, _V6_UNREACHABLE = 128, 129, 1
_ECHO = struct.Struct(">BBHHH")
_HEADER_BYTES, _V6_HEADER_BYTES = 20, 40
_FRAGMENT_BITS = 0x3FFF
#: Bytes of a request that an error repeats: with all headers no more than every link carries (RFC 1812 §4.3.2.3).
QUOTED_BYTES = 500

HOST_UNREACHABLE, PROTOCOL_UNREACHABLE, PROHIBITED = 1, 2, 13
#: The same in ICMPv6: address unreachable, prohibited by an administrator. It has no word for a protocol.
_V6_CODES = {HOST_UNREACHABLE: 3, PROTOCOL_UNREACHABLE: 3, PROHIBITED: 1}


@dataclass(frozen=True, slots=True)
class EchoRequest:
    """An echo request as a program sent it. `quoted`: its first QUOTED_BYTES, with the IP header."""

    source: str
    destination: str
    identifier: int
    echo: Echo
    quoted: bytes


def read(packet: bytes) -> EchoRequest:
    """Return the echo request in a whole IP packet; raises ProtocolError. IPv6 without extension headers."""
    if packet and packet[0] >> 4 == 6:
        header, length, family = _V6_HEADER_BYTES, _V6_HEADER_BYTES + int.from_bytes(packet[4:6]), socket.AF_INET6
        addresses = packet[8:24], packet[24:40]
        is_whole, protocol = True, packet[6] if len(packet) > 6 else -1
    else:
        header, length, family = (packet[0] & 0x0F) * 4 if packet else 0, int.from_bytes(packet[2:4]), socket.AF_INET
        addresses = packet[12:16], packet[16:20]
        is_whole = header >= _HEADER_BYTES and packet[0] >> 4 == 4 and not int.from_bytes(packet[6:8]) & _FRAGMENT_BITS
        protocol = packet[9] if len(packet) > 9 else -1
    message = packet[header:length]
    if not is_whole or len(message) < _ECHO.size or len(packet) < length:
        raise ProtocolError("not a whole IP packet with an echo request in it")
    kind, code, _, identifier, sequence = _ECHO.unpack_from(message)
    wanted = (_ICMPV6, _V6_REQUEST, 0) if family == socket.AF_INET6 else (_ICMP, _REQUEST, 0)
    if (protocol, kind, code) != wanted:
        raise ProtocolError("not an echo request")
    source, destination = (socket.inet_ntop(family, address) for address in addresses)
    if _checksum(source, destination, message):
        raise ProtocolError("an echo request that was damaged")
    return EchoRequest(source, destination, identifier, Echo(sequence, message[_ECHO.size :]), packet[:length][:QUOTED_BYTES])


def reply(source: str, destination: str, identifier: int, echo: Echo) -> bytes:
    """Return the packet with the reply of `source` to a request from `destination`."""
    kind = _V6_REPLY if ":" in source else _REPLY
    return _packet(source, destination, _ECHO.pack(kind, 0, 0, identifier, echo.sequence) + echo.payload)


def refusal(quoted: bytes, source: str, destination: str, code: int) -> bytes:
    """Return the ICMP error in the name of `source` that says to `destination` why its request, `quoted`, gets no reply."""
    if ":" in source:
        return _packet(source, destination, struct.pack(">BBHI", _V6_UNREACHABLE, _V6_CODES[code], 0, 0) + quoted)
    return _packet(source, destination, struct.pack(">BBHI", _UNREACHABLE, code, 0, 0) + quoted)


def _packet(source: str, destination: str, message: bytes) -> bytes:
    message = message[:2] + struct.pack(">H", _checksum(source, destination, message)) + message[4:]
    protocol = _ICMPV6 if ":" in source else _ICMP
    return packets.ip_header(source, destination, protocol, len(message)) + message


def _checksum(source: str, destination: str, message: bytes) -> int:
    if ":" in source:
        return packets.v6_checksum(source, destination, _ICMPV6, message)
    return checksum(message)
