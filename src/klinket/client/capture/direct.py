"""Connections that are none of klinket's business: dialled from this machine and joined in the kernel."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from klinket.client.carry import carry_to_the_end
from klinket.client.ports import CarriedFlow, FlowOpener
from klinket.domain.address import parse_ip
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import Destination, FlowFailure
from klinket.net import sockets
from klinket.net.sockets import HostPort
from klinket.net.splice import KernelPipes, Pair

#: Seconds to connect.
CONNECT_SECONDS = 60.0

_PIPES = KernelPipes()


class DirectStream:
    """A connection of this machine. Implements ports.CarriedFlow."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._pair: Pair | None = None

    async def carry(self, local: socket.socket, early: bytes = b"") -> None:
        """Move bytes until both ends are done; closes both."""
        await carry_to_the_end(self, local, early)

    async def begin(self, local: socket.socket, early: bytes, over: Callable[[DirectStream], None]) -> None:
        """As carry(), but return as soon as bytes are moved (see ports)."""
        try:
            sockets.prepare(local)
            await asyncio.get_running_loop().sock_sendall(self._sock, early)
        except BaseException as error:
            sockets.reset(local)
            self.abort()
            if not isinstance(error, OSError):
                raise
            over(self)
            return
        self._pair = Pair(local, self._sock, _PIPES, lambda _: over(self))
        self._pair.start()

    def abort(self) -> None:
        """Give the connection up with a reset."""
        if self._pair is not None:
            self._pair.reset()
        else:
            sockets.reset(self._sock)


async def open_flow(client: FlowOpener, destination: Destination, *, others_direct: bool) -> CarriedFlow:
    """Open a flow through the client; what no resource was granted for is dialled from here if `others_direct`.

    A host that a granted resource serves, or served, never goes direct, whatever fails. Raises FlowRefused.
    """
    if others_direct and not client.claims(destination.host):
        return await connect(client, destination)
    return await client.open_stream(destination)


async def connect(client: FlowOpener, destination: Destination, *, loopback: bool = True) -> CarriedFlow:
    """Dial from this machine; raises FlowRefused with what the kernel said.

    A name that leads to an address the client claims is a flow to that address, as it would be had the program resolved it.
    `loopback`: this machine's own may be dialled.
    """
    loop = asyncio.get_running_loop()
    begun = loop.time()
    with _told(destination):
        async with asyncio.timeout(CONNECT_SECONDS):
            found = await loop.getaddrinfo(destination.host, destination.port, type=socket.SOCK_STREAM)
        addresses = []
        for family, *_, address in found:
            ip = parse_ip(str(address[0]).partition("%")[0])
            if ip is not None and client.claims(str(ip)):
                return await client.open_stream(Destination(str(ip), destination.port, destination.protocol))
            if loopback or ip is None or not (ip.is_loopback or ip.is_unspecified):
                addresses.append((family, address))
        if not addresses:
            raise FlowRefused(
                FlowFailure.UNREACHABLE,
                f"{destination.host} is the command's own machine, which no proxy is needed for",
                hint="let NO_PROXY name it",
            )
        return DirectStream(await sockets.connect_first(addresses, CONNECT_SECONDS - (loop.time() - begun)))  # type: ignore[arg-type]


async def dial(destination: Destination) -> CarriedFlow:
    """Dial an address from this machine, whatever was granted; raises FlowRefused."""
    with _told(destination):
        return DirectStream(await sockets.connect(HostPort(destination.host, destination.port), CONNECT_SECONDS))


@contextmanager
def _told(destination: Destination) -> Iterator[None]:
    """Turn what the kernel and the resolver say into FlowRefused."""
    try:
        yield
    except socket.gaierror as error:
        raise FlowRefused(FlowFailure.NAME_NOT_FOUND, f"{destination.host} is not known here") from error
    except TimeoutError as error:
        raise FlowRefused(FlowFailure.TIMED_OUT, f"{destination} did not answer") from error
    except ConnectionRefusedError as error:
        raise FlowRefused(FlowFailure.REFUSED, f"{destination} refused the connection") from error
    except OSError as error:
        raise FlowRefused(FlowFailure.UNREACHABLE, f"{destination}: {error.strerror or error}") from error
