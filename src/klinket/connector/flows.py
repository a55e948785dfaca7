"""Serves flows on sealed pipes: decide, dial, answer honestly, carry; and ends them when the core says so."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Sequence

from klinket.connector import dial
from klinket.connector.bandwidth import Bandwidth
from klinket.connector.core import ConnectorCore, EndedFlow, Flow, LinkRecord
from klinket.connector.datagram_flow import DatagramAssociation
from klinket.connector.datagram_paths import DatagramPaths
from klinket.connector.echoes import EchoAssociation
from klinket.connector.events import FlowEventLog
from klinket.connector.limits import DATAGRAM_IDLE_SECONDS, FRAME_SECONDS, MAX_PIPES, PIPE_IDLE_SECONDS, REFUSED_SECONDS
from klinket.connector.names import NameLookups
from klinket.connector.pipes import ProvenPipes
from klinket.connector.traffic import Carrier, Traffic
from klinket.domain.errors import FlowRefused, ProtocolError
from klinket.domain.flow import FlowFailure, TransportProtocol
from klinket.domain.resource import Resource
from klinket.net import carrying
from klinket.net.deadlines import After
from klinket.net.echo_socket import EchoSocket
from klinket.net.pipe import READ_BYTES, SealedPipe
from klinket.net.pipe_receiver import Frame
from klinket.net.pump import Pump
from klinket.net.sockets import reset, reset_if_dropped
from klinket.wire.control import CutFlow
from klinket.wire.pipe import FrameType
from klinket.wire.pipe_messages import Failure, OpenAnswer, OpenRequest

logger = logging.getLogger(__name__)


class FlowServer:
    """`clock`: the controller's time; `own`: gives this machine's addresses."""

    def __init__(
        self,
        core: ConnectorCore,
        events: FlowEventLog,
        clock: Callable[[], float],
        own: Callable[[], set[str]],
        pipes: ProvenPipes | None = None,
    ) -> None:
        self._core = core
        self.traffic = Traffic()
        self.bandwidth = Bandwidth(lambda account: core.limits_of(account).bytes_per_second)
        #: Sealed datagrams of UDP flows.
        self.paths = DatagramPaths()
        self._pipes = ProvenPipes(MAX_PIPES) if pipes is None else pipes
        self._names = NameLookups()
        self._events = events
        self._clock = clock
        self._own = own
        self._enders: dict[Flow, Callable[[Failure], None]] = {}
        self._carried: dict[Flow, SealedPipe] = {}

    def end(self, ended: Sequence[EndedFlow], received_at: float) -> list[CutFlow]:
        """End flows now; returns what a receipt says of them. `received_at`: monotonic seconds of the order."""
        self.traffic.ended += len(ended)
        for one in ended:
            ender = self._enders.pop(one.flow, None)
            if ender is not None:
                ender(Failure(one.failure, one.text))
        if ended:
            carrying.settle()  # a receipt says that no byte is released any more: by no process
        told = []
        for flow in (one.flow for one in ended):
            told.append(
                CutFlow(
                    flow=flow.id,
                    session=flow.principal.session,
                    service_account=flow.principal.account,
                    key=flow.principal.key,
                    resource=flow.resource.id,
                    host=flow.destination.host,
                    port=flow.destination.port,
                    protocol=flow.destination.protocol.value,
                    stopped_after_ms=round((time.monotonic() - received_at) * 1000, 3),
                )
            )
        return told

    def limits_changed(self) -> None:
        """Have live flows keep to limits of bandwidth that were set, changed or taken away."""
        self.bandwidth.limits_changed()

    def end_unfinished(self) -> None:
        """End the flows whose client has left a frame incomplete for too long."""
        before = time.monotonic() - FRAME_SECONDS
        for flow, pipe in list(self._carried.items()):
            since = pipe.receiver.incomplete_since
            if since is not None and since < before and (ender := self._enders.get(flow)) is not None:
                ender(Failure(FlowFailure.TIMED_OUT, f"a frame was not complete after {FRAME_SECONDS:.0f} s"))

    async def serve(self, pipe: SealedPipe, record: LinkRecord, relay: int, frame: Frame | None = None) -> None:
        """Serve one flow after another on a pipe until it ends. `frame`: one that was read from it already."""
        try:
            while not pipe.closed:
                if frame is None:
                    if not self._pipes.rests(pipe):
                        pipe.close()
                        return
                    idle = After(PIPE_IDLE_SECONDS, pipe.abort)  # which ends the wait
                    try:
                        frame = await pipe.receive()
                    finally:
                        idle.cancel()
                    self._pipes.works(pipe)
                if frame.type is not FrameType.OPEN:
                    raise ProtocolError("a flow begins with OPEN")
                opened = await self._open(pipe, record, OpenRequest.decode(frame.content), relay)
                frame = None  # while a flow is carried, nothing of its beginning is kept
                if opened is None or not await self._carry(*opened, relay):
                    return
        except (OSError, ProtocolError) as error:
            if isinstance(error, ProtocolError):
                logger.warning("a pipe of session %s ended: %s", record.principal.session, error.message)
        finally:
            pipe.abort()

    async def _open(
        self, pipe: SealedPipe, record: LinkRecord, request: OpenRequest, relay: int
    ) -> tuple[Flow, str, Carrier] | None:
        """Answer a request; returns the flow, the address it leads to and what is to carry it, or None after a refusal."""
        pipe.receiver.rest(READ_BYTES)  # what came behind OPEN waits for the resource; further bytes wait in the socket
        try:
            flow = self._core.open(record, request, self._clock())
        except FlowRefused as error:
            await self._refuse(pipe, record, request, relay, error)
            return None
        try:
            reached, address = await self._reach(flow)
        except FlowRefused as error:
            self._core.close(flow)
            await self._refuse(pipe, record, request, relay, error, flow.resource)
            return None
        except BaseException:
            self._core.close(flow)
            raise
        stopped: list[Failure] = []

        def stop(failure: Failure) -> None:
            stopped.append(failure)
            pipe.abort()

        self._carried[flow] = pipe
        self._enders[flow] = stop  # the client may take its time to read OPENED
        try:
            await pipe.send(FrameType.OPENED, OpenAnswer(address).encode())
            self._events.established(flow, relay, address)
            return flow, address, self._carrier(flow, reached, pipe)  # from here on the socket is the carrier's
        except BaseException:
            self._over(flow)
            _give_up(reached)
            if stopped:
                self._events.refused(flow.id, flow.principal, flow.destination, relay, stopped[0].failure, flow.resource)
            raise

    async def _carry(self, flow: Flow, address: str, carrier: Carrier, relay: int) -> bool:
        """Carry a flow to its end, and whatever ends this; returns whether the pipe may carry another."""
        try:
            self.traffic.carries(flow, carrier, relay)
            self.bandwidth.begins(flow, carrier)
            self._enders[flow] = carrier.cut
            summary = await carrier.begin()
        except BaseException:
            carrier.cut(Failure(FlowFailure.RESET))
            self._events.closed(flow, relay, address, carrier.bytes_sent, carrier.bytes_received, FlowFailure.RESET)
            raise
        finally:
            self.bandwidth.over(flow)
            self._over(flow)
        failure = summary.failure.failure if summary.failure else None
        self._events.closed(flow, relay, address, summary.bytes_sent, summary.bytes_received, failure)
        return summary.failure is None

    def _over(self, flow: Flow) -> None:
        """Forget a flow that has ended, or was not carried."""
        self._enders.pop(flow, None)
        del self._carried[flow]
        self.traffic.over(flow)
        self._core.close(flow)

    async def _reach(self, flow: Flow) -> tuple[socket.socket | EchoSocket, str]:
        """Dial, and look again whether the flow may be; a cut meanwhile ends the dialling at once."""
        serving = asyncio.current_task()
        assert serving is not None
        given_up = False

        def give_up(_: Failure) -> None:
            nonlocal given_up
            given_up = True
            serving.cancel()

        self._enders[flow] = give_up
        try:
            reached = await dial.reach(flow.resource, flow.destination, self._own(), self._names, flow.principal.account)
        except asyncio.CancelledError:
            if not given_up or serving.uncancel():
                raise  # this task itself is to end
            self._core.recheck(flow, self._clock())
            raise FlowRefused(FlowFailure.CUT, "access ended while the flow was opened") from None
        finally:
            self._enders.pop(flow, None)
        try:
            self._core.recheck(flow, self._clock())
            if isinstance(reached, EchoSocket):
                return reached, reached.peer
            reset_if_dropped(reached, True)
            return reached, str(reached.getpeername()[0])
        except FlowRefused:
            _give_up(reached)
            raise
        except OSError as error:
            _give_up(reached)
            raise FlowRefused(FlowFailure.RESET, f"{flow.destination} closed the connection at once") from error

    async def _refuse(
        self,
        pipe: SealedPipe,
        record: LinkRecord,
        request: OpenRequest,
        relay: int,
        error: FlowRefused,
        resource: Resource | None = None,
    ) -> None:
        failure = error.failure
        assert isinstance(failure, FlowFailure)
        self.traffic.refused[failure] += 1
        self._events.refused(request.flow, record.principal, request.destination, relay, failure, resource)
        logger.info("flow %s to %s: %s", request.flow, request.destination, failure.value)
        await pipe.send(FrameType.FAIL, Failure(failure, error.message, error.retry_after).encode())
        if request.data_follows:
            await pipe.finish(REFUSED_SECONDS)
        pipe.close()

    def _carrier(self, flow: Flow, reached: socket.socket | EchoSocket, pipe: SealedPipe) -> Carrier:
        if isinstance(reached, EchoSocket):
            return EchoAssociation(reached, pipe)
        if flow.destination.protocol is TransportProtocol.TCP:
            return Pump(reached, pipe)
        return DatagramAssociation(reached, pipe, self.paths, flow.principal.session, flow.id, DATAGRAM_IDLE_SECONDS)


def _give_up(reached: socket.socket | EchoSocket) -> None:
    if isinstance(reached, EchoSocket):
        reached.close()
    else:
        reset(reached)
