"""ICMP echoes with one address: through a ping socket, which needs no privileges, or a raw one (icmp(7), raw(7)).

Linux lets the groups of sysctl net.ipv4.ping_group_range have ping sockets, of both families. A raw socket needs CAP_NET_RAW.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Sequence

from klinket.domain.errors import FlowRefused
from klinket.domain.flow import HINTS, FlowFailure
from klinket.net.checksum import checksum
from klinket.net.sockets import FamilyAddress, mark
from klinket.wire.echo import Echo

_ECHO = struct.Struct(">BBHHH")
_REQUEST, _REPLY = 8, 0
_V6_REQUEST, _V6_REPLY = 128, 129
#: Options of linux/in.h, linux/in6.h, linux/icmp.h and linux/icmpv6.h that the socket module does not name on every system.
_IP_RECVERR, _IPV6_RECVERR = 11, 25
_SOL_RAW, _ICMP_FILTER = 255, 1
_ICMP6_FILTER = 1
_MSG_ERRQUEUE = 0x2000
#: A socket has a peer only where its port is not 0; ICMP has no ports, and nothing of it is sent.
_SOME_PORT = 1
_MAX_BYTES = 65_536
#: What the kernel says of one echo only: too large for the way, or no room for it now.
_LOST = (errno.EMSGSIZE, errno.ENOBUFS, errno.EAGAIN)
#: Errors of the network read in one turn.
_BATCH = 16


class EchoSocket:
    """A socket that sends echo requests to one address and receives its replies. The identifier is the socket's own."""

    def __init__(self, sock: socket.socket, kind: int) -> None:
        self._sock = sock
        self._is_v6 = sock.family == socket.AF_INET6
        self._is_raw = kind == socket.SOCK_RAW
        # The kernel gives a ping socket an identifier of its own; a raw one sees everybody's replies.
        self._identifier = int.from_bytes(os.urandom(2)) if self._is_raw else sock.getsockname()[1]

    @classmethod
    def open(cls, addresses: Sequence[FamilyAddress]) -> EchoSocket:
        """Return one whose peer is the first address that has a route; sends nothing.

        Raises FlowRefused (`icmp-unavailable`) where this process may have neither kind of socket, OSError with no route.
        """
        failure: OSError | None = None
        for family, address in addresses:
            try:
                sock, kind = _make(family)
            except PermissionError as error:
                raise FlowRefused(
                    FlowFailure.ICMP_UNAVAILABLE,
                    "klinket may not send echo requests here: its group is outside net.ipv4.ping_group_range, "
                    "and it has no CAP_NET_RAW",
                    hint=HINTS[FlowFailure.ICMP_UNAVAILABLE],
                ) from error
            except OSError as error:  # a family this machine does not speak
                failure = error
                continue
            try:
                sock.connect((address[0], _SOME_PORT, *address[2:]))
                return cls(sock, kind)
            except OSError as error:
                sock.close()
                failure = error
        raise failure or OSError("no address")

    @property
    def peer(self) -> str:
        """Return the address at the other end."""
        return str(self._sock.getpeername()[0])

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._sock.fileno()

    async def send(self, echo: Echo) -> None:
        """Send a request; one that does not fit is lost. Raises OSError when the network says that none arrives."""
        request = _ECHO.pack(_V6_REQUEST if self._is_v6 else _REQUEST, 0, 0, self._identifier, echo.sequence) + echo.payload
        if self._is_raw and not self._is_v6:  # for all others the kernel computes it
            request = request[:2] + struct.pack(">H", checksum(request)) + request[4:]
        try:
            self._sock.send(request)
        except OSError as error:
            if error.errno not in _LOST:
                self._raise_for_own(error)

    async def receive(self) -> Echo:
        """Return the next reply; raises OSError when the network says that a request has not arrived."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                packet = await loop.sock_recv(self._sock, _MAX_BYTES)
            except OSError as error:
                self._raise_for_own(error)
                continue
            if (echo := self._read(packet)) is not None:
                return echo

    def _read(self, packet: bytes) -> Echo | None:
        if self._is_raw and not self._is_v6:
            packet = packet[(packet[0] & 0x0F) * 4 if packet else 0 :]
        if len(packet) < _ECHO.size:
            return None
        kind, code, _, identifier, sequence = _ECHO.unpack_from(packet)
        if (kind, code) != (_V6_REPLY if self._is_v6 else _REPLY, 0) or (self._is_raw and identifier != self._identifier):
            return None
        return Echo(sequence, packet[_ECHO.size :])

    def _raise_for_own(self, error: OSError) -> None:
        """Raise an error of the network that is about a request of this socket; a raw one is told of everybody's."""
        told = False
        for _ in range(_BATCH):
            try:
                about, _, _, _ = self._sock.recvmsg(_ECHO.size, 512, _MSG_ERRQUEUE | socket.MSG_DONTWAIT)
            except OSError:
                break
            told = True
            if len(about) < _ECHO.size or error.errno in _LOST:
                continue
            kind, _, _, identifier, _ = _ECHO.unpack_from(about)
            if kind == (_V6_REQUEST if self._is_v6 else _REQUEST) and identifier == self._identifier:
                raise error
        if not told and error.errno not in _LOST:  # of this machine: no route, a firewall
            raise error

    def close(self) -> None:
        """Close it; nothing may wait for it any more."""
        self._sock.close()


def _make(family: int) -> tuple[socket.socket, int]:
    """Return a non-blocking socket with its kind; raises PermissionError where neither kind is allowed, OSError."""
    is_v6 = family == socket.AF_INET6
    protocol = socket.IPPROTO_ICMPV6 if is_v6 else socket.IPPROTO_ICMP
    try:
        sock, kind = socket.socket(family, socket.SOCK_DGRAM, protocol), socket.SOCK_DGRAM
    except OSError as error:
        if not isinstance(error, PermissionError) and error.errno != errno.EPROTONOSUPPORT:
            raise
        sock, kind = socket.socket(family, socket.SOCK_RAW, protocol), socket.SOCK_RAW
    try:
        sock.setblocking(False)
        mark(sock)
        if is_v6:
            sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
            if kind == socket.SOCK_RAW:
                words = [0xFFFF_FFFF] * 8  # a bit that is set keeps its type out
                words[_V6_REPLY >> 5] &= ~(1 << (_V6_REPLY & 31)) & 0xFFFF_FFFF
                sock.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *words))
        else:
            sock.setsockopt(socket.IPPROTO_IP, _IP_RECVERR, 1)
            if kind == socket.SOCK_RAW:
                sock.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", ~(1 << _REPLY) & 0xFFFF_FFFF))
    except BaseException:
        sock.close()
        raise
    return sock, kind
