"""Just enough DNS for a stub (RFC 1035 §4): one question in, an address or a code out; everything else stays bytes."""

from __future__ import annotations

import re
import socket
import struct
from dataclasses import dataclass
from enum import IntEnum

from klinket.domain.address import parse_ip
from klinket.domain.errors import ProtocolError

HEADER_BYTES = 12
#: Bytes of a message over TCP, and of a query klinket reads over UDP.
MAX_MESSAGE_BYTES = 65_535
IN = 1

_REVERSE = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\.in-addr\.arpa", re.ASCII)
_REVERSE6 = re.compile(r"(?:[0-9a-f]\.){32}ip6\.arpa", re.ASCII)


class RecordType(IntEnum):
    A = 1
    PTR = 12
    AAAA = 28
    SVCB = 64
    HTTPS = 65


class Code(IntEnum):
    """RCODE."""

    NO_ERROR = 0
    SERVER_FAILURE = 2
    NO_SUCH_NAME = 3
    REFUSED = 5


@dataclass(frozen=True, slots=True)
class Query:
    """A standard query. `name`: as asked, dots between labels, no final one; `question`: its bytes, repeated in the answer."""

    id: bytes
    flags: int
    name: str
    type: int
    dns_class: int
    question: bytes

    @property
    def reverse_address(self) -> str | None:
        """Return the address whose name is asked for, or None."""
        if self.type != RecordType.PTR:
            return None
        name = self.name.lower()
        if match := _REVERSE.fullmatch(name):
            address = ".".join(reversed(match.groups()))
            return None if parse_ip(address) is None else address  # 00.0.0.1 and 300.0.0.1 are none
        if _REVERSE6.fullmatch(name):
            return socket.inet_ntop(socket.AF_INET6, bytes.fromhex(name[:63:2][::-1]))
        return None


def parse_query(message: bytes) -> Query:
    """Return the query; raises ProtocolError for what is none. Compression in a question is refused."""
    if len(message) < HEADER_BYTES:
        raise ProtocolError("shorter than a DNS header")
    flags, questions = struct.unpack_from(">HH", message, 2)
    if flags & 0xF800 or questions != 1:
        raise ProtocolError("not a standard query with one question")
    labels: list[str] = []
    position = HEADER_BYTES
    while True:
        if position >= len(message):
            raise ProtocolError("the question is cut off")
        length = message[position]
        if length == 0:
            break
        if length > 63 or position - HEADER_BYTES + length > 253:
            raise ProtocolError("a label or name that is too long, or compressed")
        labels.append(message[position + 1 : position + 1 + length].decode("latin-1"))
        position += 1 + length
    end = position + 5
    if end > len(message):
        raise ProtocolError("the question is cut off")
    kind, dns_class = struct.unpack_from(">HH", message, position + 1)
    return Query(message[:2], flags, ".".join(labels), kind, dns_class, message[HEADER_BYTES:end])


def _answer(query: Query, code: Code, count: int, records: bytes) -> bytes:
    # QR and RA; opcode and RD as asked.
    flags = 0x8080 | (query.flags & 0x0100) | code
    return query.id + struct.pack(">HHHHH", flags, 1, count, 0, 0) + query.question + records


def answer_code(query: Query, code: Code) -> bytes:
    """Return an answer without records."""
    return _answer(query, code, 0, b"")


def _record(kind: RecordType, seconds: int, data: bytes) -> bytes:
    return struct.pack(">HHHIH", 0xC000 | HEADER_BYTES, kind, IN, seconds, len(data)) + data


def answer_address(query: Query, address: str, seconds: int) -> bytes:
    """Return an answer with one A or AAAA record."""
    if ":" in address:
        record = _record(RecordType.AAAA, seconds, socket.inet_pton(socket.AF_INET6, address))
    else:
        record = _record(RecordType.A, seconds, socket.inet_aton(address))
    return _answer(query, Code.NO_ERROR, 1, record)


def answer_name(query: Query, name: str, seconds: int) -> bytes:
    """Return an answer with one PTR record; `name`: canonical."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    return _answer(query, Code.NO_ERROR, 1, _record(RecordType.PTR, seconds, labels))
