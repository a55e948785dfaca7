"""Captured echo requests: a program's pings of one address are a flow with a resource, or go past klinket."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter, OrderedDict, deque
from collections.abc import Sequence
from typing import Protocol

from klinket.client.capture import answers, echo_packets, nfqueue, packet_queue
from klinket.client.capture.doorway import Doorway
from klinket.client.capture.echo_packets import EchoRequest
from klinket.client.capture.nfqueue import Verdict
from klinket.domain.errors import FlowRefused, ProtocolError
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from klinket.net.echo_socket import EchoSocket
from klinket.net.tasks import TaskSet
from klinket.wire.echo import Echo

logger = logging.getLogger(__name__)

#: Flows of echoes at a time, of all and of one source address; requests of further ones are dropped.
MAX_ECHO_FLOWS = 1024
MAX_ECHO_FLOWS_PER_SOURCE = 256
#: Echo requests kept while a flow is being opened or cannot take more.
MAX_WAITING_ECHOES = 64
#: Unanswered echo requests of a flow that are told when it is refused.
MAX_UNANSWERED_ECHOES = 64
#: Seconds without an echo in either direction after which a flow ends (RFC 5508: at least 60).
IDLE_SECONDS = 60.0
#: Messages read from the queue in one turn of the loop.
BATCH = 64

_SILENT = (FlowFailure.TIMED_OUT, FlowFailure.THROTTLED, FlowFailure.RESET)
_CODES = {
    FlowFailure.UNREACHABLE: echo_packets.HOST_UNREACHABLE,
    FlowFailure.NAME_NOT_FOUND: echo_packets.HOST_UNREACHABLE,
    FlowFailure.NO_CONNECTOR: echo_packets.HOST_UNREACHABLE,
    FlowFailure.DRAINING: echo_packets.HOST_UNREACHABLE,
    FlowFailure.CONTROLLER_UNREACHABLE: echo_packets.HOST_UNREACHABLE,
    FlowFailure.ICMP_UNAVAILABLE: echo_packets.PROTOCOL_UNREACHABLE,
}

#: Source, identifier and destination of a program's requests.
_Key = tuple[str, int, str]


class _Carried(Protocol):
    async def send(self, datagram: bytes) -> None: ...

    async def receive(self) -> bytes: ...

    def close(self) -> None: ...


class _DirectEchoes:
    """Echoes of this machine, for what is not klinket's business."""

    def __init__(self, sock: EchoSocket) -> None:
        self._sock = sock

    @classmethod
    def open(cls, destination: Destination) -> _DirectEchoes:
        family = socket.AF_INET6 if ":" in destination.host else socket.AF_INET
        try:
            return cls(EchoSocket.open([(family, (destination.host, 0))]))
        except OSError as error:
            raise FlowRefused(FlowFailure.UNREACHABLE, f"{destination}: {error.strerror}") from error

    async def send(self, datagram: bytes) -> None:
        """Send a request; raises FlowRefused when the network says that nothing arrives."""
        try:
            await self._sock.send(Echo.decode(datagram))
        except OSError as error:
            raise FlowRefused(FlowFailure.UNREACHABLE, error.strerror or "unreachable") from error

    async def receive(self) -> bytes:
        """Return the next reply; raises FlowRefused when the network says that nothing arrives."""
        try:
            return (await self._sock.receive()).encode()
        except OSError as error:
            raise FlowRefused(FlowFailure.UNREACHABLE, error.strerror or "unreachable") from error

    def close(self) -> None:
        self._sock.close()


