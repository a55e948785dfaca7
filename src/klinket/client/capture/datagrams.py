"""Captured datagrams: each pair of addresses is an association, with a resource or past klinket."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import struct
from collections import Counter, deque
from collections.abc import Callable, Sequence

from klinket.client.capture import packets
from klinket.client.capture.answers import Answers
from klinket.client.capture.doorway import Doorway
from klinket.client.capture.packets import Endpoint
from klinket.client.ports import DatagramFlow
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from klinket.net import datagram_path
from klinket.net.datagram_reads import SLOTS, DatagramReads, read_key
from klinket.net.segments import Taker
from klinket.net.tasks import TaskSet

logger = logging.getLogger(__name__)

#: Options of linux/in.h and linux/in6.h that the socket module does not name.
IP_RECVORIGDSTADDR = 20
IPV6_RECVORIGDSTADDR = 74

#: Associations at a time; datagrams of further ones are dropped.
MAX_ASSOCIATIONS = 1024
#: Datagrams kept while an association is being opened.
MAX_WAITING = 64
#: Seconds without a datagram in either direction after which an association ends (RFC 4787: two minutes for most traffic).
IDLE_SECONDS = 120.0
#: Datagrams read in one turn of the loop from a socket past klinket, and reads of many in one turn of what was captured.
BATCH, ROUNDS = 64, 2


# Used by one callback at a time, of one thread.
_READS = DatagramReads()
#: What the kernel says of one datagram only: too large for the way, or no room for it now.
_LOST = (errno.EMSGSIZE, errno.ENOBUFS, errno.EAGAIN)


def _refused(error: OSError) -> FlowRefused:
    if isinstance(error, ConnectionRefusedError):
        return FlowRefused(FlowFailure.REFUSED, "port unreachable")
    return FlowRefused(FlowFailure.UNREACHABLE, error.strerror or "unreachable")  # no route, a firewall of this machine, ...


class _DirectDatagrams:
    """An association of this machine, for what is not klinket's business."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop: asyncio.AbstractEventLoop | None = None

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

    def start(self, deliver: Taker, ended: Callable[[FlowRefused], None]) -> None:
        """Hand each datagram to `deliver` from now on; `ended`: takes what the network says when nothing arrives."""
        loop = asyncio.get_running_loop()

        def readable() -> None:
            for _ in range(BATCH):
                if self._sock.fileno() < 0:
                    return
                try:
                    datagram = self._sock.recv(packets.MAX_DATAGRAM_BYTES)
                except (BlockingIOError, InterruptedError):
                    return
                except OSError as error:
                    ended(_refused(error))
                    return
                deliver(datagram, len(datagram))

        self._loop = loop
        loop.add_reader(self._sock, readable)

    def put(self, datagram: memoryview | bytes) -> None:
        """Send one; raises FlowRefused when the network says that nothing arrives. One that does not fit is lost."""
        try:
            self._sock.send(datagram)
        except OSError as error:
            if error.errno not in _LOST:
                raise _refused(error) from error

    def put_all(self, datagrams: Sequence[memoryview | bytes]) -> None:
        """Send each, as put()."""
        for datagram in datagrams:
            self.put(datagram)

    def close(self) -> None:
        if self._loop is not None and self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
        self._sock.close()


class _Association:
    """One of the command's ports with one destination."""

    def __init__(self, owner: CapturedDatagrams, source: Endpoint, target: Endpoint) -> None:
        self._owner = owner
        self._source = source
        self._target = target
        self._waiting: deque[bytes] = deque(maxlen=MAX_WAITING)
        self._flow: DatagramFlow | _DirectDatagrams | None = None
        self._loop = asyncio.get_running_loop()
        self._over: asyncio.Future[FlowRefused | None] = self._loop.create_future()
        self._moved_at = 0.0
        self._answer = owner.answers.way(target, source)
        #: Whether it takes datagrams: False from its end on.
        self.live = True

    def put(self, datagrams: Sequence[memoryview | bytes]) -> None:
        """Send datagrams; while the association is being opened they wait, and the oldest gives way when too many do."""
        if self._flow is None:
            self._waiting.extend(map(bytes, datagrams))
            return
        self._moved_at = self._loop.time()
        try:
            self._flow.put_all(datagrams)
        except FlowRefused as refused:
            self._end(refused)

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
        try:
            flow.start(self._deliver, self._end)
            self._flow = flow
            self._moved_at = self._loop.time()
            while self._waiting:
                self.put([self._waiting.popleft()])
            while not self._over.done() and (left := self._moved_at + IDLE_SECONDS - self._loop.time()) > 0:
                await asyncio.wait([self._over], timeout=left)
        finally:
            flow.close()
        refused_by = self._over.result() if self._over.done() else None
        if refused_by is not None and refused_by.failure is not FlowFailure.RESET:
            self._refused(refused_by)

    def _end(self, refused: FlowRefused) -> None:
        if not self._over.done():
            self._over.set_result(refused)

    def _deliver(self, datagrams: bytes | memoryview, size: int) -> None:
        self._moved_at = self._loop.time()
        self._answer(datagrams, size)

    def _refused(self, refused: FlowRefused) -> None:
        code = packets.PORT_UNREACHABLE
        if refused.failure in (FlowFailure.UNREACHABLE, FlowFailure.NAME_NOT_FOUND, FlowFailure.NO_CONNECTOR):
            code = packets.HOST_UNREACHABLE
        if refused.failure is not FlowFailure.TIMED_OUT:
            self._owner.answers.packet(packets.datagram_refused(self._source, self._target, code), self._source)


