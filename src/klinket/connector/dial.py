"""Reaches resources: resolves names here, dials, and says honestly how it went."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Collection

from klinket.connector.forbidden import granted_by_address, is_forbidden
from klinket.connector.limits import DIAL_SECONDS
from klinket.connector.names import NameLookups
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from klinket.domain.resource import Resource
from klinket.net import sockets

_UNREACHABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.EPERM, errno.EADDRNOTAVAIL, errno.EINVAL}


Address = tuple[str, int] | tuple[str, int, int, int]


async def reach(
    resource: Resource, destination: Destination, own: Collection[str], names: NameLookups | None = None, account: str = ""
) -> socket.socket:
    """Return a connected non-blocking socket (TCP, or UDP with its peer set); raises FlowRefused with what happened.

    `names`: looks names up, in the share of `account`.
    """
    host = resource.host_to_dial(destination.host)
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            addresses = await _addresses(resource, host, destination, own, names or NameLookups(), account)
            return await _dial(addresses, destination)
    except TimeoutError as error:
        raise FlowRefused(FlowFailure.TIMED_OUT, f"{destination} did not answer within {DIAL_SECONDS:.0f} s") from error


async def _addresses(
    resource: Resource, host: str, destination: Destination, own: Collection[str], names: NameLookups, account: str
) -> list[tuple[int, Address]]:
    try:
        found = await names.find(host, account)
    except socket.gaierror as error:
        raise FlowRefused(
            FlowFailure.NAME_NOT_FOUND, f"no resolver of the connector knows {host}", hint="check the resource's address"
        ) from error
    except UnicodeError as error:
        raise FlowRefused(FlowFailure.NAME_NOT_FOUND, f"{host} cannot be looked up") from error
    allowed = [(family, text) for family, text in found if granted_by_address(resource, host) or not is_forbidden(text, own)]
    if not allowed:
        raise FlowRefused(
            FlowFailure.ADDRESS_FORBIDDEN,
            f"{host} leads to an address that may only be reached when it is granted by address",
            hint="make a resource for the IP address itself",
        )
    return [(family, _with_port(family, text, destination.port)) for family, text in allowed]


def _with_port(family: int, text: str, port: int) -> Address:
    if family == socket.AF_INET:
        return (text, port)
    host, _, scope = text.partition("%")
    return (host, port, 0, _scope_number(scope))


def _scope_number(scope: str) -> int:
    try:
        return int(scope) if scope.isdigit() else socket.if_nametoindex(scope) if scope else 0
    except OSError:
        return 0  # the interface has gone: dialling says so


async def _dial(addresses: list[tuple[int, Address]], destination: Destination) -> socket.socket:
    loop = asyncio.get_running_loop()
    kind = socket.SOCK_STREAM if destination.protocol is TransportProtocol.TCP else socket.SOCK_DGRAM
    failure: OSError | None = None
    for family, address in addresses:
        sock = socket.socket(family, kind | socket.SOCK_CLOEXEC)
        try:
            if kind == socket.SOCK_STREAM:
                await loop.sock_connect(sockets.prepare(sock), address)
            else:
                sock.setblocking(False)
                sock.connect(address)  # UDP: sets the peer, sends nothing
            return sock
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    raise _told(failure, destination)


def _told(error: OSError | None, destination: Destination) -> FlowRefused:
    if isinstance(error, ConnectionRefusedError):
        return FlowRefused(FlowFailure.REFUSED, f"{destination} refused the connection")
    if isinstance(error, TimeoutError) or (error is not None and error.errno == errno.ETIMEDOUT):
        return FlowRefused(FlowFailure.TIMED_OUT, f"{destination} did not answer")
    if error is not None and error.errno in _UNREACHABLE:
        return FlowRefused(FlowFailure.UNREACHABLE, f"{destination} is unreachable from the connector")
    return FlowRefused(FlowFailure.UNREACHABLE, f"{destination}: {error.strerror if error else 'no address'}")
