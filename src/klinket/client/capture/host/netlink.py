"""What is changed often, or cannot be said to `nft`, goes to the kernel as netlink messages: elements of sets, routes, one rule.

linux/netlink.h, linux/rtnetlink.h, linux/netfilter/nf_tables.h, nf_tables_compat.h, xt_NFQUEUE.h. A batch of nftables is taken
as a whole or not at all, as a file for `nft` is.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence

_ROUTE, _NETFILTER = 0, 12
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NFTABLES = 10
_NEW_RULE, _NEW_ELEMENTS, _DELETE_ELEMENTS, _GET_GENERATION = (_NFTABLES << 8 | kind for kind in (6, 12, 14, 16))
_NEW_ROUTE, _DELETE_ROUTE = 24, 25
_REQUEST, _ACK, _REPLACE, _CREATE = 1, 4, 0x100, 0x400
_ERROR = 2
_NFPROTO_INET = 1
_NESTED = 0x8000
_INTERVAL_END = 1
#: An attribute's length is 16 bits.
_MAX_NESTED_BYTES = 60_000
_SECONDS = 5.0
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_BUFFER_BYTES = 16 << 20
#: rtmsg: protocol "static", scope "link", type "unicast".
_STATIC, _LINK_SCOPE, _UNICAST = 4, 253, 1

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ROUTE_HEADER = struct.Struct("=BBBBBBBBI")


def _attribute(kind: int, value: bytes) -> bytes:
    return _ATTRIBUTE.pack(4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _text(kind: int, value: str) -> bytes:
    return _attribute(kind, value.encode() + b"\0")


def _message(kind: int, flags: int, content: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(content), kind, flags | _REQUEST, 0, 0) + content


def _nf_message(kind: int, flags: int, body: bytes, *, family: int = 0, resource: int = 0) -> bytes:
    return _message(kind, flags, struct.pack(">BBH", family, 0, resource) + body)


def _batch(messages: Iterable[bytes]) -> bytes:
    begin, end = (_nf_message(kind, 0, b"", resource=_NFTABLES) for kind in (_BATCH_BEGIN, _BATCH_END))
    return b"".join((begin, *messages, end))


# ---- elements of sets


def _ends(network: str) -> tuple[bytes, bytes | None]:
    """Return the first address of a network and the one behind its last, None behind the very last."""
    address, _, length = network.partition("/")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    first = socket.inet_pton(family, address)
    bits = len(first) * 8
    behind = int.from_bytes(first) + (1 << (bits - int(length or bits)))
    return first, behind.to_bytes(len(first)) if behind >> bits == 0 else None


_END_FLAG = _attribute(3, struct.pack(">I", _INTERVAL_END))


def _head(key_bytes: int, more: int = 0) -> bytes:
    """Return what stands before a key: three attributes, each in the one before; `more`: bytes behind the key."""
    inner = _ATTRIBUTE.pack(4 + key_bytes, 1)
    key = _ATTRIBUTE.pack(8 + key_bytes, 1 | _NESTED)
    return _ATTRIBUTE.pack(12 + key_bytes + more, 1 | _NESTED) + key + inner


#: By the bytes of an address; made once, since there may be tens of thousands of elements.
_HEADS = {size: (_head(size), _head(size, len(_END_FLAG))) for size in (4, 16)}
_NEXT = [bytes([byte + 1]) for byte in range(255)]


def _interval(network: str) -> bytes:
    if ":" not in network and "/" not in network and not network.endswith(".255"):  # most of them are this, and it goes faster
        first = socket.inet_aton(network)
        head, end_head = _HEADS[4]
        return head + first + end_head + first[:3] + _NEXT[first[3]] + _END_FLAG
    first, behind = _ends(network)
    head, end_head = _HEADS[len(first)]
    return head + first + (end_head + behind + _END_FLAG if behind is not None else b"")


def _single(address: str) -> bytes:
    first, _ = _ends(address)
    return _HEADS[len(first)][0] + first


def _in_parts(elements: Sequence[bytes]) -> Iterator[bytes]:
    count = _MAX_NESTED_BYTES // max(map(len, elements), default=1)
    for at in range(0, len(elements), count):
        yield b"".join(elements[at : at + count])


def _of_set(kind: int, flags: int, table: str, name: str, elements: Sequence[bytes]) -> Iterator[bytes]:
    for part in _in_parts(elements):
        body = _text(1, table) + _text(2, name) + _attribute(3 | _NESTED, part)
        yield _nf_message(kind, flags, body, family=_NFPROTO_INET)


def elements_request(table: str, changes: Iterable[tuple[str, Sequence[str], Sequence[str]]], *, intervals: bool = True) -> bytes:
    """Return the batch that changes sets of an inet table; b"" when there is nothing to change.

    `changes`: (set, networks to take away, networks to add), without overlap; `intervals`: as the sets were declared.
    """
    encode = _interval if intervals else _single
    messages: list[bytes] = []
    for name, removed, added in changes:
        # Encoded elements sort as addresses do, and in that order they go fastest.
        messages += _of_set(_DELETE_ELEMENTS, 0, table, name, sorted(map(encode, removed)))
        messages += _of_set(_NEW_ELEMENTS, _CREATE, table, name, sorted(map(encode, added)))
    return _batch(messages) if messages else b""


# ---- a rule


def queue_request(table: str, chain: str, queue: int) -> bytes:
    """Return the batch that puts a rule in front of a chain that holds packets in a queue, by the old NFQUEUE target.

    For kernels whose nftables have no queue statement.
    """
    target = _text(1, "NFQUEUE") + _attribute(2, struct.pack(">I", 0)) + _attribute(3, struct.pack("=H6x", queue))
    expression = _attribute(1 | _NESTED, _text(1, "target") + _attribute(2 | _NESTED, target))
    rule = _text(1, table) + _text(2, chain) + _attribute(4 | _NESTED, expression)
    return _batch([_nf_message(_NEW_RULE, _CREATE, rule, family=_NFPROTO_INET)])


# ---- routes


def routes_request(table: int, link: int, source: str, removed: Iterable[str], added: Iterable[str]) -> bytes:
    """Return messages that take away and add routes through a link, all of the family of `source`."""
    source_bytes = _ends(source)[0]
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    behind = _attribute(7, source_bytes) + _attribute(4, struct.pack("=I", link)) + _attribute(15, struct.pack("=I", table))
    scope = _LINK_SCOPE if family == socket.AF_INET else 0
    size = len(source_bytes)
    messages: list[bytes] = []
    for kind, flags, networks in ((_DELETE_ROUTE, 0, removed), (_NEW_ROUTE, _CREATE | _REPLACE, added)):
        heads: dict[str, bytes] = {}  # all that stands before the address depends on the length of the prefix only
        for network in networks:
            address, _, length = network.partition("/")
            head = heads.get(length)
            if head is None:
                route = _ROUTE_HEADER.pack(family, int(length or size * 8), 0, 0, 0, _STATIC, scope, _UNICAST, 0)
                head = heads[length] = _message(kind, flags, route + _attribute(1, bytes(size)) + behind)[: -size - len(behind)]
            messages += (head, socket.inet_pton(family, address), behind)
    return b"".join(messages)


# ---- looking


def generation() -> int:
    """Return a number that changes with every change of nftables' rules, by whomever; raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER) as sock:
        sock.settimeout(_SECONDS)
        sock.sendto(_nf_message(_GET_GENERATION, 0, b""), (0, 0))
        answer = sock.recv(65_536)
    _raise_refusal(answer)
    number: int = struct.unpack_from(">I", answer, _HEADER.size + 8)[0]
    return number


