"""Reaches resources: resolves names here, dials, and says honestly how it went."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Collection, Sequence

from klinket.connector.forbidden import granted_by_address, is_forbidden
from klinket.connector.limits import DIAL_SECONDS
from klinket.connector.names import NameLookups
from klinket.domain.address import parse_ip
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from klinket.domain.resource import Resource
from klinket.net import sockets
from klinket.net.deadlines import within
from klinket.net.echo_socket import EchoSocket
from klinket.net.sockets import FamilyAddress

_UNREACHABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EACCES, errno.EPERM, errno.EADDRNOTAVAIL, errno.EINVAL}


async def reach(
    resource: Resource, destination: Destination, own: Collection[str], names: NameLookups | None = None, account: str = ""
) -> socket.socket | EchoSocket:
    """Return a connected non-blocking socket (TCP, or UDP and ICMP with the peer set); raises FlowRefused with what happened.

    `names`: looks names up, in the share of `account`.
    """
    host = resource.host_to_dial(destination.host)
    begun = time.monotonic()
    addresses: list[FamilyAddress] | None = None
    try:
        finding = _addresses(resource, host, destination, own, names or NameLookups(), account)
        if parse_ip(host) is not None:  # nothing is looked up
            addresses = await finding
        else:
            with within(DIAL_SECONDS):
                addresses = await finding
        if destination.protocol is TransportProtocol.UDP:
            return _associate(addresses)
        if destination.protocol is TransportProtocol.ICMP:
            return EchoSocket.open(addresses)
        return await sockets.connect_first(addresses, DIAL_SECONDS - (time.monotonic() - begun))
    except TimeoutError as error:
        if addresses is None:
            raise FlowRefused(
                FlowFailure.NAME_NOT_FOUND, f"no resolver of the connector has answered for {host} within {DIAL_SECONDS:.0f} s"
            ) from error
        raise FlowRefused(FlowFailure.TIMED_OUT, f"{destination} did not answer within {DIAL_SECONDS:.0f} s") from error
    except OSError as error:
        raise _told(error, destination) from error


async def _addresses(
    resource: Resource, host: str, destination: Destination, own: Collection[str], names: NameLookups, account: str
) -> list[FamilyAddress]:
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


def _with_port(family: int, text: str, port: int) -> tuple[str, int] | tuple[str, int, int, int]:
    if family == socket.AF_INET:
        return (text, port)
    host, _, scope = text.partition("%")
    return (host, port, 0, _scope_number(scope))


def _scope_number(scope: str) -> int:
    try:
        return int(scope) if scope.isdigit() else socket.if_nametoindex(scope) if scope else 0
    except OSError:
        return 0  # the interface has gone: dialling says so


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
