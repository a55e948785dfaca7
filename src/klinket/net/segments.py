"""Several datagrams of one size in one system call, where the kernel has it: Linux from 5.0 on (udp(7)).

What leaves so crosses the kernel, and links that carry it whole, as one packet, which is cut at the last moment. What comes so
was sent so, or put together by a network card's driver.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import Any

#: Options of linux/udp.h that the socket module does not name.
_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
SUPPORTED = sys.platform == "linux"
_SIZE = struct.Struct("=H")
_SIZE_READ = struct.Struct("=i")
#: Bytes for what recvmsg() says beside a datagram: one number.
_ANCILLARY_BYTES = 64


def accept(sock: socket.socket) -> None:
    """Have datagrams of one size and sender come together from now on: they are to be read with receive()."""
    if SUPPORTED:
        try:
            sock.setsockopt(_SOL_UDP, _UDP_GRO, 1)
        except OSError:
            return  # an older kernel: each comes by itself


def send(sock: socket.socket, datagrams: memoryview, size: int, to: Any) -> None:
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
