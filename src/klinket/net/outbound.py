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
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from klinket.domain.address import IPAddress
from klinket.domain.errors import KlinketError
from klinket.domain.special_ranges import SPECIAL, meanings

#: Seconds to connect, and without a byte afterwards.
CONNECT_SECONDS = 5.0
IDLE_SECONDS = 10.0
#: Seconds for the name, all of its addresses and the TLS handshake together.
DIAL_SECONDS = 15.0
#: Seconds a whole exchange may take, however the peer drips its bytes.
EXCHANGE_SECONDS = 30.0

#: Where public IPv6 addresses are: nothing else is given to anybody (RFC 4291, 2.4; the second: NAT64).
_ASSIGNED = (ipaddress.IPv6Network("2000::/3"), ipaddress.IPv6Network("64:ff9b::/96"))
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Found = Sequence[tuple[int, int, int, str, tuple[Any, ...]]]


class OutboundRefused(KlinketError):
    """A place that may not be dialled."""

    code = "outbound-refused"
    default_hint = "list the range: klinket controller --allow-outbound CIDR"


def is_public(address: IPAddress) -> bool:
    """Return whether an address is one of the public internet, also when it is written as IPv6 or holds IPv4."""
    plain = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped else address
    if isinstance(plain, ipaddress.IPv6Address) and not any(plain in assigned for assigned in _ASSIGNED):
        return False
    return all(
        one.is_global and not one.is_multicast and not any(one in special for special in SPECIAL) for one in meanings(plain)
    )


def permitted(address: IPAddress, allowed: Sequence[_Network]) -> bool:
    """Return whether an address may be dialled: public, or in a listed range."""
    plain = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped else address
    return is_public(plain) or any(plain.version == network.version and plain in network for network in allowed)


def dial(host: str, port: int, allowed: Sequence[_Network], seconds: float = DIAL_SECONDS) -> socket.socket:
    """Return a connected socket with IDLE_SECONDS as its time limit; raises OutboundRefused or OSError.

    It takes at most `seconds`, for the name and all of its addresses together.
    """
    deadline = time.monotonic() + seconds
    failure: OSError | None = None
    refused = ""
    for family, kind, protocol, _, where in _resolved(host, port, seconds):
        address = ipaddress.ip_address(str(where[0]).partition("%")[0])
        if not permitted(address, allowed):
            refused = str(address)
            continue
        left = deadline - time.monotonic()
        if left <= 0:
            break
        sock = socket.socket(family, kind, protocol)
        sock.settimeout(min(CONNECT_SECONDS, left))
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
    if refused:
        raise OutboundRefused(f"{host} is at {refused}, which is not public")
    raise TimeoutError(f"{host} could not be reached within {seconds:.0f} s")


def _resolved(host: str, port: int, seconds: float) -> _Found:
    """Return the addresses of a name; raises OSError. A look-up cannot be ended: past its time it goes on, and is forgotten."""
    answer: list[_Found | Exception] = []

    def ask() -> None:
        try:
            answer.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:  # raised where it was asked for
            answer.append(error)

    thread = threading.Thread(target=ask, name="look-up", daemon=True)
    thread.start()
    thread.join(seconds)
    if not answer:
        raise TimeoutError(f"the look-up of {host} took longer than {seconds:.0f} s")
    if isinstance(answer[0], Exception):
        raise answer[0]
    return answer[0]


def dial_tls(
    host: str, port: int, allowed: Sequence[_Network], authority: str | None, seconds: float = DIAL_SECONDS
) -> ssl.SSLSocket:
    """Return a TLS connection whose certificate was checked against `authority` (PEM) or the system's; raises as `dial`.

    It takes at most `seconds`, the handshake among them.
    """
    deadline = time.monotonic() + seconds
    sock = dial(host, port, allowed, seconds)
    try:
        with bounded(sock, max(0.0, deadline - time.monotonic())):
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
