"""Small things about TCP sockets that every part does the same way."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from klinket.domain.errors import InvalidInput
from klinket.net.deadlines import within
from klinket.net.poll import readable, writable

#: A connection without traffic is probed after this many seconds, then every so many, and is dead after so many probes without an
#: answer: 60 s in all. Many probes: those of thousands of idle connections come in bursts, of which the network may lose some.
#: A peer whose machine lost power says nothing, and some connections wait for it without limit.
KEEPALIVE_IDLE_SECONDS = 30
KEEPALIVE_INTERVAL_SECONDS = 5
KEEPALIVE_PROBES = 6
#: TCP_USER_TIMEOUT is left alone on purpose: it also ends a connection whose reader is alive and only pauses (zero window).
_KEEPALIVE = tuple(
    (getattr(socket, name), value)
    for name, value in (
        ("TCP_KEEPIDLE", KEEPALIVE_IDLE_SECONDS),
        ("TCP_KEEPINTVL", KEEPALIVE_INTERVAL_SECONDS),
        ("TCP_KEEPCNT", KEEPALIVE_PROBES),
    )
    if hasattr(socket, name)  # macOS names the first one differently: its default holds
)

#: An address as `socket.connect` takes it, with its family in front.
FamilyAddress = tuple[int, tuple[str, int] | tuple[str, int, int, int]]

_LINGER_ZERO = struct.pack("ii", 1, 0)
_NO_LINGER = struct.pack("ii", 0, 0)


@dataclass(frozen=True, slots=True)
class HostPort:
    """A host (name or address, no brackets) and a port from 0 to 65535."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str, default_port: int | None = None) -> HostPort:
        """Return the parts of "host:port" or "[v6]:port"; raises InvalidInput("address")."""
        host, colon, port = text.rpartition(":")
        if (not colon or text.endswith("]")) and default_port is not None:
            host, port = text, str(default_port)
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        if not host or not port.isascii() or not port.isdigit() or len(port) > 5 or int(port) > 65_535:
            raise InvalidInput("address", f"not host:port: {text[:80]!r}")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


#: SO_MARK of the sockets that klinket dials with while it captures its own machine; 0: none is set.
_own_mark = 0


def mark_own(number: int) -> None:
    """Mark what `own_socket` makes from now on, so that the capture of this machine lets it pass; 0 ends that. Linux."""
    global _own_mark
    _own_mark = number


def own_socket(family: int, kind: int) -> socket.socket:
    """Return a socket for klinket's own traffic, close-on-exec and marked (see mark_own); raises OSError."""
    sock = socket.socket(family, kind | getattr(socket, "SOCK_CLOEXEC", 0))
    try:
        mark(sock)
    except OSError:
        sock.close()
        raise
    return sock


def mark(sock: socket.socket) -> None:
    """Mark a socket as klinket's own (see mark_own); raises OSError."""
    if _own_mark:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, _own_mark)


def create_connection(
    address: tuple[str, int],
    timeout: float,
    source_address: object = None,
    made: Callable[[int, int], socket.socket] | None = None,
) -> socket.socket:
    """Return a blocking socket connected to a name or address, as socket.create_connection does, marked (see mark_own).

    The signature is the one of http.client. `timeout`: seconds for each address; `made`: makes the socket of a family and kind.
    Raises OSError.
    """
    failure: OSError | None = None
    for family, kind, _, _, target in socket.getaddrinfo(*address, type=socket.SOCK_STREAM):
        sock: socket.socket | None = None
        try:
            sock = (made or own_socket)(family, kind)
            sock.settimeout(timeout)
            sock.connect(target)
            return sock
        except OSError as error:
            failure = error
            if sock is not None:
                sock.close()
    raise failure or OSError("no address")


