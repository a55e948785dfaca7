"""Opening a flow at whichever connector serves it: another is asked when one is gone, silent, or does not reach the resource."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from klinket.client.core import Route
from klinket.client.late_answer import OF_THE_CONNECTOR, OF_THE_RESOURCE
from klinket.client.link import ConnectorLink, LinkLost
from klinket.client.opening import ask, begin
from klinket.domain.connector_choice import ConnectorChoice
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import Destination, FlowFailure
from klinket.domain.resource import Resource
from klinket.net.hedged import hedged
from klinket.net.pipe import SealedPipe

#: Seconds without an answer to OPEN after which the connector is asked whether it is there, and for its answer to that.
HEDGE_SECONDS = 0.25
SILENT_SECONDS = 0.5
#: Seconds a connector that is there may dial before another one dials beside it.
SLOW_SECONDS = 2.0
#: What another connector may answer otherwise; the most telling first. Everything else is the resource's or the policy's answer.
RETRIED = (*OF_THE_RESOURCE, *OF_THE_CONNECTOR)

Opened = tuple[SealedPipe, ConnectorLink]


@dataclass(slots=True)
class _Attempt:
    route: Route
    link: ConnectorLink | None = None
    failed: bool = False


class Attempts:
    """The attempts for one flow. Nothing of the program's was sent yet, so another connector may be asked.

    `link_of`: gives a route's link; `lost`: is told of links that failed; `silent`: returns whether a link's other end does not
    answer any more, and gives it up then.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        destination: Destination,
        resource: Resource,
        link_of: Callable[[Route], Awaitable[ConnectorLink]],
        lost: Callable[[ConnectorLink | None], Awaitable[None]],
        silent: Callable[[ConnectorLink], Awaitable[bool]],
        choice: ConnectorChoice,
        clock: Callable[[], float],
    ) -> None:
        self._left = deque(routes)
        self._destination = destination
        self._resource = resource
        self._link_of = link_of
        self._lost = lost
        self._silent = silent
        self._choice = choice
        self._clock = clock
        self._failures: list[FlowRefused] = []
        #: Connectors that did not reach the resource, or had not yet when another was asked.
        self._missed: set[int] = set()
        self._repeated: set[int] = set()

    async def open(self) -> Opened:
        """Return the pipe on which a connector has accepted, and its link; raises FlowRefused: the most telling answer."""
        try:
            pipe, link = await self._next()
        except FlowRefused as error:
            if _final(error) or not self._failures:
                raise
            raise min(self._failures, key=lambda one: RETRIED.index(_failure(one))) from None
        winner = link.connector.id
        self._choice.works(winner)
        self._choice.reached(winner, self._resource.id, self._destination.host)
        for id in self._missed - {winner}:
            self._choice.unreached(id, self._resource.id, self._destination.host, self._clock())
        return pipe, link

    async def _next(self) -> Opened:
        """Ask those connectors that nobody asks yet, one after the other; the next one beside where it takes long."""
        if not self._left:
            raise FlowRefused(FlowFailure.NO_CONNECTOR, f"no connector serves {self._destination}")
        attempt = _Attempt(self._left.popleft())
        connector, resource = attempt.route.connector.id, self._resource.id
        self._choice.tries(connector, resource, self._destination.host, self._clock())
        return await hedged(partial(self._ask, attempt), partial(self._beside, attempt), HEDGE_SECONDS, _discard, _final)

    async def _beside(self, attempt: _Attempt) -> Opened:
        connector = attempt.route.connector.id
        link = attempt.link
        if link is not None and link.usable and not attempt.failed:
            if not await self._silent(link):
                await asyncio.sleep(SLOW_SECONDS - HEDGE_SECONDS)
                self._missed.add(connector)
            elif connector not in self._repeated:
                self._choice.failed(connector, self._clock())
                self._repeated.add(connector)
                self._left.append(attempt.route)  # it may be the relay that is silent: another may lead there
        return await self._next()

    async def _ask(self, attempt: _Attempt) -> Opened:
        try:
            return await self._opened(attempt)
        except FlowRefused as error:
            attempt.failed = True
            if _final(error):
                raise
            self._failures.append(error)
            if _failure(error) in OF_THE_RESOURCE:
                self._missed.add(attempt.route.connector.id)
            else:
                self._choice.failed(attempt.route.connector.id, self._clock())
            raise

    async def _opened(self, attempt: _Attempt) -> Opened:
        failure: FlowRefused | None = None
        # A warm pipe may have died unnoticed: one more try with a fresh one before the next connector.
        for _ in range(2):
            attempt.link = None
            try:
                attempt.link = await self._link_of(attempt.route)
                pipe, _answer = await ask(await attempt.link.pipe(), self._destination, self._resource)
                return pipe, attempt.link
            except LinkLost as error:
                failure = error
                await self._lost(attempt.link)
            except FlowRefused as error:
                if _failure(error) in OF_THE_CONNECTOR:
                    await self._lost(attempt.link)
                raise
        assert failure is not None
        raise failure


async def begin_first(
    routes: Sequence[Route],
    destination: Destination,
    resource: Resource,
    link_of: Callable[[Route], Awaitable[ConnectorLink]],
    lost: Callable[[ConnectorLink | None], Awaitable[None]],
    choice: ConnectorChoice,
    clock: Callable[[], float],
) -> Opened:
    """Send OPEN to the first connector that can be asked, and do not wait for its answer: data follows. Raises FlowRefused."""
    failure: FlowRefused | None = None
    for route in routes:
        choice.tries(route.connector.id, resource.id, destination.host, clock())
        # A warm pipe may have died unnoticed: one more try with a fresh one before the next connector.
        for _ in range(2):
            link: ConnectorLink | None = None
            try:
                link = await link_of(route)
                return await begin(await link.pipe(), destination, resource), link
            except LinkLost as error:
                failure = error
                await lost(link)
        choice.failed(route.connector.id, clock())
    raise failure or FlowRefused(FlowFailure.NO_CONNECTOR, f"no connector serves {destination}")


def _failure(error: FlowRefused) -> FlowFailure:
    assert isinstance(error.failure, FlowFailure)
    return error.failure


def _final(error: Exception) -> bool:
    return not isinstance(error, FlowRefused) or error.failure not in RETRIED


def _discard(opened: Opened) -> None:
    opened[0].abort()
