"""A client's links: one with each connector it uses, replaced before it is old, and one more for when that is lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from klinket.client.attempts import SILENT_SECONDS
from klinket.client.core import Route
from klinket.client.link import ConnectorLink
from klinket.client.linking import Linker
from klinket.client.sealed_datagrams import SealedDatagrams
from klinket.net.link import LinkInitiator
from klinket.net.tasks import TaskSet
from klinket.wire.control import ClientConfiguration
from klinket.wire.inventory import ConnectorEntry

logger = logging.getLogger(__name__)

#: Seconds after the first flow from which a link with a second connector is kept: a short command does not pay for it.
SECOND_AFTER_SECONDS = 2.0
#: Seconds between tries to make that link.
SECOND_AGAIN_SECONDS = 10.0


class _Usable(Mapping[int, Sequence[int]]):
    """The connectors with a usable link, and the relays it goes through: looked at for the one that is asked for."""

    def __init__(self, links: Mapping[int, ConnectorLink]) -> None:
        self._links = links

    def __getitem__(self, id: int) -> Sequence[int]:
        link = self._links[id]
        if not link.usable:
            raise KeyError(id)
        return link.relays

    def __iter__(self) -> Iterator[int]:
        return (id for id, link in self._links.items() if link.usable)

    def __len__(self) -> int:
        return sum(1 for _ in self)


class LinkSet:
    """`by_connector`: the links there are, usable or not. `over`: returns whether the session has ended."""

    def __init__(self, linker: Linker, initiator: Callable[[], LinkInitiator], tasks: TaskSet, over: Callable[[], bool]) -> None:
        self.by_connector: dict[int, ConnectorLink] = {}
        #: As ClientCore.routes() takes it.
        self.usable: Mapping[int, Sequence[int]] = _Usable(self.by_connector)
        #: Of connectors whose link was given up: the next one goes on with its flows, to which the connector sends there.
        self._orphaned: dict[int, SealedDatagrams] = {}
        self._opening: dict[int, asyncio.Task[ConnectorLink]] = {}
        self._linker = linker
        self._initiator = initiator
        self._tasks = tasks
        self._over = over
        self._second_at: float | None = None
        self._asking: asyncio.Task[list[ConnectorLink]] | None = None

    async def get(self, route: Route) -> ConnectorLink:
        """Return the link with a route's connector, made if there is none; raises FlowRefused."""
        id = route.connector.id
        link = self.by_connector.get(id)
        self._linker.look_for_nearer(route)
        if link is not None and link.usable:
            if id not in self._opening:
                if link.old or _leads_elsewhere(link, route.connector.relays):
                    self._begin(route)  # the present one serves until the new one is there
                elif not link.direct:
                    self._linker.improve(link, route, self._initiator())
            return link
        if id not in self._opening:
            self._begin(route)
        return await asyncio.shield(self._opening[id])

    def _begin(self, route: Route) -> None:
        id = route.connector.id
        task = self._tasks.start(self._open(route), f"link with {route.connector.name}")
        self._opening[id] = task
        task.add_done_callback(lambda _: self._opening.pop(id, None))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _open(self, route: Route) -> ConnectorLink:
        link = await self._linker.open(route, self._initiator())
        self.install(link)
        return link

    def install(self, link: ConnectorLink) -> None:
        """Use a link for new flows from now on; those of the former one stay where they are."""
        former = self.by_connector.get(link.connector.id)
        if self._over() or (former is not None and former.usable and former.direct and not (link.direct or former.old)):
            self._tasks.start(link.aclose(), "link nobody needs")
            return
        self.by_connector[link.connector.id] = link
        orphaned = self._orphaned.pop(link.connector.id, None)
        if former is not None:
            orphaned = former.datagrams
            self._tasks.start(former.aclose(), "replaced link")
        if orphaned is not None:
            link.datagrams.take_over(orphaned)

    def keep_second(self, routes: Sequence[Route], used: ConnectorLink) -> None:
        """Have a link ready with the connector that is asked when the used one is lost. `routes`: best first, two at least."""
        now = asyncio.get_running_loop().time()
        if self._second_at is None:
            self._second_at = now + SECOND_AFTER_SECONDS
        second = next(route for route in routes if route.connector.id != used.connector.id)
        id = second.connector.id
        link = self.by_connector.get(id)
        if now < self._second_at or id in self._opening or (link is not None and link.usable):
            return
        self._second_at = now + SECOND_AGAIN_SECONDS
        self._begin(second)

    def follow(self, configuration: ClientConfiguration, carrying: Collection[int] = ()) -> None:
        """End links through relays that were removed, and leave those that a connector is not at any more.

        Links that are old are replaced though nothing is opened, and connectors that are `carrying` flows get one where they
        have none any more: the next grant is presented over it.
        """
        relays = {relay.id: relay for relay in configuration.relays}
        for id in [id for id, link in self.by_connector.items() if not relays.keys() >= set(link.relays)]:
            self._tasks.start(self._given_up(id).aclose(), "link through a removed relay")
        known = {connector.id for connector in configuration.connectors}
        self._orphaned = {id: orphaned for id, orphaned in self._orphaned.items() if id in known}
        for connector in configuration.connectors:
            link = self.by_connector.get(connector.id)
            if connector.id not in self._opening and self._is_due(link, connector, connector.id in carrying):
                met_at = connector.relays or (link.relays if link is not None else ())
                paths = tuple(relays[id] for id in met_at if id in relays)
                if paths or connector.direct:
                    self._begin(Route(connector, paths))

    @staticmethod
    def _is_due(link: ConnectorLink | None, connector: ConnectorEntry, carries: bool) -> bool:
        if link is None or not link.usable:
            return carries
        return link.old or _leads_elsewhere(link, connector.relays)

    async def lost(self, link: ConnectorLink | None) -> None:
        """Close a link that has failed. Others may have failed with it, and a new one may be in its place: that one stays."""
        if link is None:
            return
        if self.by_connector.get(link.connector.id) is link:
            self._given_up(link.connector.id)
        self._linker.lost(link)
        await link.aclose()

    def _given_up(self, id: int) -> ConnectorLink:
        link = self.by_connector.pop(id)
        self._orphaned[id] = link.datagrams
        return link

    def end_session(self, reason: str) -> None:
        """Close all links: the next ones are another session's, and nothing of this one goes on there."""
        self._orphaned.clear()
        for id in list(self.by_connector):
            self._tasks.start(self.by_connector.pop(id).aclose(), reason)

    async def silent(self, suspect: ConnectorLink) -> bool:
        """Return whether a link's other end does not answer any more. All links that do not are given up: a relay may be gone."""
        if self._asking is None:  # flows that wait together ask once together
            self._asking = self._tasks.start(self._give_up_silent(suspect), "who is silent")
            self._asking.add_done_callback(self._asked)
        return suspect in await asyncio.shield(self._asking) or not suspect.usable

    def _asked(self, _: object) -> None:
        self._asking = None

    async def _give_up_silent(self, suspect: ConnectorLink) -> list[ConnectorLink]:
        asked = list({suspect, *(link for link in self.by_connector.values() if link.usable)})
        answers = await asyncio.gather(*(link.answers(SILENT_SECONDS) for link in asked))
        dead = [link for link, answered in zip(asked, answers, strict=True) if not answered]
        for link in dead:
            if link.usable:
                logger.warning(
                    "connector %s, or the relay before it, does not answer: new flows go elsewhere", link.connector.name
                )
            self._linker.silent(link)
            await self.lost(link)
        return dead


def _leads_elsewhere(link: ConnectorLink, relays: Sequence[int]) -> bool:
    """Return whether a link is held at a relay that its connector has left, and it is at others."""
    return link.control_relay is not None and bool(relays) and link.control_relay not in relays
