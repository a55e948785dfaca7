"""The simulated connector: the real one but for sockets. It enrols, attaches, applies cuts, keeps them on disk and spools events.

A flow here is an entry in the real core's table with nothing behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from klinket.connector.config import ConnectorConfig
from klinket.connector.core import EndedFlow, Flow, LinkRecord
from klinket.connector.flows import FlowServer
from klinket.connector.serve import Connector
from klinket.connector.traffic import Traffic
from klinket.domain.errors import FlowRefused, KlinketError
from klinket.domain.flow import FlowFailure
from klinket.wire.control import CutFlow
from klinket.wire.inventory import RelayEntry
from klinket.wire.pipe_messages import OpenRequest
from klinket.wire.relay import RelayRole
from tests.simulation.controller import URL
from tests.simulation.relay import Relay, Seat
from tests.simulation.virtual_time import Skew

if TYPE_CHECKING:
    from tests.simulation.world import World

#: Seconds between looks of a connector at its relays.
LOOK_SECONDS = 0.5


@dataclass(eq=False)
class LiveFlow:
    """A flow that was opened. `token_hash`: of the connector's tokens at that time."""

    flow: Flow
    relay: int
    opened_at: float
    token_hash: str


class Presence:
    """Stands in for RelayPresence: a seat at one relay."""

    def __init__(self, world: World, name: str, relay: RelayEntry, ticket: str, used_up: Callable[[], None]) -> None:
        self.relay = relay
        self.ticket = ticket
        self.attached = False
        self.seat: Seat | None = None
        self._world = world
        self._name = name
        self._used_up = used_up
        self._shown = ""
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.ensure_future(self._keep())

    async def aclose(self) -> None:
        self.stop_waiting()

    def follow(self, relay: RelayEntry) -> None:
        self.relay = relay

    @property
    def serving(self) -> bool:
        return False

    def stop_waiting(self) -> None:
        self.attached = False
        if self._task is not None:
            self._task.cancel()

    def hello(self, connector: int) -> bytes | None:
        """Return the hello of a waiting connection, None when none waits."""
        return self.seat.hello(connector) if self.attached and self.seat is not None else None

    @property
    def _relay(self) -> Relay:
        return self._world.relays[self.relay.id]

    async def _keep(self) -> None:
        life = -1
        while True:
            reachable = self._relay.up and self._world.network.joined(self._name, self._relay.name)
            if not reachable or (self.seat is not None and life != self._world.lives[self._relay.name]):
                self.attached, self.seat = False, None
            if reachable and self.seat is None:
                if self.ticket == self._shown:
                    self._used_up()
                else:
                    self._shown = self.ticket
                    try:
                        self.seat = self._relay.admit(self.ticket, RelayRole.CONNECTOR)
                    except KlinketError:
                        self._used_up()
                    else:
                        life, self.attached = self._world.lives[self._relay.name], True
            await asyncio.sleep(LOOK_SECONDS)


class Flows:
    """Stands in for FlowServer: the flows that are live."""

    def __init__(self) -> None:
        self.live: dict[Flow, LiveFlow] = {}

    def end(self, ended: Sequence[EndedFlow], received_at: float) -> list[CutFlow]:
        """End flows now."""
        for one in ended:
            self.live.pop(one.flow, None)
        return _told.end(ended, received_at)

    def limits_changed(self) -> None:
        """Do nothing: no bytes are carried, so none are paced."""


class NoRunFile:
    """Stands in for RunFile: nobody asks the machine how a connector is."""

    def tell(self, **_: object) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class Links:
    """Stands in for LinkServer, which holds sockets only."""

    def end_over(self, _: object) -> None:
        """Do nothing: pipes without a link open nothing."""

    def end_unfinished(self) -> None:
        """Do nothing."""

    def drain(self) -> None:
        """Do nothing."""


