"""The words of DNS that all who speak it share (RFC 1035, IANA's DNS parameters)."""

from __future__ import annotations

from enum import IntEnum

#: The class of the Internet.
IN = 1
#: Bytes of a message over UDP that are asked for, and taken: passes everywhere without fragments (dnsflagday.net, 2020).
MAX_UDP_PAYLOAD = 1232
#: Bytes of a name (RFC 1035 §2.3.4).
MAX_NAME_BYTES = 255


class RecordType(IntEnum):
    """Types of records that are told apart here; there are many more."""

    A = 1
    CNAME = 5
    PTR = 12
    AAAA = 28
    A6 = 38
    OPT = 41
    SVCB = 64
    HTTPS = 65


class Code(IntEnum):
    """RCODE."""

    NO_ERROR = 0
    SERVER_FAILURE = 2
    NO_SUCH_NAME = 3
    REFUSED = 5


def encode_name(name: str) -> bytes:
    """Return a canonical name (domain.address.canonical_host) as labels."""
    return b"".join(bytes([len(label)]) + label.encode("ascii") for label in name.split(".")) + b"\0"
