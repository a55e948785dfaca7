"""A rule that holds packets in a queue, for kernels whose nftables have no queue statement: the old NFQUEUE target by netlink.

linux/netfilter/nf_tables.h, nf_tables_compat.h and xt_NFQUEUE.h; `nft` has no words for it.
"""

from __future__ import annotations

import socket
import struct

_NETLINK_NETFILTER = 12
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NFTABLES = 10
_NEW_RULE = _NFTABLES << 8 | 6
_REQUEST, _ACK, _CREATE = 1, 4, 0x400
_NFPROTO_INET = 1
_NESTED = 0x8000
_SECONDS = 5.0


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _message(kind: int, flags: int, body: bytes, *, family: int = 0, resource: int = 0) -> bytes:
    content = struct.pack(">BBH", family, 0, resource) + body
    return struct.pack("=IHHII", 16 + len(content), kind, flags, 0, 0) + content


def request(table: str, chain: str, queue: int) -> bytes:
    """Return the batch that puts the rule in front of a chain of an inet table; acknowledged."""
    target = _attribute(1, b"NFQUEUE\0") + _attribute(2, struct.pack(">I", 0)) + _attribute(3, struct.pack("=H6x", queue))
    expression = _attribute(1 | _NESTED, _attribute(1, b"target\0") + _attribute(2 | _NESTED, target))
    rule = _attribute(1, table.encode() + b"\0") + _attribute(2, chain.encode() + b"\0") + _attribute(4 | _NESTED, expression)
    return (
        _message(_BATCH_BEGIN, _REQUEST, b"", resource=_NFTABLES)
        + _message(_NEW_RULE, _REQUEST | _ACK | _CREATE, rule, family=_NFPROTO_INET)
        + _message(_BATCH_END, _REQUEST, b"", resource=_NFTABLES)
    )


def insert(table: str, chain: str, queue: int) -> None:
    """Put the rule in place; raises OSError with what the kernel says."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as sock:
        sock.settimeout(_SECONDS)
        sock.sendto(request(table, chain, queue), (0, 0))
        answer = sock.recv(65_536)
    error: int = struct.unpack_from("=i", answer, 16)[0]
    if error:
        raise OSError(-error, "the kernel refuses the NFQUEUE target")
