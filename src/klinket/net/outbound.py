"""Connections the controller makes to places that others name (security.md 26): never to private ranges unless listed.

Everything here blocks, within its time limits: call it in a thread. What was checked is what is dialled, so a name that changes
its address in between gains nothing.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from klinket.domain.errors import KlinketError

#: Seconds to connect, and without a byte afterwards.
CONNECT_SECONDS = 5.0
IDLE_SECONDS = 10.0
#: Seconds a whole exchange may take, however the peer drips its bytes.
EXCHANGE_SECONDS = 30.0

_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
#: IPv4 inside IPv6: NAT64 (RFC 6052), 6to4 (RFC 3056), compatible (RFC 4291); the 32 bits begin at this bit.
_EMBEDDED = (
    (ipaddress.IPv6Network("64:ff9b::/96"), 0),
    (ipaddress.IPv6Network("2002::/16"), 80),
    (ipaddress.IPv6Network("::/96"), 0),
)
#: Public by number, but a service of the cloud for the machine itself.
_METADATA = {ipaddress.ip_address("168.63.129.16")}


class OutboundRefused(KlinketError):
    """A place that may not be dialled."""

    code = "outbound-refused"
    default_hint = "list the range: klinket controller --allow-outbound CIDR"


def is_public(address: _Address) -> bool:
    """Return whether an address is one of the public internet, also when it is written as IPv6."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        for network, shift in _EMBEDDED:
            if address in network:
                return is_public(ipaddress.IPv4Address(int(address) >> shift & 0xFFFFFFFF))
    return address.is_global and not address.is_multicast and address not in _METADATA


def permitted(address: _Address, allowed: Sequence[_Network]) -> bool:
    """Return whether an address may be dialled: public, or in a listed range."""
    plain = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped else address
    return is_public(plain) or any(plain.version == network.version and plain in network for network in allowed)


def dial(host: str, port: int, allowed: Sequence[_Network]) -> socket.socket:
    """Return a connected socket with IDLE_SECONDS as its time limit; raises OutboundRefused or OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    failure: OSError | None = None
    refused = ""
    for family, kind, protocol, _, where in found:
        address = ipaddress.ip_address(str(where[0]).partition("%")[0])
        if not permitted(address, allowed):
            refused = str(address)
            continue
        sock = socket.socket(family, kind, protocol)
        sock.settimeout(CONNECT_SECONDS)
        try:
            sock.connect(where)
        except OSError as error:
            sock.close()
            failure = error
            continue
        sock.settimeout(IDLE_SECONDS)
        return sock
    if failure is not None:
        raise failure
    raise OutboundRefused(f"{host} is at {refused or 'no address'}, which is not public")


def dial_tls(host: str, port: int, allowed: Sequence[_Network], authority: str | None) -> ssl.SSLSocket:
    """Return a TLS connection whose certificate was checked against `authority` (PEM) or the system's; raises as `dial`."""
    sock = dial(host, port, allowed)
    try:
        return tls_context(authority).wrap_socket(sock, server_hostname=host)
    except BaseException:
        sock.close()
        raise


@contextmanager
def bounded(sock: socket.socket, seconds: float = EXCHANGE_SECONDS) -> Iterator[None]:
    """Break the connection when what happens inside takes longer than `seconds`; raises TimeoutError then.

    It is the connection that ends, not the object: one that is wrapped in TLS inside ends as well.
    """
    over = threading.Event()
    connection = socket.socket(fileno=os.dup(sock.fileno()))

    def end() -> None:
        over.set()
        try:
            connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the peer has ended it already

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (OSError, ValueError) as error:
        if over.is_set():
            raise TimeoutError(f"the exchange took longer than {seconds:.0f} s") from error
        raise
    finally:
        timer.cancel()
        timer.join()
        connection.close()


def tls_context(authority: str | None) -> ssl.SSLContext:
    """Return a client's context that trusts `authority` (PEM) only, or the system's; raises ssl.SSLError for nonsense."""
    return ssl.create_default_context(cadata=authority)
