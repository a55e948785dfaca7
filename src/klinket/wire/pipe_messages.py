"""What OPEN, OPENED and FAIL frames hold (docs/reference/wire.md)."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from klinket.domain.address import canonical_host
from klinket.domain.errors import InvalidInput, ProtocolError
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from klinket.domain.identifiers import FlowId, ResourceId
from klinket.domain.printable import printable

#: Bytes of an OPEN's content: all are equally long, so their length tells nothing about the name. With the type: 512.
OPEN_BYTES = 511
MAX_MESSAGE_BYTES = 400
MAX_ADDRESS_BYTES = 64
_OPEN = struct.Struct(">BBHQ16sB")
_FAIL = struct.Struct(">BH")
_PROTOCOLS = {1: TransportProtocol.ICMP, 6: TransportProtocol.TCP, 17: TransportProtocol.UDP}
_PROTOCOL_NUMBERS = {protocol: number for number, protocol in _PROTOCOLS.items()}
_FLAG_DATA_FOLLOWS = 1

#: Numbers of failures on the wire; only ever added to.
FAILURE_NUMBERS = {
    FlowFailure.INTERNAL: 0,
    FlowFailure.NOT_GRANTED: 1,
    FlowFailure.SERVICE_KEY_REVOKED: 2,
    FlowFailure.SERVICE_KEY_EXPIRED: 3,
    FlowFailure.GRANT_EXPIRED: 4,
    FlowFailure.NAME_NOT_FOUND: 5,
    FlowFailure.REFUSED: 6,
    FlowFailure.TIMED_OUT: 7,
    FlowFailure.UNREACHABLE: 8,
    FlowFailure.ADDRESS_FORBIDDEN: 9,
    FlowFailure.THROTTLED: 10,
    FlowFailure.DRAINING: 11,
    FlowFailure.RESET: 12,
    FlowFailure.CUT: 13,
    FlowFailure.NO_CONNECTOR: 14,
    FlowFailure.CONTROLLER_UNREACHABLE: 15,
    FlowFailure.ICMP_UNAVAILABLE: 16,
}
_FAILURES = {number: failure for failure, number in FAILURE_NUMBERS.items()}


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """An OPEN: protocol (1) | flags (1) | port, 0 for ICMP (2) | resource (8) | flow (16) | host length (1) | host | zeros.

    `host` is what the program asked for, canonical: a name, an alias or an address. `data_follows`: the client sent DATA without
    waiting for OPENED, so this OPEN must not be retried elsewhere.
    """

    destination: Destination
    resource: ResourceId
    flow: FlowId
    data_follows: bool = False

    def encode(self) -> bytes:
        """Return the content, OPEN_BYTES long."""
        host = self.destination.host.encode("ascii")
        fixed = _OPEN.pack(
            _PROTOCOL_NUMBERS[self.destination.protocol],
            _FLAG_DATA_FOLLOWS if self.data_follows else 0,
            self.destination.port,
            self.resource,
            bytes.fromhex(self.flow),
            len(host),
        )
        return (fixed + host).ljust(OPEN_BYTES, b"\0")

    @classmethod
    def decode(cls, content: bytes) -> OpenRequest:
        """Return the request; raises ProtocolError."""
        if len(content) != OPEN_BYTES:
            raise ProtocolError(f"OPEN of {len(content)} bytes instead of {OPEN_BYTES}")
        number, flags, port, resource, flow, length = _OPEN.unpack_from(content)
        raw = content[_OPEN.size : _OPEN.size + length]
        protocol = _PROTOCOLS.get(number)
        if protocol is None or flags & ~_FLAG_DATA_FOLLOWS or (port == 0) is not (protocol is TransportProtocol.ICMP):
            raise ProtocolError("OPEN: unknown protocol, flag or port")
        end = _OPEN.size + length
        if content[end:] != bytes(max(0, OPEN_BYTES - end)) or len(raw) != length:
            raise ProtocolError("OPEN: the padding is not zero")
        try:
            host = raw.decode("ascii")
            if canonical_host(host) != host:
                raise ProtocolError("OPEN: the host is not in canonical form")
        except (UnicodeDecodeError, InvalidInput) as error:
            raise ProtocolError("OPEN: not a host") from error
        destination = Destination(host, port, protocol)
        return cls(destination, ResourceId(resource), FlowId(flow.hex()), bool(flags))


@dataclass(frozen=True, slots=True)
class Failure:
    """A FAIL: number of the failure (1) | retry after, whole seconds, 0: none (2) | message, UTF-8."""

    failure: FlowFailure
    message: str = ""
    retry_after: float | None = None

    def encode(self) -> bytes:
        """Return the content."""
        seconds = 0 if self.retry_after is None else max(1, min(65_535, round(self.retry_after)))
        message = self.message.encode()[:MAX_MESSAGE_BYTES]
        return _FAIL.pack(FAILURE_NUMBERS[self.failure], seconds) + message

    @classmethod
    def decode(cls, content: bytes) -> Failure:
        """Return the failure; an unknown number reads as INTERNAL. Raises ProtocolError."""
        if not _FAIL.size <= len(content) <= _FAIL.size + MAX_MESSAGE_BYTES:
            raise ProtocolError(f"FAIL of {len(content)} bytes")
        number, seconds = _FAIL.unpack_from(content)
        message = printable(content[_FAIL.size :].decode("utf-8", "replace"))
        return cls(_FAILURES.get(number, FlowFailure.INTERNAL), message, float(seconds) or None)


@dataclass(frozen=True, slots=True)
class OpenAnswer:
    """An OPENED: the address the connector dialled, as text; empty for none."""

    address: str = ""

    def encode(self) -> bytes:
        """Return the content."""
        return self.address.encode("ascii")

    @classmethod
    def decode(cls, content: bytes) -> OpenAnswer:
        """Return the answer; raises ProtocolError."""
        if len(content) > MAX_ADDRESS_BYTES or not content.isascii() or not (text := content.decode("ascii")).isprintable():
            raise ProtocolError("OPENED: not an address")
        return cls(text)
