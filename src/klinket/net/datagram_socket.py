"""UDP sockets for sealed datagrams, at every part they pass."""

from __future__ import annotations

import errno
import socket
import sys

from klinket.net import segments

#: Bytes the kernel may keep for a socket in each direction, where its limits let it.
BUFFER_BYTES = 4 << 20
#: What the kernel says of one datagram that it has no room for now.
NO_ROOM = (errno.EAGAIN, errno.ENOBUFS)
#: Options of linux/in.h and linux/in6.h that the socket module does not name: nothing is fragmented, on no way.
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_DO = 10, 23, 2


def prepare(sock: socket.socket) -> None:
    """Make a UDP socket non-blocking, with buffers for bursts, and never let it send fragments (where the system can: Linux)."""
    sock.setblocking(False)
    for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
    if sys.platform == "linux":
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_DO)
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_DO)
    segments.accept(sock)
