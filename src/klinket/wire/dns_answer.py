"""Asking a resolver for the records of one name and type, and reading what it says (RFC 1035 §4, RFC 6891).

A resolver is believed no further than bytes go: names are expanded with a bound, and data that does not end where it should is
refused. What comes out holds no compressed name, so it can be put into any other message.
"""

from __future__ import annotations

import ipaddress
import re
import struct
from dataclasses import dataclass

from klinket.domain.address import parse_ip
from klinket.domain.errors import ProtocolError
from klinket.wire.dns import IN, MAX_NAME_BYTES, MAX_UDP_PAYLOAD, RecordType, encode_name

#: Records that are read of one answer, and links of a chain of CNAMEs.
MAX_RECORDS = 512
MAX_CHAIN = 16
_REVERSE = re.compile(r"([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\.([0-9]{1,3})\.in-addr\.arpa", re.ASCII)
_REVERSE6 = re.compile(r"(?:[0-9a-f]\.){32}ip6\.arpa", re.ASCII)
_HEADER = struct.Struct(">HHHHHH")

#: Where names stand in data that may hold compressed ones (RFC 3597 §4): octets before, names; what follows stays as it is.
_NAMES_IN_DATA = {
    2: (0, 1), 3: (0, 1), 4: (0, 1), 5: (0, 1), 6: (0, 2), 7: (0, 1), 8: (0, 1), 9: (0, 1), 12: (0, 1), 14: (0, 2),
    15: (2, 1), 17: (0, 2), 18: (2, 1), 21: (2, 1), 26: (2, 2), 33: (6, 1), 36: (2, 1), 39: (0, 1),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    """What a resolver said. `code`: its RCODE; `records`: data without compression; `seconds`: for which they may be kept."""

    code: int
    truncated: bool = False
    seconds: int = 0
    records: tuple[bytes, ...] = ()


def reverse_address(name: str) -> str | None:
    """Return the address that a lower-case name in in-addr.arpa or ip6.arpa is the reverse of; None: it is of none."""
    if match := _REVERSE.fullmatch(name):
        address = ".".join(reversed(match.groups()))
        return None if parse_ip(address) is None else address  # 00.0.0.1 and 300.0.0.1 are none
    if _REVERSE6.fullmatch(name):
        return str(ipaddress.IPv6Address(bytes.fromhex(name[:63:2][::-1])))
    return None


def subject(name: str, record_type: int) -> str:
    """Return the host whose grant a question needs: the address whose name is asked for, else the name itself."""
    address = reverse_address(name) if record_type == RecordType.PTR else None
    parsed = None if address is None else parse_ip(address)
    return name if parsed is None else str(parsed)


def encode_query(id: int, name: str, record_type: int) -> bytes:
    """Return a recursive query with an EDNS record. `name`: canonical (domain.address.canonical_host)."""
    question = encode_name(name) + struct.pack(">HH", record_type, IN)
    return _HEADER.pack(id, 0x0100, 1, 0, 0, 1) + question + struct.pack(">BHHIH", 0, RecordType.OPT, MAX_UDP_PAYLOAD, 0, 0)


def answers(message: bytes, query: bytes) -> bool:
    """Return whether a message is an answer to this query: the id, and the question whatever the case of its letters."""
    end = len(query) - 11
    return (
        len(message) >= end
        and message[:2] == query[:2]
        and bool(message[2] & 0x80)
        and message[4:6] == query[4:6]
        and message[12:end].lower() == query[12:end].lower()
    )


def decode_answer(message: bytes, query: bytes) -> DnsAnswer:
    """Return what an answer says of the name and type asked for, aliases (CNAME) followed; raises ProtocolError."""
    if not answers(message, query):
        raise ProtocolError("not an answer to the question")
    _, flags, _, count, _, _ = _HEADER.unpack_from(message)
    code, truncated = flags & 0x000F, bool(flags & 0x0200)
    position = len(query) - 11
    wanted, record_type = query[12 : position - 4].lower(), int.from_bytes(query[position - 4 : position - 2])
    if truncated or code:
        return DnsAnswer(code, truncated)
    if count > MAX_RECORDS:
        raise ProtocolError(f"more than {MAX_RECORDS} records")
    aliases: dict[bytes, tuple[bytes, int]] = {}
    found: dict[bytes, list[tuple[bytes, int]]] = {}
    for _ in range(count):
        owner, position = _name(message, position)
        kind, dns_class, seconds, length = _unpacked(">HHIH", message, position)
        position += 10
        data = _data(message, position, length, kind)
        position += length
        if dns_class != IN:
            continue
        seconds = 0 if seconds & 0x8000_0000 else seconds  # RFC 2181 §8
        if kind == record_type:
            found.setdefault(owner.lower(), []).append((data, seconds))
        elif kind == RecordType.CNAME:
            aliases[owner.lower()] = (data.lower(), seconds)
    kept = [0xFFFF_FFFF]
    for _ in range(MAX_CHAIN):
        if wanted in found or wanted not in aliases:
            break
        wanted, seconds = aliases[wanted]
        kept.append(seconds)
    records = found.get(wanted, [])
    if not records:
        return DnsAnswer(code)
    return DnsAnswer(code, False, min(*kept, *(seconds for _, seconds in records)), tuple(data for data, _ in records))


def _unpacked(form: str, message: bytes, position: int) -> tuple[int, ...]:
    if position + struct.calcsize(form) > len(message):
        raise ProtocolError("a record is cut off")
    return struct.unpack_from(form, message, position)


def _name(message: bytes, position: int) -> tuple[bytes, int]:
    """Return a name as labels without compression, and where what follows it begins."""
    labels: list[bytes] = []
    total, end, limit = 1, 0, position
    while True:
        (length,) = _unpacked(">B", message, position)
        if length >= 0xC0:
            (pointer,) = _unpacked(">H", message, position)
            end = end or position + 2
            position = pointer & 0x3FFF
            if position >= limit:
                raise ProtocolError("a name that points forward, or to itself")
            limit = position  # pointers only lead back: each ends
            continue
        if length > 63 or position + 1 + length > len(message):
            raise ProtocolError("a label that is too long, or cut off")
        if not length:
            return b"".join(labels) + b"\0", end or position + 1
        labels.append(message[position : position + 1 + length])
        total += 1 + length
        position += 1 + length
        if total > MAX_NAME_BYTES:
            raise ProtocolError(f"a name above {MAX_NAME_BYTES} bytes")


def _data(message: bytes, position: int, length: int, kind: int) -> bytes:
    end = position + length
    if end > len(message):
        raise ProtocolError("a record is cut off")
    if kind in _NAMES_IN_DATA:
        before, names = _NAMES_IN_DATA[kind]
        return _expanded(message, position, end, before, names)
    if kind == 35:  # NAPTR: order, preference, three texts, a name
        at = position + 4
        for _ in range(3):
            (size,) = _unpacked(">B", message, at)
            at += 1 + size
        return _expanded(message, position, end, at - position, 1)
    return message[position:end]


def _expanded(message: bytes, position: int, end: int, before: int, names: int) -> bytes:
    parts = [message[position : position + before]]
    at = position + before
    for _ in range(names):
        if at >= end:
            raise ProtocolError("the data of a record is cut off")
        name, at = _name(message, at)
        parts.append(name)
    if at > end:
        raise ProtocolError("the data of a record is cut off")
    return b"".join(parts) + message[at:end]
