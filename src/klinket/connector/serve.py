"""A connector put together: enrol, attach, wait at the relays, serve flows."""

from __future__ import annotations

import asyncio
import logging
import time

from klinket.connector import enrol
from klinket.connector.addresses import own_addresses
from klinket.connector.channel import ConnectorChannel
from klinket.connector.config import ConnectorConfig
from klinket.connector.core import ConnectorCore
from klinket.connector.enrol import Credentials
from klinket.connector.events import FlowEventLog
from klinket.connector.flows import FlowServer
from klinket.connector.limits import BATCH_SECONDS
from klinket.connector.links import LinkServer
from klinket.connector.rendezvous import RelayPresence
from klinket.connector.state import ConnectorState
from klinket.domain.errors import AuthenticationFailed, ConnectorTokensDead, InvalidToken, KlinketError
from klinket.domain.identifiers import RemoteNetworkId
from klinket.net.backoff import Backoff
from klinket.net.channel import controller_context
from klinket.net.clock import PeerClock
from klinket.net.link import LinkTerminator
from klinket.net.tasks import TaskSet
from klinket.wire import control
from klinket.wire.cut_token import verify_cut
from klinket.wire.signing import KeySet

logger = logging.getLogger(__name__)

#: Seconds between tries with tokens that the controller calls dead: somebody has to act.
DEAD_TOKENS_SECONDS = 60.0
#: Seconds for live flows after SIGTERM.
DRAIN_SECONDS = 3.0
#: Seconds between looks at grants that end.
TICK_SECONDS = 0.25


