"""Opens links: directly where a connector listens and is met, else through a relay, the nearest first."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from klinket.client.channel import ClientChannel
from klinket.client.core import ClientCore, Route
from klinket.client.link import ConnectorLink, Path
from klinket.client.punching import PunchedPath, Puncher
from klinket.domain.errors import FlowRefused
from klinket.domain.nearest_relays import KEPT_RELAYS, NearestRelays
from klinket.net.direct_path import DirectPath
from klinket.net.link import LinkInitiator
from klinket.net.relay_path import RelayPath
from klinket.net.tasks import TaskSet
from klinket.wire.inventory import ConnectorEntry, RelayEntry
from klinket.wire.relay import RelayError, RelayRole

logger = logging.getLogger(__name__)

#: Seconds by which the direct way is ahead: where it works the link is there by then, and no relay is bothered.
HEAD_START_SECONDS = 0.25
#: Seconds between measurements of how near the relays are.
MEASURE_SECONDS = 60.0
#: Seconds after which a relayed link is worth a meeting through the NATs: a job that is over sooner costs the controller none.
PUNCH_AFTER_SECONDS = 3.0


class Linker:
    """`clock`: the controller's time; `better`: takes a direct link that came late."""

    def __init__(
        self,
        core: ClientCore,
        clock: Callable[[], float],
        channel: ClientChannel,
        better: Callable[[ConnectorLink], None],
    ) -> None:
        self._core = core
        self._clock = clock
        self._used_up = channel.tickets_used_up
        self.puncher = Puncher(channel.url, channel.context, channel.send)
        channel.punch_told = self.puncher.told
        self._better = better
        self._relays: dict[int, RelayPath] = {}
        self._direct: dict[int, DirectPath] = {}
        self._improving: set[int] = set()
        self._nearest = NearestRelays()
        self._measured_at: float | None = None
        self._tasks = TaskSet("links")

    async def open(self, route: Route, initiator: LinkInitiator) -> ConnectorLink:
        """Return a usable link on the best way there is now; raises FlowRefused."""
        direct, punched = self.direct_path(route.connector), self.puncher.path(route.connector.id, route.connector.punches)
        if punched is not None and len(punched):  # the link before this one took it, and is still good
            try:
                return await self._open_over_holes(route, punched, initiator)
            except FlowRefused as error:
                logger.info("%s; relays serve", error.message)
        if not direct.worth_trying:
            return await self._open_relayed(route, initiator)
        going: asyncio.Task[ConnectorLink] = self._start_direct(route, direct, initiator)
        if not route.relays:
            return await asyncio.shield(going)
        await asyncio.wait([going], timeout=HEAD_START_SECONDS)
        if going.done():
            if _succeeded(going):
                return going.result()
            return await self._open_relayed(route, initiator)
        relayed = asyncio.ensure_future(self._open_relayed(route, initiator))
        try:
            await asyncio.wait({going, relayed}, return_when=asyncio.FIRST_COMPLETED)
            if not relayed.done() and not _succeeded(going):
                await asyncio.wait({relayed})
            elif relayed.done() and not _succeeded(relayed) and not going.done():
                await asyncio.wait({going})
        except BaseException:
            await _dropped(relayed)
            raise
        if _succeeded(going):
            await _dropped(relayed)
            return going.result()
        if not going.done():
            going.add_done_callback(lambda done: self._better(done.result()) if _succeeded(done) else None)
        return await relayed

    def improve(self, link: ConnectorLink, route: Route, initiator: LinkInitiator) -> None:
        """Try a direct way in the background, where `link` goes through a relay and one may be there by now."""
        direct, id = self.direct_path(route.connector), route.connector.id
        punched = self.puncher.path(id, route.connector.punches)
        if id in self._improving:
            return
        if direct.worth_trying:
            going = self._start_direct(route, direct, initiator)
        elif punched is not None and punched.worth_trying and link.age >= PUNCH_AFTER_SECONDS:
            name = f"link with {route.connector.name} through NATs"
            going = self._tasks.start(self._open_punched(route, punched, initiator), name)
        else:
            return
        self._improving.add(id)
        going.add_done_callback(lambda _: self._improving.discard(id))
        going.add_done_callback(lambda done: self._better(done.result()) if _succeeded(done) else None)

    def lost(self, link: ConnectorLink) -> None:
        """Note that a link broke: where it was direct, relays come first for a while."""
        if link.direct and link.connector.id in self._direct:
            self._direct[link.connector.id].failed()
        if link.punched is not None:
            link.punched.failed()

    def silent(self, link: ConnectorLink) -> None:
        """Note that nobody answers at a link's other end: the relay between may be the one that is silent."""
        path = self._relays.get(link.control_relay or 0)
        if path is not None:
            path.avoid()

    def _start_direct(self, route: Route, direct: DirectPath, initiator: LinkInitiator) -> asyncio.Task[ConnectorLink]:
        return self._tasks.start(self._open_direct(route, direct, initiator), f"direct link with {route.connector.name}")

    async def _open_direct(self, route: Route, direct: DirectPath, initiator: LinkInitiator) -> ConnectorLink:
        try:
            link = await self._open_on(route, [direct], initiator)
        except BaseException:
            direct.failed()
            raise
        direct.met()
        logger.info("connector %s is met directly", route.connector.name)
        return link

    async def _open_punched(self, route: Route, punched: PunchedPath, initiator: LinkInitiator) -> ConnectorLink:
        await punched.fill()
        return await self._open_over_holes(route, punched, initiator)

    async def _open_over_holes(self, route: Route, punched: PunchedPath, initiator: LinkInitiator) -> ConnectorLink:
        """Return a link over punched holes; its pipes take the relays where the stock of those is empty."""
        try:
            return await self._open_on(route, [punched, *self._relay_paths(route)], initiator)
        except BaseException:
            punched.failed()
            raise

    async def _open_relayed(self, route: Route, initiator: LinkInitiator) -> ConnectorLink:
        return await self._open_on(route, self._relay_paths(route), initiator)

    def _relay_paths(self, route: Route) -> list[RelayPath]:
        paths = {relay.id: self.relay_path(relay) for relay in route.relays}
        reached = [id for id, path in paths.items() if not path.avoided] or list(paths)
        kept = self._nearest.best(reached)
        kept += [id for id in paths if id not in kept][: max(0, KEPT_RELAYS - len(kept))]
        return [paths[id] for id in kept]

    def look_for_nearer(self, route: Route) -> None:
        """Measure in the background, once in a while, how near the relays are at which a connector is met."""
        now = asyncio.get_running_loop().time()
        if len(route.relays) < 2 or (self._measured_at is not None and now - self._measured_at < MEASURE_SECONDS):
            return
        self._measured_at = now
        paths = [self.relay_path(relay) for relay in self._core.configuration.relays]
        self._tasks.start(self._measure(paths), "how near the relays are")

    async def _measure(self, paths: list[RelayPath]) -> None:
        for path in paths:
            try:
                self._nearest.measured(path.relay.id, await path.measure())
            except RelayError:
                self._nearest.measured(path.relay.id, None)
        self._nearest.keep(path.relay.id for path in paths)

    async def _open_on(self, route: Route, paths: Sequence[Path], initiator: LinkInitiator) -> ConnectorLink:
        network = self._core.configuration.network
        link = await ConnectorLink.open(route.connector, paths, initiator, network, self._core, self._clock)
        link.relay_paths = lambda: self._relay_paths(route)
        return link

    def direct_path(self, connector: ConnectorEntry) -> DirectPath:
        """Return the way to a connector itself."""
        path = self._direct.get(connector.id)
        if path is None or path.addresses != tuple(connector.direct):
            path = self._direct[connector.id] = DirectPath(connector.direct)
        return path

    def relay_path(self, relay: RelayEntry) -> RelayPath:
        """Return the way through a relay."""
        path = self._relays.get(relay.id)
        if path is not None and path.relay.address == relay.address:
            path.follow(relay)
        else:
            path = RelayPath(relay, RelayRole.CLIENT, lambda: self._core.ticket_for(relay.id), self._clock, self._used_up)
            self._relays[relay.id] = path
        return path

    def forget(self) -> None:
        """Forget what was agreed with relays, and what is under way: a copied or forked process has nothing of it."""
        self._relays.clear()
        self._direct.clear()
        self.puncher.forget()

    async def aclose(self) -> None:
        """Give up what is under way."""
        await self._tasks.aclose()
        await self.puncher.aclose()


def _succeeded(task: asyncio.Future[ConnectorLink]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


async def _dropped(task: asyncio.Future[ConnectorLink]) -> None:
    """Give a link up that nobody needs, opened or not."""
    task.cancel()
    try:
        await (await task).aclose()
    except (asyncio.CancelledError, FlowRefused):
        pass
