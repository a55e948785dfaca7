"""Small things about TCP sockets that every part does the same way."""

from __future__ import annotations

import asyncio
import socket
import struct
from dataclasses import dataclass

from klinket.domain.errors import InvalidInput

_LINGER_ZERO = struct.pack("ii", 1, 0)


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


def prepare(sock: socket.socket) -> socket.socket:
    """Make a TCP socket non-blocking and send small writes at once; returns it."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def reset(sock: socket.socket) -> None:
    """Close with RST: what was not sent is dropped, the peer learns that this is no clean end."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_ZERO)
    except OSError:
        pass  # it is closed already, or not connected
    sock.close()


async def connect(address: HostPort, timeout: float) -> socket.socket:
    """Return a connected, prepared socket; raises OSError (TimeoutError after `timeout` seconds)."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(timeout):
        found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        failure: OSError | None = None
        for family, kind, protocol, _, where in found:
            sock = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
            try:
                await loop.sock_connect(prepare(sock), where)
                return sock
            except OSError as error:
                sock.close()
                failure = error
            except BaseException:
                sock.close()
                raise
        raise failure or OSError(f"no address for {address.host}")


async def receive_exactly(sock: socket.socket, count: int) -> bytes:
    """Return exactly `count` bytes; raises ConnectionError when the stream ends before."""
    loop = asyncio.get_running_loop()
    data = b""
    while len(data) < count:
        more = await loop.sock_recv(sock, count - len(data))
        if not more:
            raise ConnectionResetError("the peer closed the connection")
        data += more
    return data