class Connector:
    """One running connector."""

    def __init__(self, config: ConnectorConfig) -> None:
        self._config = config
        self._state = ConnectorState(config.state)
        self._key = self._state.identity_key()
        self._clock = PeerClock()
        self._core = ConnectorCore()
        self._events = FlowEventLog(self._state, self._clock.now)
        self._own = set(own_addresses())
        self._flows = FlowServer(self._core, self._events, self._clock.now, lambda: self._own)
        self._terminator: LinkTerminator | None = None
        self._links = LinkServer(self._core, self._flows, self._clock.now, lambda: self._terminator)
        self._relays: dict[int, RelayPresence] = {}
        self._credentials: Credentials | None = None
        self._configuration: control.ConnectorConfiguration | None = None
        self._head = (0, 0)
        self._cut_tokens: dict[int, str] = {}
        self._told_relays: list[int] = []
        self._failure: KlinketError | None = None
        self._failed = asyncio.Event()
        self._tasks = TaskSet("connector")
        self._channel = ConnectorChannel(
            config,
            self._key,
            self._core,
            self._clock,
            self._events,
            self._attached_relays,
            lambda: sorted(self._own),
            self._configure,
            self._cut,
            self._renewed,
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; then drain."""
        self._tasks.start(self._stay_attached(), "channel")
        self._tasks.start(self._tick(), "grants that end")
        self._tasks.start(self._spool(), "flow events to disk")
        await self._stopped_or_failed(stop)
        logger.info("stopping: no new flows; %d live ones have %.0f s", self._core.flows, DRAIN_SECONDS)
        self._links.drain()
        for presence in self._relays.values():
            await presence.stop_waiting()
        deadline = time.monotonic() + DRAIN_SECONDS
        while self._core.flows and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        self._events.spool()
        await self._tasks.aclose()
        for presence in self._relays.values():
            await presence.aclose()
        if self._failure is not None:
            raise self._failure

    async def _stopped_or_failed(self, stop: asyncio.Event) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in (stop, self._failed)]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    def _attached_relays(self) -> list[int]:
        return [id for id, presence in self._relays.items() if presence.attached]

    # ---- the controller

    async def _stay_attached(self) -> None:
        backoff = Backoff()
        context = controller_context(self._config.controller_ca)
        while True:
            attached_at = time.monotonic()
            try:
                now_ms = self._clock.now() * 1000
                if self._credentials is None or self._credentials.expires_at_ms < now_ms + 60_000:
                    self._credentials = await enrol.enrol(self._config, self._key, context)
                    self._clock.set(self._credentials.time_ms)
                    self._new_terminator()
                await self._channel.attach(self._credentials, context)
            except AuthenticationFailed as error:
                logger.error("%s: %s; %s", error.code, error.message, error.hint)
                self._credentials = None
                if self._configuration is None and isinstance(error, ConnectorTokensDead | enrol.EnrolmentRefused):
                    # Nothing runs yet that could be kept: whoever started it should see it fail.
                    self._failure = error
                    self._failed.set()
                    return
                dead = isinstance(error, ConnectorTokensDead)
                await asyncio.sleep(DEAD_TOKENS_SECONDS if dead else backoff.next() + 5)
            except KlinketError as error:
                if time.monotonic() - attached_at > 30:
                    backoff.reset()
                delay = backoff.next()
                logger.warning("%s; live flows go on; trying again in %.1f s", error.message, delay)
                await asyncio.sleep(delay)

    def _renewed(self, message: control.CertificateRenewed) -> None:
        assert self._credentials is not None
        self._credentials.certificate = message.certificate
        self._credentials.access_token = message.access_token
        self._credentials.expires_at_ms = message.expires_at_ms
        self._new_terminator()

    def _new_terminator(self) -> None:
        if self._configuration is not None and self._credentials is not None:
            self._terminator = LinkTerminator(
                self._credentials.certificate,
                self._key,
                self._configuration.client_authority,
                self._configuration.network,
            )

    async def _configure(self, message: control.ConnectorConfiguration) -> list[control.CutReceipt]:
        """Take over the full state; returns receipts of the cuts in it."""
        stamp = (message.epoch, message.revision)
        kept_head, kept = self._state.kept_cuts()
        self._head = max(self._head, kept_head)
        if self._head[0] == message.epoch and stamp < self._head:
            logger.error("the controller is behind what it has said before (revision %d): a restored backup?", stamp[1])
        self._configuration = message
        self._core.configure(
            message.network, RemoteNetworkId(message.remote_network), KeySet.from_jwks(message.grant_keys), message.limits
        )
        self._new_terminator()
        receipts = [receipt for token in [*kept, *message.cuts] if (receipt := self._apply(token)) is not None]
        self._keep(stamp)
        await self._attend(message)
        return list({receipt.id: receipt for receipt in receipts}.values())

    def _cut(self, message: control.Cut) -> control.CutReceipt:
        receipt = self._apply(message.token)
        if receipt is None:
            raise InvalidToken("a cut is not valid")
        self._keep(self._head)
        return receipt

    def _apply(self, token: str) -> control.CutReceipt | None:
        received_at = time.monotonic()
        assert self._configuration is not None
        keys = KeySet.from_jwks(self._configuration.cut_keys)
        try:
            cut = verify_cut(token, keys, network=self._configuration.network, now=self._clock.now())
        except InvalidToken as error:
            logger.error("a cut was not applied: %s", error.message)
            return None
        ended = self._core.apply_cut(cut, self._clock.now())
        told = self._flows.end(ended, received_at)
        self._cut_tokens[cut.id] = token
        self._head = max(self._head, cut.stamp)
        if told:
            logger.info("cut %d (%s): %d flows ended", cut.id, cut.scope, len(told))
        return control.CutReceipt(
            id=cut.id,
            stopped_at_ms=round(self._clock.now() * 1000),
            took_ms=round((time.monotonic() - received_at) * 1000, 3),
            flows=told,
        )

    def _keep(self, stamp: tuple[int, int]) -> None:
        self._head = max(self._head, stamp) if stamp[0] == self._head[0] else stamp
        in_force = {cut.id for cut in self._core.floors}
        self._cut_tokens = {id: token for id, token in self._cut_tokens.items() if id in in_force}
        self._state.keep_cuts(self._head, list(self._cut_tokens.values()))

    # ---- relays

    async def _attend(self, message: control.ConnectorConfiguration) -> None:
        tickets = {ticket.relay: ticket.token for ticket in message.tickets}
        wanted = {relay.id: relay for relay in message.relays if relay.id in tickets}
        for id in [id for id, presence in self._relays.items() if wanted.get(id) != presence.relay]:
            await self._relays.pop(id).aclose()
        for id, relay in wanted.items():
            if id in self._relays:
                self._relays[id].ticket = tickets[id]
            else:
                self._relays[id] = RelayPresence(message.connector, relay, tickets[id], self._links)
                self._relays[id].start()

    async def _spool(self) -> None:
        """Put flow events on disk also while no channel is up that would take them: they outlive this process."""
        while True:
            await asyncio.sleep(BATCH_SECONDS)
            self._events.spool()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = self._clock.now()
            deadline = self._core.next_deadline()
            if deadline is not None and deadline <= now:
                self._flows.end(self._core.deadline_reached(now), time.monotonic())
            if (relays := self._attached_relays()) != self._told_relays:
                self._told_relays = relays
                self._channel.relays_changed()


async def run(config: ConnectorConfig, stop: asyncio.Event) -> None:
    """Serve until `stop` is set."""
    await Connector(config).run(stop)
