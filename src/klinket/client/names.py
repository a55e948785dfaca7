"""What a client knows of the names of its resources: whether a connector is there to serve them, and their other records.

A name is answered only while its resource can be reached; nothing that is not known yet is called a failure. See decision 0023.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from klinket.client.core import ClientCore, Route
from klinket.client.link import ConnectorLink, LinkLost
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import FlowFailure
from klinket.domain.resource import Resource
from klinket.wire.dns_answer import subject
from klinket.wire.link_control import NameAnswer

#: Seconds to wait for a link that is being made, and after the first question of a session for connectors that are not there yet.
LINK_WAIT_SECONDS = 0.75
#: Seconds between looks while that lasts.
LOOK_SECONDS = 0.05
#: Seconds for a connector to answer a question.
ANSWER_SECONDS = 5.0


class ResourceNames:
    """`links`: by connector; `link`: makes one; `clock`: the controller's time. Implements ports.NameSource for one session."""

    def __init__(
        self,
        core: ClientCore,
        links: Mapping[int, ConnectorLink],
        link: Callable[[Route], Awaitable[ConnectorLink]],
        clock: Callable[[], float],
    ) -> None:
        self._core = core
        self._links = links
        self._link = link
        self._clock = clock
        self._session = ""
        self._settled_at = 0.0
        self._trying: set[asyncio.Future[ConnectorLink]] = set()

    def is_served(self, name: str) -> bool:
        """Return whether a connector of the name's resource has a live link now, or the connect itself will say what is wrong."""
        try:
            resource = self._core.resource_for(name)
        except FlowRefused:
            return False
        return resource is None or self._linked(resource) is not None

    def _linked(self, resource: Resource) -> ConnectorLink | None:
        for link in self._links.values():
            if link.usable and link.connector.remote_network == resource.remote_network:
                return link
        return None

    async def until_served(self, name: str) -> None:
        """Return when the name's resource can be reached, or nothing says that it cannot; else raise FlowRefused at once.

        Never waits longer than LINK_WAIT_SECONDS for what is under way.
        """
        resource = self._core.resource_for(name)
        if resource is None:
            return  # granted once, or not chosen: a connect is refused with just that
        deadline = time.monotonic() + LINK_WAIT_SECONDS
        while self._linked(resource) is None:
            try:
                routes = self._core.routes(resource, self._clock())
            except FlowRefused:
                # At the start of a session connectors may be on their way back, as after a restart of the controller.
                if time.monotonic() > min(deadline, self._settles_at()):
                    raise
                await asyncio.sleep(LOOK_SECONDS)
                continue
            await self._try(routes, deadline)
            return

    def _settles_at(self) -> float:
        session = self._core.configuration.session
        if session != self._session:
            self._session, self._settled_at = session, time.monotonic() + LINK_WAIT_SECONDS
        return self._settled_at

    async def _try(self, routes: list[Route], deadline: float) -> None:
        failure: FlowRefused | None = None
        for route in routes:
            if self._core.choice.is_failing(route.connector.id, self._clock()):
                # It failed just now: it is tried again meanwhile, but nobody waits for it.
                self._begin(route)
                failure = failure or LinkLost(f"connector {route.connector.name} did not answer just now")
                continue
            trying = self._begin(route)
            await asyncio.wait([trying], timeout=max(0.0, deadline - time.monotonic()))
            if not trying.done():
                return  # not known yet: the connect waits for it, and says how it went
            try:
                trying.result()
                return
            except FlowRefused as error:
                self._core.choice.failed(route.connector.id, self._clock())
                failure = error
        if failure is not None:
            raise failure

    def _begin(self, route: Route) -> asyncio.Future[ConnectorLink]:
        trying = asyncio.ensure_future(self._link(route))
        self._trying.add(trying)
        trying.add_done_callback(self._tried(route))
        return trying

    def _tried(self, route: Route) -> Callable[[asyncio.Future[ConnectorLink]], None]:
        def tried(done: asyncio.Future[ConnectorLink]) -> None:
            self._trying.discard(done)
            if done.cancelled():
                return
            if done.exception() is None:
                self._core.choice.works(route.connector.id)
            elif isinstance(done.exception(), FlowRefused):
                self._core.choice.failed(route.connector.id, self._clock())

        return tried

    async def records(self, name: str, record_type: int) -> NameAnswer:
        """Return what a connector's resolvers say; raises FlowRefused when none can be asked."""
        host = subject(name, record_type)
        await self.until_served(host)
        resource = self._core.resource_for(host)
        if resource is None:
            raise FlowRefused(FlowFailure.NOT_GRANTED, f"no resource that may be used here serves {host}")
        failure: FlowRefused | None = None
        for route in self._core.routes(resource, self._clock(), {id: link.relays for id, link in self._links.items()}):
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    link = await self._link(route)
                    return await link.ask_name(name, record_type)
            except TimeoutError:
                failure = LinkLost(f"connector {route.connector.name} did not answer within {ANSWER_SECONDS:.0f} s")
                break  # a program would not wait for another
            except FlowRefused as error:
                failure = error
        assert failure is not None
        raise failure

    async def aclose(self) -> None:
        """Give up what is tried."""
        for trying in list(self._trying):
            trying.cancel()
        await asyncio.gather(*self._trying, return_exceptions=True)
