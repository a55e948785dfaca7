"""The kernel's packet queue over netlink, without sockets: linux/netfilter/nfnetlink_queue.h."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from klinket.domain.errors import ProtocolError

#: Bytes of each packet the kernel copies: IP and TCP headers with all options.
COPY_BYTES = 128
#: The most the kernel copies of one packet: an attribute's length has 16 bits.
WHOLE_PACKET_BYTES = 65_531
#: Packets the kernel holds at the most; more are dropped.
MAX_HELD = 1024

_SUBSYSTEM = 3 << 8  # NFNL_SUBSYS_QUEUE
_PACKET, _VERDICT, _CONFIG = 0, 1, 2
_REQUEST, _ACK = 1, 4
_NLMSG_ERROR = 2
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_COMMAND_BIND = 1
_COPY_PACKET = 2
_AF_INET = 2


class Verdict(IntEnum):
    DROP = 0
    ACCEPT = 1


@dataclass(frozen=True, slots=True)
class HeldPacket:
    """A packet in the queue. `id`: names it in the verdict; `content`: its first bytes, from the IP header on."""

    id: int
    content: bytes


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """The kernel's word on a request. `error`: an errno, 0 when it was taken."""

    error: int


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _message(kind: int, flags: int, queue: int, attributes: bytes) -> bytes:
    body = struct.pack(">BBH", 0, 0, queue) + attributes
    return _HEADER.pack(_HEADER.size + len(body), _SUBSYSTEM | kind, flags, 0, 0) + body


def bind(queue: int) -> bytes:
    """Return the request to receive this queue; acknowledged."""
    return _message(_CONFIG, _REQUEST | _ACK, queue, _attribute(1, struct.pack(">BxH", _COMMAND_BIND, _AF_INET)))


def configure(queue: int, copy_bytes: int = COPY_BYTES) -> bytes:
    """Return the request for the first `copy_bytes` of each packet and MAX_HELD packets at the most; acknowledged."""
    attributes = _attribute(2, struct.pack(">IB", copy_bytes, _COPY_PACKET)) + _attribute(3, struct.pack(">I", MAX_HELD))
    return _message(_CONFIG, _REQUEST | _ACK, queue, attributes)


def verdict(queue: int, packet: int, word: Verdict, mark: int = 0) -> bytes:
    """Return the word on a held packet; `mark` decides which rule it meets next."""
    attributes = _attribute(2, struct.pack(">II", word, packet))
    if mark:
        attributes += _attribute(3, struct.pack(">I", mark))
    return _message(_VERDICT, _REQUEST, queue, attributes)


def decode(data: bytes) -> Iterator[HeldPacket | Acknowledgement]:
    """Return what the kernel sent in one datagram; raises ProtocolError."""
    position = 0
    while position + _HEADER.size <= len(data):
        length, kind, *_ = _HEADER.unpack_from(data, position)
        if length < _HEADER.size or position + length > len(data):
            raise ProtocolError("a netlink message of a wrong length")
        body = data[position + _HEADER.size : position + length]
        if kind == _NLMSG_ERROR:
            if len(body) < 4:
                raise ProtocolError("a short netlink acknowledgement")
            yield Acknowledgement(-struct.unpack_from("=i", body)[0])
        elif kind == _SUBSYSTEM | _PACKET:
            yield _held(body)
        position += length + (-length % 4)


def _held(body: bytes) -> HeldPacket:
    id: int | None = None
    content = b""
    position = 4
    while position + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, position)
        if length < _ATTRIBUTE.size or position + length > len(body):
            raise ProtocolError("a netlink attribute of a wrong length")
        value = body[position + _ATTRIBUTE.size : position + length]
        if kind & 0x3FFF == 1 and len(value) >= 4:
            id = int.from_bytes(value[:4])
        elif kind & 0x3FFF == 10:
            content = value
        position += length + (-length % 4)
    if id is None:
        raise ProtocolError("a held packet without an id")
    return HeldPacket(id, content)
