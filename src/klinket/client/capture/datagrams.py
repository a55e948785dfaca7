"""Captured datagrams: each pair of addresses is an association, with a resource or past klinket."""

from __future__ import annotations

import asyncio
import errno
import itertools
import logging
import socket
import struct
from collections import Counter, deque
from collections.abc import Sequence

from klinket.client.capture import packets
from klinket.client.capture.doorway import Doorway
from klinket.client.capture.packets import Endpoint
from klinket.client.ports import DatagramFlow
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from klinket.net.tasks import TaskSet

logger = logging.getLogger(__name__)

#: Options of linux/in.h and linux/in6.h that the socket module does not name.
IP_RECVORIGDSTADDR = 20
IPV6_RECVORIGDSTADDR = 74

#: Associations at a time; datagrams of further ones are dropped.
MAX_ASSOCIATIONS = 1024
#: Datagrams kept while an association is being opened or cannot take more.
MAX_WAITING = 64
#: Seconds without a datagram in either direction after which an association ends (RFC 4787: two minutes for most traffic).
IDLE_SECONDS = 120.0
#: Datagrams read in one turn of the loop.
BATCH = 64


_IDENTIFICATIONS = itertools.count(1)
#: What the kernel says of one datagram only: too large for the way, or no room for it now.
_LOST = (errno.EMSGSIZE, errno.ENOBUFS)


def _refused(error: OSError) -> FlowRefused:
    if isinstance(error, ConnectionRefusedError):
        return FlowRefused(FlowFailure.REFUSED, "port unreachable")
    return FlowRefused(FlowFailure.UNREACHABLE, error.strerror or "unreachable")  # no route, a firewall of this machine, ...