class _EchoFlow:
    """The requests of one identifier to one destination."""

    def __init__(self, owner: CapturedEchoes, key: _Key) -> None:
        self._owner = owner
        self._source, self._identifier, self._target = key
        self._waiting: deque[Echo] = deque(maxlen=MAX_WAITING_ECHOES)
        self._unanswered: OrderedDict[int, bytes] = OrderedDict()
        self._more = asyncio.Event()
        self._moved_at = 0.0

    def put(self, request: EchoRequest) -> None:
        """Send a request as soon as may be; the oldest gives way when too many wait."""
        self._waiting.append(request.echo)
        self._unanswered[request.echo.sequence] = request.quoted
        if len(self._unanswered) > MAX_UNANSWERED_ECHOES:
            self._unanswered.popitem(last=False)
        self._more.set()

    async def run(self) -> None:
        """Open, carry and end the flow."""
        doorway = self._owner.doorway
        try:
            destination = doorway.destination(self._target, 0, TransportProtocol.ICMP)
            flow: _Carried
            if doorway.is_klinkets(destination):
                flow = await doorway.open_datagrams(destination)
            else:
                flow = _DirectEchoes.open(doorway.outside(destination))
        except FlowRefused as refused:
            self._refuse(refused)
            return
        tasks = [asyncio.ensure_future(self._out(flow)), asyncio.ensure_future(self._in(flow))]
        try:
            await self._until_idle(tasks)
            for task in tasks:
                if task.done():
                    task.result()
        except FlowRefused as refused:
            self._refuse(refused)
        except ProtocolError as error:
            logger.warning("echoes of %s: %s", self._target, error.message)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            flow.close()

    async def _until_idle(self, tasks: Sequence[asyncio.Future[None]]) -> None:
        loop = asyncio.get_running_loop()
        self._moved_at = loop.time()
        while (left := self._moved_at + IDLE_SECONDS - loop.time()) > 0:
            done, _ = await asyncio.wait(tasks, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            if done:
                return

    async def _out(self, flow: _Carried) -> None:
        while True:
            while self._waiting:
                self._moved_at = asyncio.get_running_loop().time()
                await flow.send(self._waiting.popleft().encode())
            self._more.clear()
            await self._more.wait()

    async def _in(self, flow: _Carried) -> None:
        while True:
            echo = Echo.decode(await flow.receive())
            self._moved_at = asyncio.get_running_loop().time()
            self._unanswered.pop(echo.sequence, None)
            self._owner.answer(echo_packets.reply(self._target, self._source, self._identifier, echo), self._source)

    def _refuse(self, refused: FlowRefused) -> None:
        failure = refused.failure
        if failure in _SILENT:
            return
        code = _CODES.get(failure, echo_packets.PROHIBITED) if isinstance(failure, FlowFailure) else echo_packets.PROHIBITED
        for quoted in self._unanswered.values():
            self._owner.answer(echo_packets.refusal(quoted, self._target, self._source, code), self._source)


class CapturedEchoes:
    """Serves a queue of echo requests; answers leave through raw sockets, one of each family. All are taken over."""

    def __init__(self, queue: socket.socket, number: int, answers: Sequence[socket.socket], doorway: Doorway) -> None:
        self._queue = queue
        self._number = number
        self._answers = {sock.family: sock for sock in answers}
        self.doorway = doorway
        self._flows: dict[_Key, _EchoFlow] = {}
        self._of_source: Counter[str] = Counter()
        self._tasks = TaskSet("captured echoes")
        self._loop = asyncio.get_running_loop()
        self.dropped = 0

    def start(self) -> None:
        """Bind the queue and begin; raises CaptureImpossible when the kernel refuses."""
        packet_queue.bind(self._queue, self._number, nfqueue.WHOLE_PACKET_BYTES)
        for sock in self._answers.values():
            sock.setblocking(False)
        self._loop.add_reader(self._queue, self._readable)

    def _readable(self) -> None:
        lost = packet_queue.take_held(self._queue, nfqueue.WHOLE_PACKET_BYTES + 4096, BATCH, self._held)
        self.dropped += lost  # not in one: what is taken may be dropped, and counted, as well

    def _held(self, packet: nfqueue.HeldPacket) -> None:
        """Take a request out of the kernel. It goes no further whatever it is: the kernel would answer it itself."""
        try:
            self._queue.sendto(nfqueue.verdict(self._number, packet.id, Verdict.DROP), (0, 0))
        except OSError as error:
            logger.debug("verdict: %s", error)
        try:
            self._take(echo_packets.read(packet.content))
        except ProtocolError as error:
            self.dropped += 1
            logger.debug("echo request: %s", error.message)

    def _take(self, request: EchoRequest) -> None:
        key = (request.source, request.identifier, request.destination)
        flow = self._flows.get(key)
        if flow is None:
            if len(self._flows) >= MAX_ECHO_FLOWS or self._of_source[request.source] >= MAX_ECHO_FLOWS_PER_SOURCE:
                self.dropped += 1
                return
            flow = self._flows[key] = _EchoFlow(self, key)
            self._of_source[request.source] += 1
            task = self._tasks.start(flow.run(), "echoes")
            task.add_done_callback(lambda _: self._ended(key))
        flow.put(request)

    def _ended(self, key: _Key) -> None:
        del self._flows[key]
        source = key[0]
        self._of_source[source] -= 1
        if not self._of_source[source]:
            del self._of_source[source]

    def answer(self, packet: bytes, to: str) -> None:
        """Deliver a packet to the program; one that does not fit now is lost, as echoes are."""
        try:
            sock = self._answers[socket.AF_INET6 if ":" in to else socket.AF_INET]
            answers.send(sock, packet, (to, 0))
        except (OSError, KeyError) as error:
            self.dropped += 1
            logger.debug("answer: %s", error)

    async def aclose(self) -> None:
        """Stop, and end all flows."""
        self._loop.remove_reader(self._queue)
        await self._tasks.aclose()
        for sock in (self._queue, *self._answers.values()):
            sock.close()
