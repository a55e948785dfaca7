"""The sockets that captured connections, datagrams and DNS queries arrive at: on loopback, and transparent."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import dataclass

from klinket.client.capture.datagrams import IP_RECVORIGDSTADDR, IPV6_RECVORIGDSTADDR
from klinket.client.capture.host.rules import Ports
from klinket.net.sockets import mark

#: Options of linux/in.h and linux/in6.h that the socket module does not name.
_IP_TRANSPARENT = 19
_IPV6_TRANSPARENT = 75
_NETLINK_NETFILTER = 12
#: Bytes of the queue's and the datagrams' receive buffers: a burst is not lost before this process gets its turn.
BUFFER_BYTES = 4 << 20
_SO_RCVBUFFORCE = 33
_BACKLOG = 4096


@dataclass(frozen=True, slots=True)
class CaptureSockets:
    """Those of one family."""

    listener: socket.socket
    datagrams: socket.socket
    raw: socket.socket
    dns_listener: socket.socket
    dns: socket.socket
    dns_raw: socket.socket

    @classmethod
    def make(cls, family: int) -> CaptureSockets:
        """Return them bound and listening; raises OSError, and then leaves none open."""
        made: list[socket.socket] = []
        try:
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW) * 2:
                sock = socket.socket(family, kind, socket.IPPROTO_RAW if kind == socket.SOCK_RAW else 0)
                made.append(sock)
                if kind != socket.SOCK_RAW:
                    _bind(sock, family, kind)
        except BaseException:
            for sock in made:
                sock.close()
            raise
        return cls(*made)

    @property
    def ports(self) -> Ports:
        """Return where they are."""
        listener, datagrams, dns_listener, dns = (
            sock.getsockname()[1] for sock in (self.listener, self.datagrams, self.dns_listener, self.dns)
        )
        return Ports(listener, datagrams, dns_listener, dns)

    def close(self) -> None:
        """Close all that nobody has closed."""
        for sock in (self.listener, self.datagrams, self.raw, self.dns_listener, self.dns, self.dns_raw):
            sock.close()


def _bind(sock: socket.socket, family: int, kind: int) -> None:
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_TRANSPARENT, 1)
        sock.bind(("::1", 0))
    else:
        sock.setsockopt(socket.SOL_IP, _IP_TRANSPARENT, 1)
        sock.bind(("127.0.0.1", 0))
    if kind == socket.SOCK_STREAM:
        sock.listen(_BACKLOG)
        return
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVORIGDSTADDR, 1)
    else:
        sock.setsockopt(socket.SOL_IP, IP_RECVORIGDSTADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER_BYTES)


def echo_answers(families: Sequence[int]) -> list[socket.socket]:
    """Return a raw socket of each family for what answers echo requests; raises OSError."""
    made: list[socket.socket] = []
    try:
        for family in families:
            made.append(sock := socket.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW))
            # A request that came from another machine was never let on, so connection tracking does not know its reply.
            mark(sock)
    except BaseException:
        for sock in made:
            sock.close()
        raise
    return made


def queue() -> socket.socket:
    """Return a netlink socket for a packet queue; raises OSError."""
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    sock.bind((0, 0))
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, BUFFER_BYTES)
    return sock