class _DirectDatagrams:
    """An association of this machine, for what is not klinket's business."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    @classmethod
    async def open(cls, destination: Destination) -> _DirectDatagrams:
        sock = socket.socket(socket.AF_INET6 if ":" in destination.host else socket.AF_INET, socket.SOCK_DGRAM)
        sock.setblocking(False)
        try:
            sock.connect((destination.host, destination.port))
        except OSError as error:
            sock.close()
            raise FlowRefused(FlowFailure.UNREACHABLE, f"{destination}: {error.strerror}") from error
        return cls(sock)

    async def send(self, datagram: bytes) -> None:
        """Send one; raises FlowRefused when the network says that nothing arrives. One that does not fit is lost."""
        try:
            self._sock.send(datagram)
        except BlockingIOError:
            await asyncio.get_running_loop().sock_sendall(self._sock, datagram)
        except OSError as error:
            if error.errno not in _LOST:
                raise _refused(error) from error

    async def receive(self) -> bytes:
        """Return the next; raises FlowRefused when the network says that nothing arrives."""
        try:
            return await asyncio.get_running_loop().sock_recv(self._sock, packets.MAX_DATAGRAM_BYTES)
        except OSError as error:
            raise _refused(error) from error

    def close(self) -> None:
        self._sock.close()


class _Association:
    """One of the command's ports with one destination."""

    def __init__(self, owner: CapturedDatagrams, source: Endpoint, target: Endpoint) -> None:
        self._owner = owner
        self._source = source
        self._target = target
        self._waiting: deque[bytes] = deque(maxlen=MAX_WAITING)
        self._more = asyncio.Event()
        self._moved_at = 0.0

    def put(self, datagram: bytes) -> None:
        """Send a datagram as soon as may be; the oldest gives way when too many wait."""
        self._waiting.append(datagram)
        self._more.set()

    async def run(self) -> None:
        """Open, carry and end the association."""
        try:
            destination = self._owner.doorway.destination(*self._target, TransportProtocol.UDP)
            flow: DatagramFlow | _DirectDatagrams
            if self._owner.doorway.is_klinkets(destination):
                flow = await self._owner.doorway.open_datagrams(destination)
            else:
                flow = await _DirectDatagrams.open(self._owner.doorway.outside(destination))
        except FlowRefused as refused:
            self._refused(refused)
            return
        tasks = [asyncio.ensure_future(self._out(flow)), asyncio.ensure_future(self._in(flow))]
        try:
            await self._idle(tasks)
            for task in tasks:
                if task.done():
                    task.result()
        except FlowRefused as refused:
            if refused.failure is not FlowFailure.RESET:
                self._refused(refused)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            flow.close()

    async def _idle(self, tasks: Sequence[asyncio.Future[None]]) -> None:
        loop = asyncio.get_running_loop()
        self._moved_at = loop.time()
        while (left := self._moved_at + IDLE_SECONDS - loop.time()) > 0:
            done, _ = await asyncio.wait(tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return

    async def _out(self, flow: DatagramFlow | _DirectDatagrams) -> None:
        while True:
            while self._waiting:
                self._moved_at = asyncio.get_running_loop().time()
                await flow.send(self._waiting.popleft())
            self._more.clear()
            await self._more.wait()

    async def _in(self, flow: DatagramFlow | _DirectDatagrams) -> None:
        while True:
            content = await flow.receive()
            self._moved_at = asyncio.get_running_loop().time()
            self._owner.answer(packets.datagram(self._target, self._source, content), self._source)

    def _refused(self, refused: FlowRefused) -> None:
        code = packets.PORT_UNREACHABLE
        if refused.failure in (FlowFailure.UNREACHABLE, FlowFailure.NAME_NOT_FOUND, FlowFailure.NO_CONNECTOR):
            code = packets.HOST_UNREACHABLE
        if refused.failure is not FlowFailure.TIMED_OUT:
            self._owner.answer(packets.datagram_refused(self._source, self._target, code), self._source)


class CapturedDatagrams:
    """Serves a datagram socket; answers leave through a raw socket of the same family. Both are taken over."""

    def __init__(
        self,
        sock: socket.socket,
        raw: socket.socket,
        doorway: Doorway,
        max_associations: int | None = None,
        max_per_source: int | None = None,
    ) -> None:
        """`max_per_source`: associations of one source address; None: as many as of all."""
        self._max_per_source = max_per_source
        self._of_source: Counter[str] = Counter()
        self._sock = sock
        self._raw = raw
        self.doorway = doorway
        self._max_associations = max_associations
        self._associations: dict[tuple[Endpoint, Endpoint], _Association] = {}
        self._tasks = TaskSet("captured datagrams")
        self._loop = asyncio.get_running_loop()
        self.dropped = 0

    def start(self) -> None:
        """Begin."""
        self._sock.setblocking(False)
        self._raw.setblocking(False)
        self._loop.add_reader(self._sock, self._readable)

    def _readable(self) -> None:
        for _ in range(BATCH):
            try:
                content, ancillary, _, source = self._sock.recvmsg(65_535, 128)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                logger.debug("datagrams: %s", error)
                return
            target = original_destination(ancillary)
            if target is None:
                self.dropped += 1
                continue
            self._association((source[0], source[1]), target, content)

    def _association(self, source: Endpoint, target: Endpoint, content: bytes) -> None:
        key = (source, target)
        association = self._associations.get(key)
        if association is None:
            most = self._max_associations or MAX_ASSOCIATIONS
            if len(self._associations) >= most or self._of_source[source[0]] >= (self._max_per_source or most):
                self.dropped += 1
                return
            association = self._associations[key] = _Association(self, source, target)
            task = self._tasks.start(association.run(), "association")
            self._of_source[source[0]] += 1
            task.add_done_callback(lambda _: self._ended(key))
        association.put(content)

    def _ended(self, key: tuple[Endpoint, Endpoint]) -> None:
        del self._associations[key]
        (source, _), _ = key
        self._of_source[source] -= 1
        if not self._of_source[source]:
            del self._of_source[source]

    def answer(self, packet: bytes, to: Endpoint) -> None:
        """Deliver a packet to the program; one that does not fit now is lost, as datagrams are."""
        try:
            send(self._raw, packet, to)
        except OSError as error:
            self.dropped += 1
            logger.debug("answer: %s", error)

    async def aclose(self) -> None:
        """Stop, and end all associations."""
        self._loop.remove_reader(self._sock)
        await self._tasks.aclose()
        self._sock.close()
        self._raw.close()


def send(raw: socket.socket, packet: bytes, to: Endpoint) -> None:
    """Send a packet, in fragments if the link to another machine carries no larger ones; raises OSError."""
    try:
        raw.sendto(packet, (to[0], 0))
    except OSError as error:
        if error.errno != errno.EMSGSIZE:
            raise
        for part in packets.fragments(packet, next(_IDENTIFICATIONS) & 0xFFFF):
            raw.sendto(part, (to[0], 0))


def original_destination(ancillary: list[tuple[int, int, bytes]]) -> Endpoint | None:
    """Return the destination in what recvmsg() gave beside a datagram, or None."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IPV6 and kind == IPV6_RECVORIGDSTADDR and len(data) >= 24:
            return socket.inet_ntop(socket.AF_INET6, data[8:24]), int.from_bytes(data[2:4])
        if level == socket.SOL_IP and kind == IP_RECVORIGDSTADDR and len(data) >= 8:
            port, address = struct.unpack_from(">H4s", data, 2)
            return socket.inet_ntoa(address), port
    return None
