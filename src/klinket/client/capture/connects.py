"""Captured connects: a SYN is held until the resource has answered, then let through, refused, or left to time out."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from klinket.client.capture import nfqueue, packet_queue, packets
from klinket.client.capture.doorway import Doorway
from klinket.client.capture.nfqueue import Verdict
from klinket.client.capture.packets import Endpoint, Syn
from klinket.client.ports import CarriedFlow
from klinket.domain.errors import FlowRefused, ProtocolError
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

#: Connects of one source address at a time, of the MAX_HELD of all: one machine behind a gateway does not starve the others.
MAX_HELD_PER_SOURCE = 768
#: Connections accepted at once whose resource has not answered yet.
MAX_EARLY = 4096

_UNREACHABLE = (
    FlowFailure.UNREACHABLE,
    FlowFailure.NAME_NOT_FOUND,
    FlowFailure.NO_CONNECTOR,
    FlowFailure.DRAINING,
    FlowFailure.CONTROLLER_UNREACHABLE,
)
#: What may not be reached, as far from a closed port as connect() can tell: over IPv6.
_FORBIDDEN = (
    FlowFailure.NOT_GRANTED,
    FlowFailure.SERVICE_KEY_REVOKED,
    FlowFailure.SERVICE_KEY_EXPIRED,
    FlowFailure.GRANT_EXPIRED,
    FlowFailure.ADDRESS_FORBIDDEN,
    FlowFailure.CUT,
)


@dataclass(frozen=True, slots=True)
class QueueRules:
    """`number` of the queue that holds SYNs, and the marks of verdicts that its rules know."""

    number: int = 7
    connect: int = 1
    refuse: int = 2
    unreachable: int = 3
    forbidden: int = 4

    def verdict(self, failure: FlowFailure) -> tuple[Verdict, int]:
        """Return what becomes of a SYN whose resource has not accepted."""
        if failure is FlowFailure.TIMED_OUT:
            return Verdict.DROP, 0
        if failure in _FORBIDDEN:
            return Verdict.ACCEPT, self.forbidden
        return Verdict.ACCEPT, self.unreachable if failure in _UNREACHABLE else self.refuse


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
    """Serves a queue and the listeners it leads to. Sockets are taken over.

    `queue` None: the kernel holds nothing. `is_fast`: says of an address whether its connects are accepted at once.
    """

    def __init__(
        self,
        queue: socket.socket | None,
        listeners: Sequence[socket.socket],
        doorway: Doorway,
        rules: QueueRules = QueueRules(),
        is_fast: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._queue = queue
        self._listeners = tuple(listeners)
        self._doorway = doorway
        self._rules = rules
        self._is_fast = is_fast
        self._of_source: Counter[str] = Counter()
        self._early = 0
        self._attempts: dict[_Connection, _Attempt] = {}
        self._tasks = TaskSet("captured connections")
        self._loop = asyncio.get_running_loop()
        self.dropped = 0

    def start(self) -> None:
        """Bind the queue and begin; raises CaptureImpossible when the kernel refuses."""
        if self._queue is not None:
            packet_queue.bind(self._queue, self._rules.number)
            self._loop.add_reader(self._queue, self._queue_readable, self._queue)
        for listener in self._listeners:
            listener.setblocking(False)
            self._loop.add_reader(listener, self._listener_readable, listener)

    # ---- the queue

    def _queue_readable(self, queue: socket.socket) -> None:
        lost = packet_queue.take_held(queue, 65_536, BATCH, self._held)  # a program repeats a SYN that is dropped
        self.dropped += lost  # not in one: what is taken may be dropped, and counted, as well

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
                self._say(packet.id, Verdict.ACCEPT, self._rules.connect)
            else:
                self._say(packet.id, Verdict.DROP)
            return
        if attempt is not None:
            self._forget(key, attempt)
        if len(self._attempts) >= nfqueue.MAX_HELD or self._of_source[syn.source[0]] >= MAX_HELD_PER_SOURCE:
            self.dropped += 1
            self._say(packet.id, Verdict.DROP)
            return
        attempt = self._attempts[key] = _Attempt(syn)
        self._of_source[syn.source[0]] += 1
        attempt.task = self._tasks.start(self._decide(key, attempt, packet.id), "connect")

    async def _decide(self, key: _Connection, attempt: _Attempt, packet: int) -> None:
        address, port = attempt.syn.destination
        try:
            destination = self._doorway.destination(address, port, TransportProtocol.TCP)
            flow = await self._doorway.open_stream(destination)
        except FlowRefused as refused:
            word, mark = self._rules.verdict(refused.failure)
            self._say(packet, word, mark)
            if word is Verdict.DROP:
                attempt.timer = self._loop.call_later(SILENCE_SECONDS, self._forget, key, attempt)
            else:
                self._forget(key, attempt)
            return
        except BaseException:
            self._say(packet, Verdict.DROP)
            self._forget(key, attempt)  # where nobody has given it up, the program's repetition is decided anew
            raise
        attempt.flow, attempt.let_through = flow, True
        attempt.timer = self._loop.call_later(ARRIVAL_SECONDS, self._forget, key, attempt)
        self._say(packet, Verdict.ACCEPT, self._rules.connect)

    def _say(self, packet: int, word: Verdict, mark: int = 0) -> None:
        assert self._queue is not None
        try:
            self._queue.sendto(nfqueue.verdict(self._rules.number, packet, word, mark), (0, 0))
        except OSError as error:
            logger.debug("verdict: %s", error)  # the command repeats its SYN

    def _forget(self, key: _Connection, attempt: _Attempt) -> None:
        if self._attempts.get(key) is attempt:
            self._take(key)
        if attempt.timer is not None:
            attempt.timer.cancel()
        if attempt.flow is not None:
            attempt.flow.abort()
            attempt.flow = None
        if attempt.task is not None and attempt.task is not asyncio.current_task():
            attempt.task.cancel()

    def _take(self, key: _Connection) -> _Attempt | None:
        attempt = self._attempts.pop(key, None)
        if attempt is not None:
            source = key[0][0]
            self._of_source[source] -= 1
            if not self._of_source[source]:
                del self._of_source[source]
        return attempt

    # ---- the listeners

    def _listener_readable(self, listener: socket.socket) -> None:
        for _ in range(BATCH):
            try:
                connection, source = listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                logger.warning("accept: %s", error)
                return
            host, port = connection.getsockname()[:2]
            attempt = self._take((source[:2], (host, port)))
            if attempt is None or attempt.flow is None:
                if attempt is None and self._is_fast(host) and self._early < MAX_EARLY:
                    self._tasks.start(self._open_early(sockets.prepare(connection), host, port), "flow")
                else:
                    sockets.reset(connection)  # no SYN of it was let through, or too long ago
                continue
            if attempt.timer is not None:
                attempt.timer.cancel()
            self._tasks.start(attempt.flow.carry(sockets.prepare(connection)), "flow")

    async def _open_early(self, connection: socket.socket, host: str, port: int) -> None:
        """Open the flow of a connection that was accepted at once; a refusal is a reset."""
        self._early += 1
        try:
            flow = await self._doorway.open_early(self._doorway.destination(host, port, TransportProtocol.TCP))
        except FlowRefused:
            sockets.reset(connection)
            return
        except BaseException:
            sockets.reset(connection)
            raise
        finally:
            self._early -= 1
        await flow.carry(connection)

    async def aclose(self) -> None:
        """Stop, and reset what is still going on."""
        for sock in self._all_sockets():
            self._loop.remove_reader(sock)
        for key, attempt in list(self._attempts.items()):
            self._forget(key, attempt)
        await self._tasks.aclose()
        for sock in self._all_sockets():
            sock.close()

    def _all_sockets(self) -> list[socket.socket]:
        return [*self._listeners, *([self._queue] if self._queue is not None else [])]
