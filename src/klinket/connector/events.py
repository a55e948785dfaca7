"""Flow events: collected, spooled to disk in batches, sent while the channel is up, forgotten when stored.

The disk is waited for in threads: flows are moved by the loop meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence

from klinket.connector.core import Flow
from klinket.connector.limits import BATCH_EVENTS, MAX_COLLECTED_EVENTS, MAX_FRESH_BATCHES
from klinket.connector.state import ConnectorState
from klinket.connector.traffic_log import TrafficLog
from klinket.domain.flow import Destination, FlowFailure
from klinket.domain.grant import Principal
from klinket.domain.identifiers import FlowId
from klinket.domain.resource import Resource
from klinket.wire.control import FlowEvent, FlowEvents

logger = logging.getLogger(__name__)


class FlowEventLog:
    """`clock`: the controller's time in seconds since the epoch; `traffic_log` is told every event as well, if there is one."""

    def __init__(self, state: ConnectorState, clock: Callable[[], float], traffic_log: TrafficLog | None = None) -> None:
        self._state = state
        self._clock = clock
        self._traffic_log = traffic_log
        self._collected: list[FlowEvent] = []
        self._last_batch = max(state.spooled(), default=0)
        self._sent: set[int] = set()
        #: The newest batches as they went to disk: they are sent without being read back.
        self._fresh: dict[int, Sequence[FlowEvent]] = {}
        self._news = asyncio.Event()
        self._spooling = asyncio.Lock()
        self._lost = 0

    def established(self, flow: Flow, relay: int, resource_ip: str) -> None:
        """A flow was opened."""
        self._collect("established", flow, relay=relay, resource_ip=resource_ip)

    def closed(self, flow: Flow, relay: int, resource_ip: str, sent: int, received: int, failure: FlowFailure | None) -> None:
        """A flow has ended. `received`: bytes from the client, `sent`: bytes to it."""
        self._collect(
            "closed",
            flow,
            relay=relay,
            resource_ip=resource_ip,
            bytes_from_client=received,
            bytes_to_client=sent,
            # The clock is the controller's, and may be set back meanwhile.
            duration_ms=max(0, round((self._clock() - flow.opened_at) * 1000)),
            failure=failure.value if failure else None,
        )

    def refused(
        self,
        id: FlowId,
        principal: Principal,
        destination: Destination,
        relay: int,
        failure: FlowFailure,
        resource: Resource | None = None,
    ) -> None:
        """A flow was not opened: denied by the grant, or failed on the way to the resource that would have allowed it."""
        denied = {
            FlowFailure.NOT_GRANTED, FlowFailure.GRANT_EXPIRED, FlowFailure.SERVICE_KEY_EXPIRED,
            FlowFailure.SERVICE_KEY_REVOKED, FlowFailure.THROTTLED, FlowFailure.CUT, FlowFailure.ADDRESS_FORBIDDEN,
        }  # fmt: skip
        self._add(
            FlowEvent(
                event="denied" if failure in denied else "failed",
                flow=id,
                time_ms=self._now(),
                session=principal.session,
                service_account=principal.account,
                key=principal.key,
                resource=None if resource is None else resource.id,
                host=destination.host,
                port=destination.port,
                protocol=destination.protocol.value,
                relay=relay,
                failure=failure.value,
            ),
            resource,
        )

    def _collect(self, event: str, flow: Flow, **more: object) -> None:
        self._add(
            FlowEvent(
                event=event,
                flow=flow.id,
                time_ms=self._now(),
                session=flow.principal.session,
                service_account=flow.principal.account,
                key=flow.principal.key,
                resource=flow.resource.id,
                host=flow.destination.host,
                port=flow.destination.port,
                protocol=flow.destination.protocol.value,
                **more,  # type: ignore[arg-type]
            ),
            flow.resource,
        )

    def _add(self, event: FlowEvent, resource: Resource | None) -> None:
        if self._traffic_log is not None:
            self._traffic_log.add(event, resource)
        if len(self._collected) >= MAX_COLLECTED_EVENTS:
            self._lost += 1
        else:
            self._collected.append(event)

    def _now(self) -> int:
        return round(self._clock() * 1000)

    async def spool(self) -> None:
        """Put what was collected on disk; a disk that is full loses events, aloud, and nothing else."""
        async with self._spooling:
            while self._collected:
                events, self._collected = self._collected[:BATCH_EVENTS], self._collected[BATCH_EVENTS:]
                # Numbers grow with time: a connector that lost its folder never gives a number twice.
                self._last_batch = max(self._last_batch + 1, self._now())
                try:
                    await asyncio.to_thread(self._state.spool, self._last_batch, events)
                except OSError as error:
                    logger.error("%d flow events are lost: %s", len(events), error)
                    continue
                if len(self._fresh) >= MAX_FRESH_BATCHES:
                    del self._fresh[next(iter(self._fresh))]
                self._fresh[self._last_batch] = events
                self._news.set()
            if self._lost:
                logger.error("%d flow events are lost: more than %d waited for the disk", self._lost, MAX_COLLECTED_EVENTS)
                self._lost = 0

    async def more(self) -> None:
        """Return when a batch was put on disk since the last call."""
        await self._news.wait()
        self._news.clear()

    async def unsent(self) -> AsyncIterator[FlowEvents]:
        """Yield the batches on disk that are to be sent on the present channel, the oldest first."""
        for number in self._state.spooled():
            if number not in self._sent:
                self._sent.add(number)
                events = self._fresh.pop(number, None)
                if events is None:
                    events = await asyncio.to_thread(self._state.batch, number)
                if events:
                    yield FlowEvents(batch=number, events=list(events))

    async def stored(self, number: int) -> None:
        """The controller has a batch."""
        try:
            await asyncio.to_thread(self._state.stored, number)
        except OSError as error:
            logger.error("a batch of flow events that was stored cannot be removed: %s", error)
        self._sent.discard(number)
        self._fresh.pop(number, None)

    def channel_lost(self) -> None:
        """What was sent and not confirmed is to be sent again."""
        self._sent.clear()
