"""Several datagrams of one size in one system call, where the kernel has it: Linux from 5.0 on (udp(7)).

What leaves so crosses the kernel, and links that carry it whole, as one packet, which is cut at the last moment. What comes so
was sent so, or put together by a network card's driver.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable, Iterator
from typing import Any

#: Options of linux/udp.h that the socket module does not name.
_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
SUPPORTED = sys.platform == "linux"
_SIZE = struct.Struct("=H")
_SIZE_READ = struct.Struct("=i")
#: Bytes for what recvmsg() says beside a datagram: one number.
_ANCILLARY_BYTES = 64

#: Takes datagrams that have come together, one behind the other, and the size of each but the last, which may be shorter. They
#: are there until it returns.
Taker = Callable[[bytes | memoryview, int], None]


def split(datagrams: bytes | memoryview, size: int) -> Iterator[bytes]:
    """Return each of the datagrams that a Taker gets."""
    if len(datagrams) <= size:
        yield bytes(datagrams)
        return
    for start in range(0, len(datagrams), size):
        yield bytes(datagrams[start : start + size])


def runs(datagrams: memoryview, size: int, head: int) -> Iterator[memoryview]:
    """Return datagrams of `size` bytes each, the last may be shorter: in parts whose first `head` bytes are the same."""
    begin, same = 0, bytes(datagrams[:head])
    for start in range(size or 1, len(datagrams), size or 1):
        if datagrams[start : start + head] != same:
            yield datagrams[begin:start]
            begin = start
            same = bytes(datagrams[begin : begin + head])
    yield datagrams[begin:]


def accept(sock: socket.socket) -> None:
    """Have datagrams of one size and sender come together from now on: they are to be read with receive()."""
    if SUPPORTED:
        try:
            sock.setsockopt(_SOL_UDP, _UDP_GRO, 1)
        except OSError:
            return  # an older kernel: each comes by itself


def send(sock: socket.socket, datagrams: bytes | memoryview, size: int, to: Any) -> None:
    """Send datagrams of `size` bytes each, the last may be shorter; raises OSError. `to`: None on a connected socket."""
    ancillary = [(_SOL_UDP, _UDP_SEGMENT, _SIZE.pack(size))]
    if to is None:
        sock.sendmsg([datagrams], ancillary)
    else:
        sock.sendmsg([datagrams], ancillary, 0, to)


def receive(sock: socket.socket, buffer: memoryview) -> tuple[int, int, Any]:
    """Read what has come from one sender: how many bytes, the size of each datagram but the last, and from where.

    Raises OSError. `buffer`: 65,536 bytes.
    """
    count, ancillary, _, address = sock.recvmsg_into((buffer,), _ANCILLARY_BYTES)
    for level, kind, data in ancillary:
        if level == _SOL_UDP and kind == _UDP_GRO and len(data) >= _SIZE_READ.size:
            return count, max(1, _SIZE_READ.unpack_from(data)[0]), address
    return count, count, address
