"""Reaches resources: resolves names here, dials, and says honestly how it went."""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Collection, Sequence

from klinket.connector.forbidden import granted_by_address, is_forbidden
from klinket.connector.limits import DIAL_SECONDS
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from klinket.domain.resource import Resource
from klinket.net import sockets
from klinket.net.sockets import FamilyAddress

_UNREACHABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.EPERM, errno.EADDRNOTAVAIL, errno.EINVAL}


async def reach(resource: Resource, destination: Destination, own: Collection[str]) -> socket.socket:
    """Return a connected non-blocking socket (TCP, or UDP with its peer set); raises FlowRefused with what happened."""
    host = resource.host_to_dial(destination.host)
    begun = time.monotonic()
    try:
        async with asyncio.timeout(DIAL_SECONDS):
            addresses = await _addresses(resource, host, destination, own)
            if destination.protocol is TransportProtocol.UDP:
                return _associate(addresses)
            return await sockets.connect_first(addresses, DIAL_SECONDS - (time.monotonic() - begun))
    except TimeoutError as error:
        raise FlowRefused(FlowFailure.TIMED_OUT, f"{destination} did not answer within {DIAL_SECONDS:.0f} s") from error
    except OSError as error:
        raise _told(error, destination) from error


async def _addresses(resource: Resource, host: str, destination: Destination, own: Collection[str]) -> list[FamilyAddress]:
    kind = socket.SOCK_STREAM if destination.protocol is TransportProtocol.TCP else socket.SOCK_DGRAM
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, destination.port, type=kind)
    except socket.gaierror as error:
        raise FlowRefused(
            FlowFailure.NAME_NOT_FOUND, f"no resolver of the connector knows {host}", hint="check the resource's address"
        ) from error
    except UnicodeError as error:
        raise FlowRefused(FlowFailure.NAME_NOT_FOUND, f"{host} cannot be looked up") from error
    if granted_by_address(resource, host):
        return [(entry[0], entry[4]) for entry in found]  # type: ignore[misc]
    allowed = [(entry[0], entry[4]) for entry in found if not is_forbidden(str(entry[4][0]), own)]
    if not allowed:
        raise FlowRefused(
            FlowFailure.ADDRESS_FORBIDDEN,
            f"{host} leads to an address that may only be reached when it is granted by address",
            hint="make a resource for the IP address itself",
        )
    return allowed  # type: ignore[return-value]


def _associate(addresses: Sequence[FamilyAddress]) -> socket.socket:
    """Return a UDP socket whose peer is the first address that has a route; sends nothing. Raises OSError."""
    failure: OSError | None = None
    for family, address in addresses:
        try:
            sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        except OSError as error:  # a family this machine does not speak
            failure = error
            continue
        sock.setblocking(False)
        try:
            sock.connect(address)
            return sock
        except OSError as error:
            sock.close()
            failure = error
    raise failure or OSError("no address")


def _told(error: OSError, destination: Destination) -> FlowRefused:
    if isinstance(error, ConnectionRefusedError):
        return FlowRefused(FlowFailure.REFUSED, f"{destination} refused the connection")
    if error.errno in _UNREACHABLE:
        return FlowRefused(FlowFailure.UNREACHABLE, f"{destination} is unreachable from the connector")
    return FlowRefused(FlowFailure.UNREACHABLE, f"{destination}: {error.strerror or error}")