#: Only says what a receipt tells of flows; it carries none.
_told = FlowServer.__new__(FlowServer)
_told._enders = {}
_told.traffic = Traffic()


class SimulatedConnector:
    """`name` in the network. Its state folder outlives it."""

    def __init__(self, world: World, name: str, id: int, folder: Path, skew: Skew) -> None:
        self.world = world
        self.name = name
        self.id = id
        self.skew = skew
        self.up = False
        self.tokens = ("", "")
        self.token_hash = ""
        self.flows = Flows()
        self.configured_at = float("inf")
        self._configured_on: object = None
        self._folder = folder
        self._made: Connector | None = None
        self._running: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start a process with what is on disk, and the tokens it was given."""
        config = ConnectorConfig(
            controller=URL, access_token=self.tokens[0], refresh_token=self.tokens[1], state=self._folder, controller_ca=None
        )
        made = Connector(config)
        self.flows = Flows()
        made._flows, made._links = self.flows, Links()  # type: ignore[assignment]
        configure = made._channel._configure

        async def configured(message):  # type: ignore[no-untyped-def]
            receipts = await configure(message)
            self.configured_at, self._configured_on = self.world.now(), made._channel._connection
            return receipts

        made._channel._configure = configured
        self._made = made
        self._running = asyncio.ensure_future(made.run(asyncio.Event()))
        self.up = True

    async def kill(self) -> None:
        """End at once."""
        assert self._made is not None
        assert self._running is not None
        self.up = False
        self.configured_at = float("inf")
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await self._made._tasks.aclose()
        for presence in self._made._relays.values():
            await presence.aclose()
        self.world.lost_process(self, list(self.flows.live.values()))
        self.flows.live.clear()

    @property
    def made(self) -> Connector:
        """Return the process."""
        assert self._made is not None
        return self._made

    @property
    def attached(self) -> bool:
        """Return whether it has a live channel, on which a configuration has come."""
        connection = self.made._channel._connection if self.up else None
        return connection is not None and connection is self._configured_on

    def presence(self, relay: int) -> Presence | None:
        """Return its seat at a relay."""
        return self.made._relays.get(relay)  # type: ignore[return-value]

    # ---- what comes from clients

    def link(self, record: LinkRecord) -> None:
        """Take a link whose client has proved who it is; raises FlowRefused."""
        if self.made._terminator is None:
            raise FlowRefused(FlowFailure.NO_CONNECTOR, "not configured yet")
        self.made._core.add_link(record, self.made._clock.now())

    def present(self, record: LinkRecord, token: str) -> None:
        """Take a grant; raises InvalidToken, FlowRefused."""
        _, ended = self.made._core.present_grant(record, token, self.made._clock.now())
        self.flows.end(ended, 0.0)

    async def open(self, record: LinkRecord, request: OpenRequest, relay: int, dialling: float) -> LiveFlow:
        """Open a flow as FlowServer does: enter, dial, look again. Raises FlowRefused."""
        made, core = self.made, self.made._core
        if core.link(record.link.handle, made._clock.now()) is not record:
            raise FlowRefused(FlowFailure.NO_CONNECTOR, "no such link")
        flow = core.open(record, request, made._clock.now())
        try:
            await asyncio.sleep(dialling)
            if made is not self._made or not self.up:
                raise FlowRefused(FlowFailure.NO_CONNECTOR, "the connector is gone")
            core.recheck(flow, made._clock.now())
        except BaseException:
            core.close(flow)
            raise
        live = LiveFlow(flow, relay, self.world.now(), self.token_hash)
        self.flows.live[flow] = live
        made._events.established(flow, relay, "10.0.0.1")
        return live

    def close(self, live: LiveFlow) -> None:
        """End a flow: its program is done."""
        if self.flows.live.pop(live.flow, None) is not None:
            self.made._core.close(live.flow)
            self.made._events.closed(live.flow, live.relay, "10.0.0.1", 1, 1, None)
