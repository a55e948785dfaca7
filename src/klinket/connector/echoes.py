"""The echoes of one ICMP flow: requests go to the resource, replies come back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable

from klinket.connector.limits import ECHO_BURST, ECHO_IDLE_SECONDS, ECHOES_PER_SECOND
from klinket.domain.flow import FlowFailure
from klinket.domain.token_buckets import TokenBuckets
from klinket.net.echo_socket import EchoSocket
from klinket.net.flow_summary import FlowSummary
from klinket.net.pacing import Lanes, Passing
from klinket.net.pipe import SealedPipe
from klinket.wire.echo import Echo
from klinket.wire.pipe import FrameType
from klinket.wire.pipe_messages import Failure


class EchoAssociation:
    """Echoes between one socket and one pipe. Requests above the rate are lost, as on a busy line."""

    def __init__(self, resource: EchoSocket, pipe: SealedPipe) -> None:
        self._resource = resource
        self._pipe = pipe
        self._moved_at = time.monotonic()
        self._bucket = TokenBuckets(ECHO_BURST, ECHOES_PER_SECOND, max_buckets=1)
        self._cut: Failure | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._lanes: Lanes | None = None
        self.bytes_sent = 0
        self.bytes_received = 0

    def begin(self) -> Awaitable[FlowSummary]:
        """Implements Carrier."""
        return self.carry()

    async def carry(self) -> FlowSummary:
        """Carry until either end, idleness or a cut ends it; closes both sockets. Returns what moved."""
        loop = asyncio.get_running_loop()
        tasks = self._tasks = [
            loop.create_task(work, name=f"echoes {name}")
            for work, name in ((self._from_resource(), "back"), (self._to_resource(), "on"), (self._until_idle(), "idle"))
        ]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._resource.close()
        self._pipe.close()
        failure = self._cut or Failure(FlowFailure.RESET, "the association is over")
        return FlowSummary(self.bytes_sent, self.bytes_received, failure)

    def cut(self, failure: Failure) -> None:
        """End it at once, and tell the client why."""
        self._cut = self._cut or failure
        self._pipe.send_now(FrameType.FAIL, failure.encode())
        self._pipe.abort()
        for task in self._tasks:
            task.cancel()  # one that waits for its bandwidth would send on yet; the socket is closed when nothing waits for it

    def pace(self, lanes: Lanes | None) -> None:
        """Let echoes wait for their turn in these lanes from now on; one that waits goes at once where there are none."""
        self._lanes = lanes

    async def _to_resource(self) -> None:
        """Send requests on until the client ends the flow; raises ProtocolError for what is no echo."""
        while True:
            frame = await self._pipe.receive()
            if frame.type is not FrameType.DATAGRAM:
                return
            echo = Echo.decode(frame.content)
            self._moved_at = time.monotonic()
            self.bytes_received += len(frame.content)
            if self._bucket.take("", self._moved_at):
                await asyncio.sleep(0)  # thousands may be here already: others have their turns between them
                continue
            if self._lanes is not None:
                await Passing(self._lanes.from_clients).passes(len(frame.content))
            try:
                await self._resource.send(echo)
            except OSError as error:
                await self._unreachable(error)
                return

    async def _from_resource(self) -> None:
        """Send replies back until the network says that requests do not arrive."""
        while True:
            try:
                content = (await self._resource.receive()).encode()
            except OSError as error:
                await self._unreachable(error)
                return
            self._moved_at = time.monotonic()
            self.bytes_sent += len(content)
            if self._lanes is not None:
                await Passing(self._lanes.to_clients).passes(len(content))
            await self._pipe.send(FrameType.DATAGRAM, content)

    async def _unreachable(self, error: OSError) -> None:
        text = f"the resource is unreachable from the connector: {error.strerror or error}"
        await self._pipe.send(FrameType.FAIL, Failure(FlowFailure.UNREACHABLE, text).encode())

    async def _until_idle(self) -> None:
        """Return when no echo has moved for ECHO_IDLE_SECONDS."""
        while (quiet := time.monotonic() - self._moved_at) < ECHO_IDLE_SECONDS:
            await asyncio.sleep(ECHO_IDLE_SECONDS - quiet)
