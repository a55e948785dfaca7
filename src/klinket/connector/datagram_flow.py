"""A UDP flow at the connector: one socket towards the resource; sealed datagrams, or frames of the flow's pipe, to the client."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Awaitable, Sequence

from klinket.connector.datagram_paths import DatagramPaths
from klinket.connector.limits import DATAGRAM_IDLE_SECONDS
from klinket.domain.flow import FlowFailure
from klinket.domain.identifiers import FlowId, SessionId
from klinket.net import datagram_path, segments
from klinket.net.datagram_reads import SLOTS, DatagramReads
from klinket.net.flow_summary import FlowSummary
from klinket.net.framed_datagrams import FramedDatagrams
from klinket.net.pacing import DatagramLane, Lanes
from klinket.net.pipe import SealedPipe
from klinket.net.poll import poll
from klinket.wire.datagram import FLOW_BYTES
from klinket.wire.pipe_messages import Failure

#: Reads of many datagrams from one resource in one turn of the loop.
ROUNDS = 2
# Used by one callback at a time, of one thread.
_READS = DatagramReads()


class DatagramAssociation:
    """Datagrams between a UDP socket, which is taken over, and a client. `bytes_sent`: to the client."""

    def __init__(
        self,
        resource: socket.socket,
        pipe: SealedPipe,
        paths: DatagramPaths,
        session: SessionId,
        flow: FlowId,
        idle_seconds: float = DATAGRAM_IDLE_SECONDS,
    ) -> None:
        self._resource = resource
        self._framed = FramedDatagrams(pipe, self._framed_from_client, self._end)
        self._paths = paths
        self._session = session
        self._flow = bytes.fromhex(flow)[:FLOW_BYTES]
        self._idle_seconds = idle_seconds
        self._moved_at = time.monotonic()
        self._watches = poll()
        self._over: asyncio.Future[Failure] = self._watches.loop.create_future()
        self._segments = segments.SUPPORTED
        self._to_client: DatagramLane | None = None
        self._to_resource: DatagramLane | None = None
        self.bytes_sent = 0
        self.bytes_received = 0

    def begin(self) -> Awaitable[FlowSummary]:
        """Implements Carrier."""
        return self.carry()

    async def carry(self) -> FlowSummary:
        """Carry until either end, idleness or a cut ends it; returns what moved."""
        self._paths.add(self._session, self._flow, self._from_client)
        self._watches.add_reader(self._resource, self._from_resource)
        self._framed.start()
        try:
            while not self._over.done():
                left = self._moved_at + self._idle_seconds - time.monotonic()
                if left <= 0:
                    self._end(Failure(FlowFailure.RESET, "the association is over"))
                await asyncio.wait([self._over], timeout=max(0.0, left))
        finally:
            self._stop()
            self._framed.close()
        return FlowSummary(self.bytes_sent, self.bytes_received, self._over.result())

    def cut(self, failure: Failure) -> None:
        """End it at once, and tell the client why: nothing crosses any more when this returns."""
        self._stop()
        self._framed.close(failure)
        self._end(failure)

    def pace(self, lanes: Lanes | None) -> None:
        """Let datagrams wait for their turn in these lanes from now on."""
        waiting, self._to_client, self._to_resource = (self._to_client, self._to_resource), None, None
        for lane in waiting:
            if lane is not None:
                lane.release()
        if lanes is not None and not self._over.done():
            self._to_client = DatagramLane(lanes.to_clients, self._send_to_client)
            self._to_resource = DatagramLane(lanes.from_clients, self._send_to_resource)

    def _stop(self) -> None:
        for lane in (self._to_client, self._to_resource):
            if lane is not None:
                lane.close()
        self._paths.remove(self._session, self._flow, self._from_client)
        if self._resource.fileno() >= 0:
            self._watches.forget(self._resource)
            self._resource.close()

    def _end(self, failure: Failure) -> None:
        if not self._over.done():
            self._over.set_result(failure)

    def _framed_from_client(self, datagram: bytes) -> None:
        self._from_client(datagram, len(datagram))

    def _from_client(self, datagrams: bytes | memoryview, size: int) -> None:
        self._moved_at = time.monotonic()
        self.bytes_received += len(datagrams)
        if self._to_resource is not None:
            for datagram in segments.split(datagrams, size):
                self._to_resource.offer(datagram)
        elif len(datagrams) <= size:
            self._send_to_resource(datagrams)
        elif not self._sent_together(datagrams, size):
            for datagram in segments.split(datagrams, size):
                self._send_to_resource(datagram)

    def _sent_together(self, datagrams: bytes | memoryview, size: int) -> bool:
        """Have the kernel send them in one call; False where each has to go by itself."""
        if self._segments:
            try:
                segments.send(self._resource, datagrams, size, None)
            except ConnectionRefusedError:
                return False  # says that an earlier one was refused
            except OSError:
                self._segments = False  # not over this interface, or larger than what it carries unbroken
            else:
                return True
        return False

    def _send_to_resource(self, datagram: bytes | memoryview) -> None:
        try:
            self._resource.send(datagram)
        except OSError:
            self._paths.counted.not_sent += 1
            return  # one datagram may be lost; a port that is closed answers again on the next

    def _from_resource(self) -> None:
        try:
            self._drain()
        finally:
            datagram_path.leave_all()

    def _drain(self) -> None:
        for _ in range(ROUNDS):
            try:
                count = _READS.read(self._resource)
            except ConnectionRefusedError:
                self.cut(Failure(FlowFailure.REFUSED, "the port is closed"))
                return
            except OSError as error:
                self.cut(Failure(FlowFailure.UNREACHABLE, error.strerror or "unreachable"))
                return
            if not count:
                return
            self._moved_at = time.monotonic()
            if count > 1:
                datagram_path.gather()  # a lone one waits for no others; what is here together leaves together
            self._to_client_all([_READS.datagram(number) for number in range(count)])
            if count < SLOTS or self._over.done():
                return

    def _to_client_all(self, datagrams: Sequence[memoryview]) -> None:
        self.bytes_sent += sum(map(len, datagrams))
        if self._to_client is not None:
            for datagram in datagrams:
                self._to_client.offer(bytes(datagram))
            return
        sent = 0
        while sent < len(datagrams):
            sent += self._paths.send_all(self._session, self._flow, datagrams[sent:])
            if sent < len(datagrams):
                self._send_framed(bytes(datagrams[sent]))
                sent += 1

    def _send_to_client(self, datagram: bytes) -> None:
        if not self._paths.send(self._session, self._flow, datagram):
            self._send_framed(datagram)

    def _send_framed(self, datagram: bytes) -> None:
        before = self._framed.dropped
        self._framed.send(datagram)
        self._paths.counted.pipe_full += self._framed.dropped - before