def prepare(sock: socket.socket) -> socket.socket:
    """Make a TCP socket non-blocking, send small writes at once, and notice a peer that is gone; returns it.

    A Unix socket has no more to it than the first.
    """
    sock.setblocking(False)
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return sock
    level = socket.IPPROTO_TCP
    sock.setsockopt(level, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        sock.setsockopt(level, option, value)
    return sock


def reset(sock: socket.socket) -> None:
    """Close with RST: what was not sent is dropped, the peer learns that this is no clean end."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    except OSError:
        pass  # it is closed already, or not connected
    sock.close()


def reset_if_dropped(sock: socket.socket, yes: bool) -> None:
    """Have the kernel close with RST, or again with FIN, when this process is killed: an end by death is no clean end."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO if yes else _NO_LINGER)
    except OSError:
        pass  # it is not connected any more: its error arrives as a read


def keep_urgent(sock: socket.socket) -> None:
    """Have what a TCP peer sends as urgent read in its place (RFC 6093): the kernel takes it out of the stream otherwise."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
    except OSError:
        pass  # it is not connected any more: its error arrives as a read


def was_reset(sock: socket.socket) -> bool:
    """Return whether the peer has reset a connection that is not read from just now. The error is taken off the socket."""
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0


#: What a peer that is near may have under way to here: more than that waits where the processor's caches have forgotten it, and
#: is dropped and sent again when the kernel's buffer is full. 1 MiB each half millisecond is 16 Gbit/s.
NEAR_WINDOW_BYTES = 1 << 20
NEAR_MICROSECONDS = 500
#: `tcpi_min_rtt` of Linux's struct tcp_info, in microseconds: its place, and the bytes up to its end.
_MIN_RTT = struct.Struct("=148xI")


def narrow_if_near(sock: socket.socket) -> None:
    """Let a TCP peer as near as in a local network, by its shortest round trip, send NEAR_WINDOW_BYTES ahead at most. Linux."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or not hasattr(socket, "TCP_WINDOW_CLAMP"):
        return
    try:
        told = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _MIN_RTT.size)
        if _MIN_RTT.unpack(told)[0] < NEAR_MICROSECONDS:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, NEAR_WINDOW_BYTES)
    except (OSError, struct.error):
        pass  # not connected any more, or a kernel that does not tell


async def connect(address: HostPort, timeout: float) -> socket.socket:
    """Return a connected, prepared socket; raises OSError (TimeoutError after `timeout` seconds, name look-up included)."""
    async with asyncio.timeout(timeout):
        begun = time.monotonic()
        found = await asyncio.get_running_loop().getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        return await connect_first([(entry[0], entry[4]) for entry in found], timeout - (time.monotonic() - begun))  # type: ignore[misc]


async def connect_first(addresses: Sequence[FamilyAddress], timeout: float) -> socket.socket:
    """Return a prepared socket connected to the first address that accepts; raises what the last one said (OSError).

    Each address gets an equal part of the time that is left, so that one that swallows everything leaves time for the others
    (as RFC 8305 wants it, but one after the other: a resource sees no connections that nobody wanted).
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    failure: OSError | None = None
    for number, (family, address) in enumerate(addresses):
        try:
            sock = own_socket(family, socket.SOCK_STREAM)
        except OSError as error:  # a family this machine does not speak
            failure = error
            continue
        try:
            if begin_connect(prepare(sock), address):  # on a network this near there is nothing to wait for
                return sock
            with within(max(0.0, deadline - loop.time()) / (len(addresses) - number)):
                await connected(sock)
            return sock
        except OSError as error:  # TimeoutError is one
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    raise failure or OSError("no address")


async def receive_exactly(sock: socket.socket, count: int) -> bytes:
    """Return exactly `count` bytes; raises ConnectionError when the stream ends before."""
    data = b""
    while len(data) < count:
        more = await receive(sock, count - len(data))
        if not more:
            raise ConnectionResetError("the peer closed the connection")
        data += more
    return data


async def receive(sock: socket.socket, count: int) -> bytes:
    """Return 1 to `count` bytes, or none at the end of the stream; raises OSError."""
    while True:
        try:
            return sock.recv(count)
        except (BlockingIOError, InterruptedError):
            await readable(sock)


async def send_all(sock: socket.socket, data: bytes) -> None:
    """Send everything; raises OSError."""
    left = memoryview(data)
    while left:
        try:
            left = left[sock.send(left) :]
        except (BlockingIOError, InterruptedError):
            await writable(sock)


def begin_connect(sock: socket.socket, address: object) -> bool:
    """Begin to connect a non-blocking socket; returns whether it is connected already. Raises OSError."""
    code = sock.connect_ex(address)  # type: ignore[arg-type]
    if code in (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EINTR):
        return _is_connected(sock)
    if code:
        raise OSError(code, os.strerror(code))
    return True


async def connected(sock: socket.socket) -> None:
    """Return when a socket that has begun to connect is connected; raises OSError."""
    while not _is_connected(sock):
        await writable(sock)


def _is_connected(sock: socket.socket) -> bool:
    if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(code, os.strerror(code))
    try:
        sock.getpeername()
    except OSError as error:
        if error.errno != errno.ENOTCONN:
            raise
        return False
    return True
