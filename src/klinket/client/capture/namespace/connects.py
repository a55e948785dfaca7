"""Captured connects: a SYN is held until the resource has answered, then let through, refused, or left to time out."""

from __future__ import annotations

import asyncio
import logging
import socket
from dataclasses import dataclass, field

from klinket.client.capture.namespace import nfqueue, packets, rules
from klinket.client.capture.namespace.doorway import Doorway
from klinket.client.capture.namespace.nfqueue import Verdict
from klinket.client.capture.namespace.packets import Endpoint, Syn
from klinket.client.ports import CarriedFlow
from klinket.domain.errors import CaptureImpossible, FlowRefused, ProtocolError
from klinket.domain.flow import FlowFailure, TransportProtocol
from klinket.net import sockets
from klinket.net.tasks import TaskSet

logger = logging.getLogger(__name__)

#: Seconds between letting a SYN through and the connection at the listener; a command that gave up never gets there.
ARRIVAL_SECONDS = 5.0
#: Seconds for which an unanswered SYN's repetitions are dropped: longer than the kernel repeats it.
SILENCE_SECONDS = 40.0
#: Messages read from the queue, connections accepted, in one turn of the loop.
BATCH = 64

_VERDICTS: dict[FlowFailure, tuple[Verdict, int]] = {
    FlowFailure.TIMED_OUT: (Verdict.DROP, 0),
    FlowFailure.UNREACHABLE: (Verdict.ACCEPT, rules.MARK_UNREACHABLE),
    FlowFailure.NAME_NOT_FOUND: (Verdict.ACCEPT, rules.MARK_UNREACHABLE),
    FlowFailure.NO_CONNECTOR: (Verdict.ACCEPT, rules.MARK_UNREACHABLE),
    FlowFailure.DRAINING: (Verdict.ACCEPT, rules.MARK_UNREACHABLE),
    FlowFailure.CONTROLLER_UNREACHABLE: (Verdict.ACCEPT, rules.MARK_UNREACHABLE),
}
_REFUSE = (Verdict.ACCEPT, rules.MARK_REFUSE)

_Connection = tuple[Endpoint, Endpoint]


@dataclass(slots=True)
class _Attempt:
    """A connect of the command. `let_through`: the resource has accepted, `flow` waits for the connection to arrive."""

    syn: Syn
    task: asyncio.Task[None] | None = None
    flow: CarriedFlow | None = None
    let_through: bool = False
    timer: asyncio.TimerHandle | None = field(default=None)


