"""Flows as capture methods and programs hold them (client.ports)."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable, Sequence

from klinket.client.carry import carry_to_the_end
from klinket.client.datagram_inbox import DatagramInbox
from klinket.client.late_answer import LateAnswer
from klinket.client.link import ConnectorLink
from klinket.client.sealed_datagrams import SealedDatagrams
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import HINTS, FlowFailure
from klinket.domain.resource import Resource
from klinket.net.flow_summary import FlowSummary
from klinket.net.framed_datagrams import FramedDatagrams
from klinket.net.pipe import SealedPipe
from klinket.net.pump import Pump
from klinket.net.segments import Taker
from klinket.net.sockets import prepare, reset
from klinket.wire.datagram import FLOW_BYTES
from klinket.wire.pipe import MAX_CONTENT_BYTES, FrameType
from klinket.wire.pipe_messages import Failure

logger = logging.getLogger(__name__)

#: Seconds to wait for OPENED or FAIL: longer than a connector dials.
OPEN_SECONDS = 15.0


class ClientStream:
    """A TCP flow that the resource has accepted. Implements ports.OpenedFlow. `failure`: how it ended, None while it has not.

    `refused`: given while the answer to OPEN is still to come; called if that is a refusal. `answer`: is told what it says.
    """

    __slots__ = (
        "_answer", "_forget", "_late", "_link", "_over", "_pipe", "_pump", "_refused", "connector", "failure", "resource",
        "summary",
    )  # fmt: skip

    def __init__(
        self,
        resource: Resource,
        pipe: SealedPipe,
        link: ConnectorLink,
        forget: Callable[[ClientStream], None],
        refused: Callable[[FlowRefused], None] | None = None,
        answer: LateAnswer | None = None,
    ) -> None:
        self._refused = refused
        self._answer = answer
        self.resource = resource
        self.connector = link.connector.id
        self._pipe = pipe
        self._link = link
        self._forget = forget
        self._pump: Pump | None = None
        self._late: asyncio.TimerHandle | None = None
        self._over: Callable[[ClientStream], None]
        self.failure: Failure | None = None
        #: What was moved, once it has ended.
        self.summary: FlowSummary | None = None

    async def carry(self, local: socket.socket, early: bytes = b"") -> None:
        """Move bytes until both ends are done; closes `local`. `failure` says afterwards how it ended."""
        await carry_to_the_end(self, local, early)

    async def begin(self, local: socket.socket, early: bytes, over: Callable[[ClientStream], None]) -> None:
        """As carry(), but return as soon as bytes are moved (see ports)."""
        try:
            for start in range(0, len(early), MAX_CONTENT_BYTES):
                await self._pipe.send(FrameType.DATA, early[start : start + MAX_CONTENT_BYTES])
            # The pipe is closed already where the flow was cut, or given up, after it was opened: the pump ends at once then.
            pump = Pump(prepare(local), self._pipe, opening=self._refused is not None)
        except BaseException as error:
            self._end(Failure(FlowFailure.RESET, "the pipe ended early" if isinstance(error, OSError) else ""))
            reset(local)
            assert self.failure is not None
            self._tell(self.failure)
            if not isinstance(error, OSError):
                raise
            over(self)
            return
        self._pump, self._over = pump, over
        if self._answer is not None:
            pump.opened = self._answer.opened
        if pump.opening:
            self._late = asyncio.get_running_loop().call_later(OPEN_SECONDS, self._no_answer)
        pump.start().add_done_callback(self._ended)

    def _ended(self, done: asyncio.Future[FlowSummary]) -> None:
        if self._late is not None:
            self._late.cancel()
        summary = self.summary = done.result()
        self.failure = self.failure or summary.failure
        self._forget(self)
        if self.failure is None:
            self._link.give_back(self._pipe)
        else:
            self._tell(self.failure)
        self._over(self)

    def _no_answer(self) -> None:
        if self._pump is not None and self._pump.opening:
            answer, self._answer = self._answer, None  # what the cut tells is no answer
            if answer is not None:
                answer.never_came()
            self._pump.cut(Failure(FlowFailure.TIMED_OUT, f"the connector did not answer within {OPEN_SECONDS:.0f} s"))

    def _tell(self, failure: Failure) -> None:
        if self._refused is not None and (self._pump is None or self._pump.opening):
            if self._answer is not None:
                self._answer.refused(failure.failure)
            self._refused(FlowRefused(failure.failure, failure.message, hint=HINTS.get(failure.failure)))
            return
        logger.info(
            "a flow to %r by connector %s ended early: %s: %s",
            self.resource.name,
            self._link.connector.name,
            failure.failure.value,
            failure.message,
        )

    def cut(self, failure: Failure) -> None:
        """End the flow at once, with a reset on both sides."""
        if self._pump is not None:
            self._pump.cut(failure)
        else:
            self._end(failure)

    def abort(self) -> None:
        """Give the flow up, before it is carried or meanwhile."""
        self.cut(Failure(FlowFailure.RESET))

    def _end(self, failure: Failure) -> None:
        self.failure = self.failure or failure  # the first reason is the true one; the others follow from it
        self._forget(self)
        self._pipe.abort()


class ClientDatagrams:
    """A UDP association, or an ICMP flow. Implements ports.DatagramFlow.

    Datagrams of UDP go out sealed by themselves where the link has a path for them; all others as frames of the pipe.
    """

    def __init__(
        self,
        resource: Resource,
        pipe: SealedPipe,
        link: ConnectorLink,
        forget: Callable[[ClientDatagrams], None],
        *,
        seals: bool = True,
    ) -> None:
        """`seals`: the flow is of UDP."""
        self._seals = seals
        self.resource = resource
        self.connector = link.connector.id
        self._flow = pipe.flow[:FLOW_BYTES]
        self._sealed = link.datagrams
        self._forget = forget
        self._framed = FramedDatagrams(pipe, self._framed_received, self._end)
        self._deliver: Taker | None = None
        self._ended: Callable[[FlowRefused], None] | None = None
        self._over: FlowRefused | None = None

    def start(self, deliver: Taker, ended: Callable[[FlowRefused], None]) -> None:
        """Hand datagrams to `deliver` from now on, and the end, once, to `ended`."""
        self._deliver, self._ended = deliver, ended
        if self._seals:
            self._newest().add(self._flow, self._received)
        self._framed.start()

    def put(self, datagram: bytes) -> None:
        """Send one datagram; raises FlowRefused when the association is over."""
        if self._over is not None:
            raise self._over
        if not (self._seals and self._newest().send(self._flow, datagram)):
            self._framed.send(datagram)

    def put_all(self, datagrams: Sequence[bytes | memoryview]) -> None:
        """Send several, as put()."""
        if self._over is not None:
            raise self._over
        newest = self._newest() if self._seals else None
        sent = 0
        while sent < len(datagrams):
            sent += newest.send_all(self._flow, datagrams[sent:]) if newest is not None else 0
            if sent < len(datagrams):
                self._framed.send(bytes(datagrams[sent]))
                sent += 1

    async def send(self, datagram: bytes) -> None:
        """As put()."""
        self.put(datagram)

    async def receive(self) -> bytes:
        """Return the next datagram; raises FlowRefused when the association is over. Not after start()."""
        if self._deliver is None:
            self._inbox = DatagramInbox()
            self.start(self._inbox.put, self._inbox.end)
        return await self._inbox.get()

    def _newest(self) -> SealedDatagrams:
        while self._sealed.successor is not None:
            self._sealed = self._sealed.successor  # the link was replaced
        return self._sealed

    def _framed_received(self, datagram: bytes) -> None:
        self._received(datagram, len(datagram))

    def _received(self, datagrams: bytes | memoryview, size: int) -> None:
        if self._deliver is not None:
            self._deliver(datagrams, size)

    def _end(self, failure: Failure) -> None:
        if self._over is not None:
            return
        self._over = FlowRefused(failure.failure, failure.message or "the association is over", retry_after=failure.retry_after)
        self._newest().remove(self._flow, self._received)
        self._forget(self)
        self._framed.abort()
        if self._ended is not None:
            self._ended(self._over)

    def cut(self, _: Failure) -> None:
        """End the association at once."""
        self.close()

    def close(self) -> None:
        """End the association."""
        self._end(Failure(FlowFailure.RESET, "the association is over"))
