"""Just enough DNS for a stub (RFC 1035 §4): one question in, an address or a code out; everything else stays bytes."""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from klinket.domain.errors import ProtocolError
from klinket.wire.dns import IN, MAX_UDP_PAYLOAD, Code, RecordType, encode_name
from klinket.wire.dns_answer import reverse_address

HEADER_BYTES = 12
#: Bytes of a message over TCP, and of a query klinket reads over UDP.
MAX_MESSAGE_BYTES = 65_535
#: Bytes of an answer over UDP where the program says nothing, or says less (RFC 6891 §6.2.3).
UDP_BYTES = 512
#: Characters of the text of an Extended DNS Error.
MAX_TEXT_CHARS = 200
_EXTENDED_ERROR = 15


class ExtendedError(IntEnum):
    """Info codes of RFC 8914."""

    OTHER = 0
    PROHIBITED = 18
    NOT_SUPPORTED = 21
    NO_REACHABLE_AUTHORITY = 22


@dataclass(frozen=True, slots=True)
class Query:
    """A standard query. `name`: as asked, dots between labels, no final one; `question`: its bytes, repeated in the answer."""

    id: bytes
    flags: int
    name: str
    type: int
    dns_class: int
    question: bytes
    #: Bytes of an answer over UDP the program takes; None where it speaks no EDNS.
    payload: int | None = None

    @property
    def reverse_address(self) -> str | None:
        """Return the address whose name is asked for, or None."""
        return reverse_address(self.name.lower()) if self.type == RecordType.PTR else None


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
    return Query(message[:2], flags, ".".join(labels), kind, dns_class, message[HEADER_BYTES:end], _payload(message, end))


def _payload(message: bytes, end: int) -> int | None:
    """Return the size of an OPT record that directly follows the question, as it does in queries; None: there is none."""
    if message[6:10] != bytes(4) or message[10:12] != b"\0\x01" or len(message) < end + 11:
        return None
    name, kind, size = struct.unpack_from(">BHH", message, end)
    return max(UDP_BYTES, size) if name == 0 and kind == RecordType.OPT else None


def _answer(query: Query, code: int, count: int, records: bytes, options: bytes = b"", more_flags: int = 0) -> bytes:
    # QR and RA; opcode and RD as asked. EDNS is answered with EDNS.
    flags = 0x8080 | (query.flags & 0x0100) | code | more_flags
    extra = b"" if query.payload is None else struct.pack(">BHHIH", 0, RecordType.OPT, MAX_UDP_PAYLOAD, 0, len(options)) + options
    return query.id + struct.pack(">HHHHH", flags, 1, count, 0, 1 if extra else 0) + query.question + records + extra


def answer_code(query: Query, code: Code) -> bytes:
    """Return an answer without records."""
    return _answer(query, code, 0, b"")


def answer_failure(query: Query, info: ExtendedError, text: str, code: int = Code.SERVER_FAILURE) -> bytes:
    """Return an answer that says why there is none (RFC 8914), to programs that speak EDNS."""
    told = text[:MAX_TEXT_CHARS].encode("utf-8", "replace")
    return _answer(query, code, 0, b"", struct.pack(">HHH", _EXTENDED_ERROR, 2 + len(told), info) + told)


def answer_records(query: Query, code: int, records: Sequence[bytes], seconds: int, *, over_tcp: bool) -> bytes:
    """Return an answer with records of the type asked for (`records`: their data); over UDP with none where they do not fit."""
    whole = _answer(query, code, len(records), b"".join(_record(query.type, seconds, data) for data in records))
    if len(whole) <= (MAX_MESSAGE_BYTES if over_tcp else query.payload or UDP_BYTES):
        return whole
    return _answer(query, code, 0, b"", more_flags=0x0200)


def _record(kind: int, seconds: int, data: bytes) -> bytes:
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
    return _answer(query, Code.NO_ERROR, 1, _record(RecordType.PTR, seconds, encode_name(name)))
