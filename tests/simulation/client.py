"""The simulated client: the real core and live channel, a link per connector, and programs that open flows.

One that is not honest asks its own core nothing: it opens what it likes, shows other sessions' grants, and repeats hellos.
"""

from __future__ import annotations

import asyncio
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from typing import TYPE_CHECKING

from klinket.client.channel import ClientChannel
from klinket.client.core import ClientCore
from klinket.client.login import Session
from klinket.connector.core import LinkRecord
from klinket.controller.login import ClientFacts, LoginRequest
from klinket.domain.errors import AuthenticationFailed, FlowRefused, InvalidToken, KlinketError, ProtocolError, SessionOver
from klinket.domain.flow import Destination, FlowFailure
from klinket.domain.grant import Principal
from klinket.domain.identifiers import FlowId, Kid, ResourceId, ServiceAccountUuid, SessionId
from klinket.net.certificate_request import certificate_request
from klinket.net.clock import PeerClock
from klinket.net.relay_path import is_outdated
from klinket.wire import assertion, signing
from klinket.wire.control import CertificateRenewed, ClientConfiguration
from klinket.wire.key_file import LOGIN_PATH
from klinket.wire.link import HANDLE_BYTES, MAX_LINK_SECONDS, Link
from klinket.wire.pipe_messages import OpenRequest
from klinket.wire.relay import RelayAnswer, RelayError, RelayRole
from tests.simulation.connector import LiveFlow, Presence, SimulatedConnector
from tests.simulation.controller import URL
from tests.simulation.relay import Relay, Seat
from tests.simulation.virtual_time import Skew

if TYPE_CHECKING:
    from tests.simulation.world import World

#: Seconds until a client that could not get on tries again.
AGAIN_SECONDS = 1.0


@dataclass
class ServiceKey:
    """A service key as its holder has it."""

    account: ServiceAccountUuid
    kid: Kid
    private: signing.PrivateKey


@dataclass(eq=False)
class _LinkedTo:
    connector: SimulatedConnector
    life: int
    record: LinkRecord
    relay: int
    presented: str = ""


