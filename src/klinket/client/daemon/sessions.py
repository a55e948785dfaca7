"""The daemon's sessions: one takes all new flows; those it replaced go on until their flows have ended."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from klinket.client.client import Client
from klinket.client.ports import DatagramFlow, NameSource, OpenedFlow
from klinket.client.traffic import ClientTraffic
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import Destination, FlowFailure
from klinket.domain.resource import Resource, ResourceIndex
from klinket.net.sockets import HostPort
from klinket.net.tasks import TaskSet
from klinket.wire.key_file import KeyFile

logger = logging.getLogger(__name__)

#: Seconds for which a replaced session stays at the least: a flow may be on its way to being opened.
RETIRE_SECONDS = 20.0
#: Seconds between looks at whether the flows of a replaced session have ended.
LOOK_SECONDS = 0.5
#: Replaced sessions that still have flows; the oldest is ended for a further one.
MAX_RETIRING = 4
#: Seconds a new session may take to reach connectors before it takes over from one that has.
PROVE_SECONDS = 10.0


class Sessions:
    """Implements ports.FlowOpener. `prepare` a client, start it, and let it `take` over.

    `changed`: called when what is granted may be another; `former`: what was granted before this process.
    """

    def __init__(self, changed: Callable[[], None], former: ResourceIndex | None = None) -> None:
        self._changed = changed
        self._former = former or ResourceIndex(())
        self._current: tuple[KeyFile, Client] | None = None
        self.traffic = ClientTraffic()
        self._retiring: list[Client] = []
        self._tasks = TaskSet("sessions")

    @property
    def current(self) -> Client | None:
        """Return the client that takes new flows, or None before the first."""
        return self._current[1] if self._current is not None else None

    @property
    def key_file(self) -> KeyFile | None:
        """Return the key of the current session."""
        return self._current[0] if self._current is not None else None

    @property
    def flow_count(self) -> int:
        """Return how many flows are open, those of replaced sessions among them."""
        return sum(client.flow_count for client in (*self._retiring, *((self.current,) if self.current else ())))

    def own_hosts(self) -> frozenset[str]:
        """Return the hosts that the sessions themselves dial: no resource's name, even where one is called the same."""
        if self._current is None:
            return frozenset()
        key_file, client = self._current
        relays = [host for one in (client, *self._retiring) for host in _relay_hosts(one)]
        return frozenset([key_file.host, *relays])

    @property
    def retiring_count(self) -> int:
        return len(self._retiring)

    def prepare(self, key_file: KeyFile) -> Client:
        """Return a client that is not started; whoever asked starts it, and closes it where it does not take over."""
        return Client(key_file, changed=self._changed, traffic=self.traffic)

    async def take(self, key_file: KeyFile, client: Client) -> str:
        """Let a started client take all new flows; returns a sentence that says what became of the open ones.

        Flows of the former session go on when its key is of the same service account, and are reset when it is of another:
        what that one was granted is not this one's.
        """
        former = self._current
        if former is None:
            self._current = (key_file, client)
            self._changed()
            return "the first session"
        client.core.inherit(former[1].core)
        if not former[1].ended.is_set():
            await self._prove(client)
        self._current = (key_file, client)
        self._changed()
        flows = former[1].flow_count
        if not same_account(former[0], key_file):
            await former[1].aclose()
            for retiring in self._retiring:
                await retiring.aclose()
            self._retiring.clear()
            return f"the key is of another service account: {_counted(flows)} of the former one {_was(flows)} reset"
        self._retiring.append(former[1])
        self._tasks.start(self._retire(former[1]), "replaced session")
        while len(self._retiring) > MAX_RETIRING:
            oldest = self._retiring.pop(0)
            logger.warning("too many replaced sessions still have flows: the oldest ends, with %d flows", oldest.flow_count)
            await oldest.aclose()
        return f"new flows use the new key; {_counted(flows)} of the former session {'goes' if flows == 1 else 'go'} on"

    async def _prove(self, client: Client) -> None:
        """Reach connectors before the new session is used: no flow has to wait for it, or fails where the former one works."""
        try:
            async with asyncio.timeout(PROVE_SECONDS):
                await client.networks()
        except TimeoutError:
            logger.warning("the new session reaches no connector yet; it takes over all the same")

    async def _retire(self, client: Client) -> None:
        await asyncio.sleep(RETIRE_SECONDS)
        while client.flow_count and client in self._retiring:
            await asyncio.sleep(LOOK_SECONDS)
        if client in self._retiring:
            self._retiring.remove(client)
            await client.aclose()
            logger.info("the last flow of a replaced session has ended, and the session with it")

    async def aclose(self) -> None:
        """End all sessions and their flows."""
        await self._tasks.aclose()
        clients = [*self._retiring, *([self.current] if self.current is not None else [])]
        self._retiring.clear()
        await asyncio.gather(*(client.aclose() for client in clients))

    # ---- ports.FlowOpener

    def _client(self) -> Client:
        if self._current is None:
            raise FlowRefused(FlowFailure.CONTROLLER_UNREACHABLE, "there is no session yet", hint="klinket status -v says why")
        return self._current[1]

    @property
    def resources(self) -> tuple[Resource, ...]:
        """Return what is granted now."""
        return self._current[1].resources if self._current is not None else ()

    def resource_for(self, host: str) -> Resource | None:
        """Return the granted resource that serves this canonical host, or None; raises FlowRefused before the first session."""
        return self._client().resource_for(host)

    def claims(self, host: str) -> bool:
        """Return whether a canonical host is granted, or was before; raises FlowRefused where that is not known yet."""
        return self._former.lookup(host) is not None or self._client().claims(host)

    @property
    def names(self) -> NameSource | None:
        """Return what the current session knows of names."""
        return self._current[1].names if self._current is not None else None

    async def open_stream(self, destination: Destination) -> OpenedFlow:
        """Open a TCP flow in the current session; raises FlowRefused."""
        with self._counting():
            return await self._client().open_stream(destination)

    async def open_early(self, destination: Destination, refused: Callable[[FlowRefused], None]) -> OpenedFlow:
        """Open a TCP flow in the current session without waiting for the resource; raises FlowRefused."""

        def late(error: FlowRefused) -> None:
            self.traffic.refused[error.failure] += 1
            refused(error)

        with self._counting():
            return await self._client().open_early(destination, late)

    async def open_datagrams(self, destination: Destination) -> DatagramFlow:
        """Open a UDP association in the current session; raises FlowRefused."""
        with self._counting():
            return await self._client().open_datagrams(destination)

    @contextmanager
    def _counting(self) -> Iterator[None]:
        """Count a flow that is opened in here, or refused."""
        try:
            yield
        except FlowRefused as error:
            self.traffic.refused[error.failure] += 1
            raise
        self.traffic.opened += 1


def is_usable(client: Client) -> bool:
    """Return whether what the controller told last still counts: new flows are possible, also while it is out of reach."""
    if client.ended.is_set() or not client.core.configured:
        return False
    return client.now() < client.core.configuration.valid_until_ms / 1000


def _relay_hosts(client: Client) -> list[str]:
    relays = client.core.configuration.relays if client.core.configured else []
    return [HostPort.parse(relay.address).host for relay in relays]


def same_account(one: KeyFile, other: KeyFile) -> bool:
    """Return whether two keys are of one service account of one network."""
    return (one.network, one.service_account_id) == (other.network, other.service_account_id)


def _counted(flows: int) -> str:
    return "1 flow" if flows == 1 else f"{flows} flows"


def _was(flows: int) -> str:
    return "was" if flows == 1 else "were"
