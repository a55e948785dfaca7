"""One side of hole punching: local ports whose outside the controller has seen, and connections between those of two sides.

Whose NAT lets what in, and when, decides the order. In each round the connector opens its NAT first, by SYNs that die on the
way, before the client's NAT could refuse them; the client's SYNs come a moment later, pass, and meet the connector's connect():
TCP opens simultaneously (RFC 9293 §3.5). Where a connect() has ended already, or there is no NAT, the connector listens as well.
"""

from __future__ import annotations

import asyncio
import errno
import http.client
import json
import socket
import ssl
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from klinket.domain.address import IPAddress
from klinket.domain.errors import ControllerUnreachable, InvalidInput
from klinket.domain.punch import ENDPOINTS, Endpoint, objection
from klinket.net import sockets
from klinket.net.direct_path import DirectUnavailable
from klinket.wire.paths import REFLECT_PATH

#: Seconds for each step of asking the controller, and bytes of its answer.
REFLECT_SECONDS = 5.0
MAX_ANSWER_BYTES = 4_096
#: Seconds between rounds, and by which the connector is ahead of the client in each.
ROUND_SECONDS = 0.6
LEAD_SECONDS = 0.1
#: How many routers the connector's first SYNs pass, round by round: at least its own NAT, not the client's. None: all.
ROUND_HOPS: tuple[int | None, ...] = (2, 3, 4, None, None)
#: Hops that packets to a primed socket have left at the least: those of a peer have many more, an expired SYN has at most 1.
LEAST_HOPS = 2
#: linux/in.h and linux/in6.h; Python has no names for them.
_IP_MINTTL, _IPV6_MINHOPCOUNT = 21, 73
#: Seconds by which a start may be put off.
MAX_START_SECONDS = 2.0


@dataclass(slots=True)
class LocalPort:
    """A local port, and how its connections are seen from outside. The connection to the controller keeps the NAT's mapping."""

    family: int
    port: int
    seen: Endpoint
    connection: http.client.HTTPSConnection

    def socket(self) -> socket.socket:
        """Return another socket of this local port; raises OSError."""
        return _bound(self.family, self.port)


class LocalPorts:
    """The local ports of one meeting. Make them with `reflected`; `close` when it is over."""

    def __init__(self, ports: Sequence[LocalPort]) -> None:
        self._ports = ports

    @classmethod
    async def reflected(cls, netloc: str, token: str, context: ssl.SSLContext) -> LocalPorts:
        """Have the controller see connections of fresh local ports; raises ControllerUnreachable, DirectUnavailable."""
        loop = asyncio.get_running_loop()
        threads = ThreadPoolExecutor(ENDPOINTS, "reflect")  # not the loop's: flows wait for what is done there
        try:
            asking = [loop.run_in_executor(threads, _reflect, netloc, token, context) for _ in range(ENDPOINTS)]
            found = await asyncio.gather(*asking, return_exceptions=True)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
        made = cls([one for one in found if isinstance(one, LocalPort)])
        for failure in found:
            if isinstance(failure, BaseException):
                made.close()
                raise failure
        return made

    def close(self) -> None:
        """Give the local ports back; connections made from them stay."""
        for one in self._ports:
            one.connection.close()

    def dialled(self, texts: Sequence[str]) -> list[Endpoint]:
        """Return the other side's endpoints that may be dialled from here; raises InvalidInput where one may not."""
        peers = [Endpoint.parse(text) for text in texts[:ENDPOINTS]]
        own: IPAddress = self._ports[0].seen.host
        for peer in peers:
            if (reason := objection(own, peer)) is not None:
                raise InvalidInput("endpoint", f"the other side's endpoint is not dialled: {reason}")
        return peers

    async def connect(self, peers: Sequence[Endpoint], greeted: Callable[[socket.socket], bool]) -> list[socket.socket]:
        """Return connections with a connector's endpoints on which it has greeted, after the first round that brings any."""
        for hops in ROUND_HOPS:
            begun = time.monotonic()
            if hops is not None:
                await asyncio.sleep(LEAD_SECONDS)
            pairs = [(port, peer) for port in self._ports for peer in peers]
            left = ROUND_SECONDS - (time.monotonic() - begun)
            found = await asyncio.gather(*(_greeted(port, peer, left, greeted) for port, peer in pairs))
            made = [sock for sock in found if sock is not None]
            if made:
                return made
            await asyncio.sleep(max(0.0, ROUND_SECONDS - (time.monotonic() - begun)))
        return []

    async def accept(self, peers: Sequence[Endpoint], came: Callable[[socket.socket], None]) -> None:
        """Let a client's endpoints in, until the first round that brings any; each is handed to `came`, prepared."""
        loop = asyncio.get_running_loop()
        listeners: list[socket.socket] = []
        met = False

        def arrived(sock: socket.socket) -> None:
            nonlocal met
            met = True
            came(sock)

        awaited = frozenset((str(peer.host), peer.port) for peer in peers)
        try:
            for one in self._ports:
                listener = one.socket()
                listeners.append(listener)
                listener.setblocking(False)
                listener.listen(ENDPOINTS)
                loop.add_reader(listener, _accept, listener, awaited, arrived)
            pairs = [(port, peer) for port in self._ports for peer in peers]
            for hops in ROUND_HOPS:
                begun = time.monotonic()
                await asyncio.gather(*(_open_nat(port, peer, hops, arrived) for port, peer in pairs))
                await asyncio.sleep(max(0.0, ROUND_SECONDS - (time.monotonic() - begun)))
                if met:
                    return
        finally:
            for listener in listeners:
                loop.remove_reader(listener)
                listener.close()