# ---- sending


def change_rules(request: bytes) -> None:
    """Have the kernel take a batch of nftables; raises OSError with its answer. Blocks."""
    _send(_NETFILTER, request)


def change_routes(request: bytes) -> None:
    """Have the kernel take messages on routes; raises OSError with the first refusal. Blocks."""
    _send(_ROUTE, request)


def _send(protocol: int, request: bytes) -> None:
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as sock:
        sock.settimeout(_SECONDS)
        for option in (_SO_SNDBUFFORCE, _SO_RCVBUFFORCE):
            sock.setsockopt(socket.SOL_SOCKET, option, _BUFFER_BYTES)
        sock.bind((0, 0))
        sock.sendto(request, (0, 0))
        # The kernel has done everything when sendto returns, and has told what it refuses. Silence is consent.
        sock.setblocking(False)
        try:
            while True:
                _raise_refusal(sock.recv(65_536))
        except BlockingIOError:
            return


def _raise_refusal(answer: bytes) -> None:
    position = 0
    while position + _HEADER.size + 4 <= len(answer):
        length, kind, *_ = _HEADER.unpack_from(answer, position)
        if kind == _ERROR and (error := -struct.unpack_from("=i", answer, position + _HEADER.size)[0]):
            raise OSError(error, f"the kernel refuses a change: {os.strerror(error)}")
        position += max(length + (-length % 4), _HEADER.size)