class SimulatedClient:
    """`name` in the network."""

    def __init__(self, world: World, name: str, key: ServiceKey, skew: Skew, *, honest: bool = True) -> None:
        self.world = world
        self.name = name
        self.key = key
        self.skew = skew
        self.honest = honest
        self.core = ClientCore()
        self.session: Session | None = None
        #: Why it has given up: its key does not work any more.
        self.over: AuthenticationFailed | None = None
        self._clock = PeerClock()
        #: By relay: its life that admitted, the ticket it was shown, and the seat.
        self._seats: dict[int, tuple[int, str, Seat]] = {}
        self._links: dict[int, _LinkedTo] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Start a process: it logs in, and stays attached."""
        self.core, self.session, self.over = ClientCore(), None, None
        self._clock, self._seats, self._links = PeerClock(), {}, {}
        self._spawn(self._stay_attached())

    async def kill(self) -> None:
        """End at once."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _spawn(self, work) -> None:  # type: ignore[no-untyped-def]
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def principal(self) -> Principal:
        """Return who it is proved to be."""
        assert self.session is not None
        return Principal(self.key.account, self.key.kid, SessionId(self.session.id))

    # ---- the controller

    async def _stay_attached(self) -> None:
        while True:
            try:
                if self.session is None:
                    self.session = await self._log_in()
                    self._clock.set(self.session.time_ms)
                channel = ClientChannel(URL, None, self._clock, self._configured, self._renewed)  # type: ignore[arg-type]
                await channel.attach(self.session)
            except SessionOver:
                self.session = None
                self._links.clear()
            except AuthenticationFailed as error:
                self.over = error
                if self.honest:
                    return
                await asyncio.sleep(10 * AGAIN_SECONDS)
            except KlinketError:
                pass
            await asyncio.sleep(self.world.random.uniform(0.2, 1.0) * AGAIN_SECONDS)

    async def _log_in(self) -> Session:
        key = signing.generate_private_key()
        request = LoginRequest(
            grant_type=assertion.GRANT_TYPE,
            assertion=assertion.sign_assertion(
                signing.SigningKey(self.key.kid, self.key.private),
                self.key.account,
                URL + LOGIN_PATH,
                signing.thumbprint(key.public_key()),
                now=self.world.now(),
                jti=urlsafe_b64encode(self.world.entropy(16)).decode(),
                typ=assertion.LOGIN_TYP,
            ),
            certificate_request=certificate_request(key),
            client=ClientFacts(),
        )
        answer = await self.world.ask_controller(
            self.name, lambda: self.world.controller.logins.login(request, self.world.address(self.name))
        )
        return Session(
            id=answer.session,
            network=answer.network,
            key=key,
            certificate=answer.certificate,
            access_token=answer.access_token,
            expires_at_ms=answer.expires_at_ms,
            time_ms=answer.time_ms,
        )

    def _configured(self, message: ClientConfiguration) -> None:
        self.core.configure(message)
        for linked in list(self._links.values()):
            self._spawn(self._present_again(linked))

    def _renewed(self, message: CertificateRenewed) -> None:
        assert self.session is not None
        self.session.access_token, self.session.expires_at_ms = message.access_token, message.expires_at_ms

    async def _present_again(self, linked: _LinkedTo) -> None:
        try:
            await self._present(linked)
        except KlinketError:
            self._links.pop(linked.connector.id, None)

    # ---- links

    async def _link(self, connector: SimulatedConnector, relay: int) -> _LinkedTo:
        """Return a link with a connector over a relay; raises KlinketError."""
        linked = self._links.get(connector.id)
        if linked is not None and linked.life == self.world.lives[connector.name]:
            return linked
        self._links.pop(connector.id, None)
        await self._meet(connector, relay)
        assert self.session is not None
        now = self._clock.now()
        link = Link(self.world.entropy(HANDLE_BYTES), b"", min(now + MAX_LINK_SECONDS, self.session.expires_at_ms / 1000))
        record = LinkRecord(link, self.principal, signing.thumbprint(self.session.key.public_key()))
        if self.session.expires_at_ms / 1000 <= now:
            raise FlowRefused(FlowFailure.NO_CONNECTOR, "the certificate has ended")
        connector.link(record)
        linked = _LinkedTo(connector, self.world.lives[connector.name], record, relay)
        await self._present(linked)
        self._links[connector.id] = linked
        return linked

    async def _meet(self, connector: SimulatedConnector, relay_id: int) -> None:
        """Go through a relay to a connector; raises RelayError, FlowRefused."""
        relay, network = self.world.relays[relay_id], self.world.network
        await asyncio.sleep(network.delay() + network.delay())
        presence = connector.presence(relay_id) if connector.up else None
        if (
            not relay.up
            or not network.joined(self.name, relay.name)
            or not network.joined(connector.name, relay.name)
            or presence is None
        ):
            raise FlowRefused(FlowFailure.NO_CONNECTOR, "no way there")
        hello = self._go_through(relay, connector, presence)
        if not self.honest:
            try:
                relay.pair(hello, lambda: presence.hello(connector.id))
            except KlinketError:
                pass
            else:
                self.world.broken(f"{relay.name} took the same hello twice")

    def _go_through(self, relay: Relay, connector: SimulatedConnector, presence: Presence) -> bytes:
        """Return the hello that the relay has taken; raises RelayError."""
        for attempt in (1, 2):
            life, shown, seat = self._seats.get(relay.id, (-1, "", None))
            if seat is None or life != self.world.lives[relay.name]:
                shown = self.core.ticket_for(relay.id)
                try:
                    seat = relay.admit(shown, RelayRole.CLIENT)
                except InvalidToken as error:
                    raise RelayError(RelayAnswer.TICKET_REFUSED) from error
                self._seats[relay.id] = self.world.lives[relay.name], shown, seat
            hello = seat.hello(connector.id)
            try:
                relay.pair(hello, lambda: presence.hello(connector.id))
            except ProtocolError as error:
                raise RelayError(RelayAnswer.NOT_ALLOWED) from error
            except RelayError as error:
                if attempt == 2 or not is_outdated(error.answer, shown, self.core.ticket_for(relay.id)):
                    raise
                del self._seats[relay.id]
            else:
                return hello
        raise AssertionError("unreachable")

    async def _present(self, linked: _LinkedTo) -> None:
        token = self.core.grant_for(linked.connector.made._core._remote_network).token
        await asyncio.sleep(self.world.network.delay())
        if not linked.connector.up or linked.life != self.world.lives[linked.connector.name]:
            raise FlowRefused(FlowFailure.NO_CONNECTOR, "the connector is gone")
        if token != linked.presented:
            linked.connector.present(linked.record, token)
            linked.presented = token

    async def show_stolen_grant(self, token: str, connector: SimulatedConnector, relay: int) -> None:
        """Show a grant that another session was given."""
        linked = await self._link(connector, relay)
        try:
            connector.present(linked.record, token)
        except (InvalidToken, FlowRefused):
            return
        self.world.broken(f"{connector.name} took another session's grant from {self.name}")

    # ---- flows

    async def open(self, destination: Destination) -> tuple[SimulatedConnector, LiveFlow]:
        """Open a flow the way a client does: decide, choose connector and relay, ask. Raises KlinketError."""
        if self.session is None:
            raise FlowRefused(FlowFailure.CONTROLLER_UNREACHABLE, "not online")
        resource = self.core.decide(destination, self._clock.now())
        failure: KlinketError | None = None
        for route in self.core.routes(resource, self._clock.now()):
            for relay in route.relays:
                try:
                    return await self.open_at(self.world.connector(route.connector.id), relay.id, destination, resource.id)
                except RelayError as error:
                    failure = error
                except FlowRefused as error:
                    failure = error
                    if error.failure not in (FlowFailure.NO_CONNECTOR, FlowFailure.DRAINING):
                        raise
            self.core.choice.failed(route.connector.id, self._clock.now())
        raise failure or FlowRefused(FlowFailure.NO_CONNECTOR, "no relay")

    async def open_at(
        self, connector: SimulatedConnector, relay: int, destination: Destination, resource: ResourceId
    ) -> tuple[SimulatedConnector, LiveFlow]:
        """Ask one connector for a flow; raises KlinketError."""
        linked = await self._link(connector, relay)
        await asyncio.sleep(self.world.network.delay())
        if not self.world.way(self.name, relay, connector) or linked.life != self.world.lives[connector.name]:
            raise FlowRefused(FlowFailure.NO_CONNECTOR, "the connector is gone")
        request = OpenRequest(destination, resource, FlowId(self.world.entropy(16).hex()))
        live = await connector.open(linked.record, request, relay, self.world.random.choice((0.001, 0.05, 0.3, 2.0)))
        self.world.opened(connector, live)
        return connector, live