def _bound(family: int, port: int) -> socket.socket:
    sock = sockets.own_socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if (reuse_port := getattr(socket, "SO_REUSEPORT", None)) is not None:
            sock.setsockopt(socket.SOL_SOCKET, reuse_port, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(("::" if family == socket.AF_INET6 else "0.0.0.0", port))  # noqa: S104 - the kernel chooses the address
    except BaseException:
        sock.close()
        raise
    return sock


class _Reflecting(http.client.HTTPSConnection):
    """Dials from a local port that others may share, and notes it with the seconds one connect took."""

    family = 0
    local_port = 0
    took = 0.0
    _begun = 0.0

    def __init__(self, netloc: str, context: ssl.SSLContext) -> None:
        super().__init__(netloc, timeout=REFLECT_SECONDS, context=context)
        self._create_connection = self._dial

    def _dial(self, address: tuple[str, int], timeout: float, source_address: object = None) -> socket.socket:
        sock = sockets.create_connection(address, timeout, made=self._own_socket)
        self.took = time.monotonic() - self._begun
        self.family, self.local_port = sock.family, sock.getsockname()[1]
        return sock

    def _own_socket(self, family: int, _: int) -> socket.socket:
        sock = _bound(family, 0)
        self._begun = time.monotonic()
        return sock


def _reflect(netloc: str, token: str, context: ssl.SSLContext) -> LocalPort:
    connection = _Reflecting(netloc, context)
    try:
        connection.connect()
        body = json.dumps({"token": token, "connect_ms": round(connection.took * 1000, 3)}).encode()
        connection.request("POST", REFLECT_PATH, body, {"Content-Type": "application/json", "Accept": "application/json"})
        response = connection.getresponse()
        answer = json.loads(response.read(MAX_ANSWER_BYTES))
        if response.status != 200:
            raise DirectUnavailable(f"the controller refuses the meeting: {str(answer['message'])[:200]}")
        return LocalPort(connection.family, connection.local_port, Endpoint.parse(str(answer["endpoint"])), connection)
    except BaseException as error:
        connection.close()
        if isinstance(error, OSError | http.client.HTTPException | ValueError | KeyError | TypeError | RecursionError):
            raise ControllerUnreachable(f"the controller does not tell how it sees this machine: {error!s:.120}") from error
        raise


def _target(peer: Endpoint) -> tuple[str, int]:
    return str(peer.host), peer.port


async def _greeted(
    port: LocalPort, peer: Endpoint, seconds: float, greeted: Callable[[socket.socket], bool]
) -> socket.socket | None:
    """Return a connection on which the greeting has come, or None."""
    loop = asyncio.get_running_loop()
    try:
        sock = sockets.prepare(port.socket())
    except OSError:
        return None
    kept = False
    try:
        async with asyncio.timeout(seconds):
            await loop.sock_connect(sock, _target(peer))
            await ready(sock, reading=True)
        kept = greeted(sock)
        return sock if kept else None
    except OSError:  # TimeoutError is one
        return None
    finally:
        if not kept:
            sockets.reset(sock)


async def _open_nat(port: LocalPort, peer: Endpoint, hops: int | None, came: Callable[[socket.socket], None]) -> None:
    """Send a SYN that passes `hops` routers; hands the connection on where the other's SYN meets this one."""
    try:
        sock = sockets.prepare(port.socket())
    except OSError:
        return
    kept = False
    try:
        if hops is not None:
            _set_hops(sock, hops)
            _outlive_expiry(sock, LEAST_HOPS)
        if sock.connect_ex(_target(peer)) not in (0, errno.EINPROGRESS):
            return
        if hops is not None:
            _set_hops(sock, -1)  # what answers the other's SYN goes all the way
        async with asyncio.timeout(ROUND_SECONDS):
            await ready(sock, reading=False)
        if not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            if hops is not None:
                _outlive_expiry(sock, 0)
            kept = True
            came(sock)
    except OSError:  # TimeoutError is one
        pass
    finally:
        if not kept:
            sock.close()


def _set_hops(sock: socket.socket, hops: int) -> None:
    """Set how many routers packets pass; -1: as many as usual."""
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
    else:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)


def _outlive_expiry(sock: socket.socket, least_hops: int) -> None:
    """Let no word of a router that our SYN has died there end the connect (Linux); 0: as usual again.

    Such a word quotes the SYN with hardly any hops left, and what has fewer than the least ones wanted does not count (RFC 5082).
    Another SYN in its place would have another sequence number, which a NAT that has seen the first one takes for a forgery.
    """
    if sys.platform != "linux":
        return
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_MINHOPCOUNT, least_hops)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_MINTTL, least_hops)


async def ready(sock: socket.socket, *, reading: bool) -> None:
    """Wait until a socket can be read, or written."""
    loop = asyncio.get_running_loop()
    waiting: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        if not waiting.done():
            waiting.set_result(None)

    (loop.add_reader if reading else loop.add_writer)(sock, tell)
    try:
        await waiting
    finally:
        (loop.remove_reader if reading else loop.remove_writer)(sock)


def _accept(listener: socket.socket, awaited: frozenset[tuple[str, int]], came: Callable[[socket.socket], None]) -> None:
    try:
        sock, where = listener.accept()
    except OSError:
        return
    if (where[0], where[1]) in awaited:
        came(sockets.prepare(sock))
    else:
        sockets.reset(sock)  # a stranger, or one who was not told