class CapturedDatagrams:
    """Serves a datagram socket, which is taken over, and `answers` with it."""

    def __init__(
        self,
        sock: socket.socket,
        answers: Answers,
        doorway: Doorway,
        max_associations: int | None = None,
        max_per_source: int | None = None,
    ) -> None:
        """`max_per_source`: associations of one source address; None: as many as of all."""
        self._max_per_source = max_per_source
        self._of_source: Counter[str] = Counter()
        self._sock = sock
        self.answers = answers
        self.doorway = doorway
        self._max_associations = max_associations
        #: Associations by what the kernel says of their datagrams: source, and the ancillary data.
        self._lately: dict[bytes, _Association] = {}
        self._associations: dict[tuple[Endpoint, Endpoint], _Association] = {}
        self._tasks = TaskSet("captured datagrams")
        self._loop = asyncio.get_running_loop()
        self.dropped = 0

    def start(self) -> None:
        """Begin."""
        self._sock.setblocking(False)
        self._loop.add_reader(self._sock, self._readable)

    def _readable(self) -> None:
        try:
            self._drain()
        finally:
            datagram_path.leave_all()

    def _drain(self) -> None:
        for _ in range(ROUNDS):
            try:
                count = _READS.read(self._sock)
            except OSError as error:
                logger.debug("datagrams: %s", error)
                return
            if count > 1:
                datagram_path.gather()  # a lone one waits for no others; what is here together leaves together
            first = 0
            while first < count:  # those of one association that follow each other
                key, next_ = _READS.key(first), first + 1
                while next_ < count and _READS.key(next_) == key:
                    next_ += 1
                self._take(key, [_READS.datagram(number) for number in range(first, next_)])
                first = next_
            if count < SLOTS:
                return

    def _take(self, key: bytes, contents: Sequence[memoryview]) -> None:
        """Give datagrams to the association of their sender and destination."""
        # The kernel says the same of each datagram of an association: no need to read it again.
        association = self._lately.get(key)
        if association is not None and association.live:
            association.put(contents)
            return
        source, ancillary = read_key(key)
        target = original_destination(ancillary)
        if target is None or source is None:
            self.dropped += len(contents)
            return
        association = self._association(source, target, contents)
        if association is not None:
            if len(self._lately) >= MAX_ASSOCIATIONS:
                self._lately.clear()
            self._lately[key] = association

    def _association(self, source: Endpoint, target: Endpoint, contents: Sequence[memoryview | bytes]) -> _Association | None:
        key = (source, target)
        association = self._associations.get(key)
        if association is None:
            most = self._max_associations or MAX_ASSOCIATIONS
            if len(self._associations) >= most or self._of_source[source[0]] >= (self._max_per_source or most):
                self.dropped += len(contents)
                return None
            association = self._associations[key] = _Association(self, source, target)
            task = self._tasks.start(association.run(), "association")
            self._of_source[source[0]] += 1
            task.add_done_callback(lambda _: self._ended(key))
        association.put(contents)
        return association

    def _ended(self, key: tuple[Endpoint, Endpoint]) -> None:
        self._associations.pop(key).live = False
        (source, _), _ = key
        self._of_source[source] -= 1
        if not self._of_source[source]:
            del self._of_source[source]

    async def aclose(self) -> None:
        """Stop, and end all associations."""
        self._loop.remove_reader(self._sock)
        await self._tasks.aclose()
        self._sock.close()
        self.answers.close()


def original_destination(ancillary: list[tuple[int, int, bytes]]) -> Endpoint | None:
    """Return the destination in what recvmsg() gave beside a datagram, or None."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IPV6 and kind == IPV6_RECVORIGDSTADDR and len(data) >= 24:
            return socket.inet_ntop(socket.AF_INET6, data[8:24]), int.from_bytes(data[2:4])
        if level == socket.SOL_IP and kind == IP_RECVORIGDSTADDR and len(data) >= 8:
            port, address = struct.unpack_from(">H4s", data, 2)
            return socket.inet_ntoa(address), port
    return None