class HeldConnects:
    """Serves the queue and the listener of a namespace. Sockets are taken over, non-blocking."""

    def __init__(self, queue: socket.socket, listener: socket.socket, doorway: Doorway) -> None:
        self._queue = queue
        self._listener = listener
        self._doorway = doorway
        self._attempts: dict[_Connection, _Attempt] = {}
        self._tasks = TaskSet("captured connections")
        self._loop = asyncio.get_running_loop()
        self.dropped = 0

    def start(self) -> None:
        """Bind the queue and begin; raises CaptureImpossible when the kernel refuses."""
        self._queue.setblocking(True)
        self._queue.settimeout(5)
        for request in (nfqueue.bind(rules.QUEUE), nfqueue.configure(rules.QUEUE)):
            try:
                self._queue.sendto(request, (0, 0))
                answers = list(nfqueue.decode(self._queue.recv(65_536)))
            except (OSError, ProtocolError) as error:
                raise CaptureImpossible(f"the kernel's packet queue: {error}") from error
            for answer in answers:
                if isinstance(answer, nfqueue.Acknowledgement) and answer.error:
                    raise CaptureImpossible(f"the kernel's packet queue: errno {answer.error}")
        self._queue.setblocking(False)
        self._listener.setblocking(False)
        self._loop.add_reader(self._queue, self._queue_readable)
        self._loop.add_reader(self._listener, self._listener_readable)

    # ---- the queue

    def _queue_readable(self) -> None:
        for _ in range(BATCH):
            try:
                data = self._queue.recv(65_536)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self.dropped += 1  # ENOBUFS: the kernel had no room for more and has dropped; the command repeats its SYN
                logger.debug("packet queue: %s", error)
                continue
            try:
                for message in nfqueue.decode(data):
                    if isinstance(message, nfqueue.HeldPacket):
                        self._held(message)
            except ProtocolError as error:
                logger.error("packet queue: %s", error.message)

    def _held(self, packet: nfqueue.HeldPacket) -> None:
        try:
            syn = packets.read_syn(packet.content)
        except ProtocolError:
            self._say(packet.id, Verdict.DROP)
            return
        key = (syn.source, syn.destination)
        attempt = self._attempts.get(key)
        if attempt is not None and attempt.syn.number == syn.number:
            # A repetition. The first is still held, or was left unanswered; if it was let through, it got lost on its way.
            if attempt.let_through:
                self._say(packet.id, Verdict.ACCEPT, rules.MARK_CONNECT)
            else:
                self._say(packet.id, Verdict.DROP)
            return
        if attempt is not None:
            self._forget(key, attempt)
        if len(self._attempts) >= nfqueue.MAX_HELD:
            self.dropped += 1
            self._say(packet.id, Verdict.DROP)
            return
        attempt = self._attempts[key] = _Attempt(syn)
        attempt.task = self._tasks.start(self._decide(key, attempt, packet.id), "connect")

    async def _decide(self, key: _Connection, attempt: _Attempt, packet: int) -> None:
        address, port = attempt.syn.destination
        try:
            destination = self._doorway.destination(address, port, TransportProtocol.TCP)
            flow = await self._doorway.open_stream(destination)
        except FlowRefused as refused:
            word, mark = _VERDICTS.get(refused.failure, _REFUSE)
            self._say(packet, word, mark)
            if word is Verdict.DROP:
                attempt.timer = self._loop.call_later(SILENCE_SECONDS, self._forget, key, attempt)
            else:
                self._forget(key, attempt)
            return
        except asyncio.CancelledError:
            self._say(packet, Verdict.DROP)
            raise
        attempt.flow, attempt.let_through = flow, True
        attempt.timer = self._loop.call_later(ARRIVAL_SECONDS, self._forget, key, attempt)
        self._say(packet, Verdict.ACCEPT, rules.MARK_CONNECT)

    def _say(self, packet: int, word: Verdict, mark: int = 0) -> None:
        try:
            self._queue.sendto(nfqueue.verdict(rules.QUEUE, packet, word, mark), (0, 0))
        except OSError as error:
            logger.debug("verdict: %s", error)  # the command repeats its SYN

    def _forget(self, key: _Connection, attempt: _Attempt) -> None:
        if self._attempts.get(key) is attempt:
            del self._attempts[key]
        if attempt.timer is not None:
            attempt.timer.cancel()
        if attempt.flow is not None:
            attempt.flow.abort()
            attempt.flow = None
        if attempt.task is not None and attempt.task is not asyncio.current_task():
            attempt.task.cancel()

    # ---- the listener

    def _listener_readable(self) -> None:
        for _ in range(BATCH):
            try:
                connection, source = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                logger.warning("accept: %s", error)
                return
            host, port = connection.getsockname()[:2]
            attempt = self._attempts.pop((source, (host, port)), None)
            if attempt is None or attempt.flow is None:
                sockets.reset(connection)  # no SYN of it was let through, or too long ago
                continue
            if attempt.timer is not None:
                attempt.timer.cancel()
            self._tasks.start(attempt.flow.carry(sockets.prepare(connection)), "flow")

    async def aclose(self) -> None:
        """Stop, and reset what is still going on."""
        self._loop.remove_reader(self._queue)
        self._loop.remove_reader(self._listener)
        for key, attempt in list(self._attempts.items()):
            self._forget(key, attempt)
        await self._tasks.aclose()
        self._queue.close()
        self._listener.close()
