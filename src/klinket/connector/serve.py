"""A connector put together: enrol, attach, wait at the relays, serve flows."""

from __future__ import annotations

import asyncio
import logging
import sys
import time

from klinket.connector import enrol, limits
from klinket.connector.addresses import follow, own_addresses
from klinket.connector.channel import ConnectorChannel, CredentialsRefused
from klinket.connector.config import ConnectorConfig
from klinket.connector.core import ConnectorCore
from klinket.connector.enrol import Credentials
from klinket.connector.events import FlowEventLog
from klinket.connector.flows import FlowServer
from klinket.connector.limits import BATCH_SECONDS, LEAVE_SECONDS
from klinket.connector.links import LinkServer
from klinket.connector.listener import DirectListener
from klinket.connector.observed import Observed
from klinket.connector.pipes import ProvenPipes
from klinket.connector.punching import ConnectorPunching
from klinket.connector.receipts import Receipts
from klinket.connector.relay_choice import AWAY_SECONDS, MEASURE_SECONDS, RelayChoice
from klinket.connector.rendezvous import RelayPresence
from klinket.connector.run_file import RunFile
from klinket.connector.state import ConnectorState
from klinket.connector.traffic_log import TrafficLog
from klinket.domain.cut import CutKey
from klinket.domain.errors import AuthenticationFailed, ConnectorTokensDead, InvalidToken, KlinketError
from klinket.domain.identifiers import ConnectorId, RemoteNetworkId
from klinket.domain.nearest_relays import KEPT_RELAYS
from klinket.net import carrying, descriptors
from klinket.net import pipe as pipes
from klinket.net.backoff import Backoff
from klinket.net.channel import controller_context, was_refused
from klinket.net.clock import PeerClock
from klinket.net.copies import CopyWatch
from klinket.net.link import LinkTerminator
from klinket.net.tasks import TaskSet, first_of
from klinket.wire import control
from klinket.wire.cut_token import verify_cut
from klinket.wire.identity import ConnectorIdentity
from klinket.wire.signing import KeySet

logger = logging.getLogger(__name__)

#: Seconds between tries with tokens that the controller calls dead: somebody has to act.
DEAD_TOKENS_SECONDS = 60.0
#: Where the channel ended as one that is not believed does, and no word came that says why.
REFUSED_HINT = "; if it stays: klinket admin connector tokens NAME makes new tokens, the controller's log says what it refused"
#: Seconds between looks at grants that end.
TICK_SECONDS = 0.25


class Connector:
    """One running connector."""

    def __init__(self, config: ConnectorConfig) -> None:
        self._config = config
        self._context = controller_context(config.controller_ca)
        config.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._run_file = RunFile(config.state)  # before anything there is read: it may be in use
        self._state = ConnectorState(config.state)
        self._key = self._state.identity_key()
        self._clock = PeerClock()
        self._core = ConnectorCore()
        self._traffic_log = TrafficLog(sys.stdout) if config.logs_traffic else None
        self._events = FlowEventLog(self._state, self._clock.now, self._traffic_log)
        self._own: set[str] = set()
        # A pipe takes a file, its flow another; connections that wait at relays take theirs beside them.
        spare = limits.SPARE_DESCRIPTORS + limits.MAX_IDLE
        proven = ProvenPipes(min(limits.MAX_PIPES, max(16, (descriptors.raise_limit() - spare) // 2) + carrying.capacity()))
        self._flows = FlowServer(self._core, self._events, self._clock.now, lambda: self._own, proven)
        self._terminator: LinkTerminator | None = None
        self._links = LinkServer(self._core, self._flows, self._clock.now, lambda: self._terminator, proven)
        self._listener = None if config.listen is None else DirectListener(config.listen, config.advertised, self._links)
        self._punching = ConnectorPunching(config.controller, self._context, self._links) if config.hole_punching else None
        self._relays: dict[int, RelayPresence] = {}
        self._left_relays: list[RelayPresence] = []
        self._relay_choice = RelayChoice()
        self._credentials: Credentials | None = None
        self._configuration: control.ConnectorConfiguration | None = None
        self._head = (0, 0)
        self._cut_tokens: dict[CutKey, str] = {}
        self._receipts = Receipts(self._key, self._clock.now)
        self._kept: tuple[tuple[int, int], list[str]] | None = None
        self._told_relays: list[int] = []
        self._failure: KlinketError | None = None
        self._failed = asyncio.Event()
        self._tasks = TaskSet("connector")
        self._copies = CopyWatch(self._machine_copied)
        self._channel = ConnectorChannel(
            config,
            self._key,
            self._core,
            self._clock,
            self._events,
            self._attached_relays,
            lambda: sorted(self._own),
            lambda: [] if self._listener is None or self._core.draining else self._listener.addresses(self._own),
            self._configure,
            self._cut,
            self._renewed,
            self._copies.exchanged,
        )
        self._channel.punch_told = None if self._punching is None else self._punching.told

    def observed(self) -> Observed:
        """Return what is looked at from outside."""
        state = self._channel.is_attached, (lambda: self._configuration is not None), self._attached_relays
        traffic, bandwidth, listens = self._flows.traffic, self._flows.bandwidth, self._listener is not None
        return Observed(self._core, traffic, bandwidth, self._clock, *state, listens, self._flows.paths)

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set; then drain."""
        self._run_file.tell(draining=False, flows=0)
        self._own.update(await asyncio.to_thread(own_addresses))
        self._copies.start()
        if self._listener is not None:
            self._listener.start()
            self._flows.paths.listen(self._listener.host, self._listener.port)
        self._tasks.start(self._stay_attached(), "channel")
        self._tasks.start(self._tick(), "grants that end")
        self._tasks.start(self._spool_events(), "flow events")
        self._tasks.start(follow(self._own), "own addresses")
        self._tasks.start(self._look_for_nearer_relays(), "nearer relays")
        await first_of(stop, self._failed)
        await self._drain()
        await self._channel.leave()
        self._copies.close()
        await self._tasks.aclose()
        await self._leave_relays()
        self._flows.paths.close()
        if self._listener is not None:
            await self._listener.aclose()
        if self._punching is not None:
            await self._punching.aclose()
        await self._events.spool()  # what the last flows told is sent at the next start
        self._run_file.close()
        if self._failure is not None:
            raise self._failure

    async def _drain(self) -> None:
        """Take no new flows, have everybody know, and wait for the live ones, for as long as there is time."""
        seconds = self._config.drain_seconds
        logger.info("stopping: no new flows; %d live ones have %.0f s", self._core.flows, seconds)
        begun = time.monotonic()
        self._links.drain()
        self._channel.relays_changed()
        leave = begun + min(LEAVE_SECONDS, seconds)
        while self._core.links and time.monotonic() < leave:
            self._run_file.tell(draining=True, flows=self._core.flows)
            await asyncio.sleep(0.05)  # who comes with a link that is under way is told to go elsewhere
        for presence in self._relays.values():
            presence.stop_waiting()
        if self._listener is not None:
            self._listener.stop_accepting()
        if self._punching is not None:
            self._channel.punch_told = None
            self._punching.end_waiting()
        while self._core.flows and time.monotonic() < begun + seconds:
            self._run_file.tell(draining=True, flows=self._core.flows)
            await asyncio.sleep(0.05)
        self._run_file.tell(draining=True, flows=self._core.flows)
        if self._core.flows:
            logger.warning("the time is over: %d flows are reset", self._core.flows)

    def _attached_relays(self) -> list[int]:
        if self._core.draining:
            return []  # the controller tells clients of the others
        return [id for id, presence in self._relays.items() if presence.attached]

    # ---- the controller

    async def _stay_attached(self) -> None:
        backoff = Backoff()
        while True:
            attached_at = time.monotonic()
            try:
                now_ms = self._clock.now() * 1000
                if self._credentials is None or self._credentials.expires_at_ms < now_ms + 60_000:
                    self._credentials = await enrol.enrol(self._config, self._key, self._context)
                    self._clock.set(self._credentials.time_ms)
                    self._new_terminator()
                await self._channel.attach(self._credentials, self._context)
            except AuthenticationFailed as error:
                logger.error("%s: %s; %s", error.code, error.message, error.hint)
                self._credentials = None
                if self._configuration is None and isinstance(error, enrol.FINAL):
                    # Nothing runs yet that could be kept: whoever started it should see it fail.
                    self._failure = error
                    self._failed.set()
                    return
                dead = isinstance(error, ConnectorTokensDead)
                if dead:
                    await self._end_everything()
                await asyncio.sleep(DEAD_TOKENS_SECONDS if dead else backoff.next() + 5)
            except KlinketError as error:
                if time.monotonic() - attached_at > 30:
                    backoff.reset()
                if isinstance(error, CredentialsRefused):
                    self._credentials = None
                delay = max(backoff.next(), error.retry_after or 0.0)
                going_on = "; live flows go on" if self._configuration is not None else ""
                hint = REFUSED_HINT if was_refused(error) else ""
                logger.warning("%s%s; trying again in %.1f s%s", error, going_on, delay, hint)
                await asyncio.sleep(delay)
            except Exception:
                # A defect, here or in what was sent. Without this task no cut would be heard any more: it must not die.
                logger.exception("the channel failed; live flows go on")
                await asyncio.sleep(backoff.next())

    async def _end_everything(self) -> None:
        """The controller does not know this connector any more: flows end, and nobody is waited for."""
        ended = self._flows.end(self._core.end_all(), time.monotonic())
        self._links.end_over(lambda _: True)
        logger.error("this connector was deleted or has new tokens: %d flows ended", len(ended))
        await self._leave_relays()

    def _machine_copied(self, reason: str) -> None:
        """Whoever runs on as the other copy has the same links: all are forgotten, and clients make new ones."""
        logger.warning("all links and flows end: %s", reason)
        pipes.forget_all_keys()
        self._flows.end(self._core.end_all(reason), time.monotonic())
        self._links.end_over(lambda _: True)
        if self._punching is not None:
            self._punching.end_waiting()
        self._channel.abort()
        self._tasks.start(self._leave_relays(), "copied admissions")

    async def _leave_relays(self) -> None:
        while self._relays:
            await self._relays.popitem()[1].aclose()
        while self._left_relays:
            await self._left_relays.pop().aclose()

    def _renewed(self, message: control.CertificateRenewed) -> None:
        assert self._credentials is not None
        self._credentials.certificate = message.certificate
        self._credentials.access_token = message.access_token
        self._credentials.expires_at_ms = message.expires_at_ms
        self._new_terminator()

    def _new_terminator(self) -> None:
        if self._configuration is not None and self._credentials is not None:
            authority, network = self._configuration.client_authority, self._configuration.network
            self._terminator = LinkTerminator(self._credentials.certificate, self._key, authority, network)

    async def _configure(self, message: control.ConnectorConfiguration) -> list[control.CutReceipt]:
        """Take over the full state; returns receipts of the cuts in it."""
        stamp = (message.epoch, message.revision)
        kept_head, kept = self._state.kept_cuts()
        self._head = max(self._head, kept_head)
        if self._head[0] == message.epoch and stamp < self._head:
            logger.error("the controller is behind what it has said before (revision %d): a restored backup?", stamp[1])
        # An older one than the controller has said before is not kept: the one that is shows it where it was.
        self._keep_head(stamp, message.head)
        self._configuration = message
        if self._traffic_log is not None:
            self._traffic_log.configure(message)
        keys = KeySet.from_jwks(message.grant_keys)
        self._core.configure(message.network, RemoteNetworkId(message.remote_network), keys, message.limits, message.own_limits)
        self._flows.limits_changed()
        if withdrawn := self._core.drop_withdrawn(self._clock.now()):
            logger.warning("a signing key was withdrawn: %d sessions need fresh grants", withdrawn)
        self._new_terminator()
        for token in [one for one in kept if one not in self._cut_tokens.values()]:
            self._apply(token)  # for its floor; what the controller still waits for an answer to is in the message
        receipts = [receipt for token in message.cuts if (receipt := self._apply(token)) is not None]
        self._keep(stamp)
        await self._attend(message)
        return receipts

    def _cut(self, message: control.Cut) -> control.CutReceipt | None:
        if self._configuration is None:
            return None  # no key to verify it with, and no flow to end: the first configuration brings it again
        receipt = self._apply(message.token, message.head)
        if receipt is None:
            raise InvalidToken("a cut is not valid")
        self._keep(self._head)
        return receipt

    def _apply(self, token: str, head: str = "") -> control.CutReceipt | None:
        """Apply a cut; returns its receipt, None if it is not valid. `head`: the signed head of its stamp."""
        received_at = time.monotonic()
        assert self._configuration is not None
        keys = KeySet.from_jwks(self._configuration.cut_keys)
        try:
            cut = verify_cut(token, keys, network=self._configuration.network, now=self._clock.now())
        except InvalidToken as error:
            logger.error("a cut was not applied: %s", error.message)
            return None
        identity = ConnectorIdentity(self._configuration.network, ConnectorId(self._configuration.connector))
        if (known := self._receipts.given(cut, identity)) is not None:
            return known  # it came again because the answer got lost: the same answer, with the flows it ended then
        ended = self._core.apply_cut(cut, self._clock.now())
        told = self._flows.end(ended, received_at)
        if cut.scope.ends_sessions:
            self._links.end_over(cut.scope.holds)
        self._cut_tokens[cut.key] = token
        self._head = max(self._head, cut.stamp)
        if told:
            logger.info("cut %d (%s): %d flows ended", cut.id, cut.scope, len(told))
        receipt = self._receipts.give(cut, identity, told, received_at)
        # The next configuration may be minutes away: a backup of the time between is to be noticed as well.
        self._keep_head(cut.stamp, head)
        return receipt

    def _keep_head(self, stamp: tuple[int, int], token: str) -> None:
        """Keep a signed head on disk if none is above it, and show the highest from now on."""
        try:
            if token and stamp >= self._state.kept_head()[0]:
                self._state.keep_head(stamp, token)
        except OSError as error:
            logger.error("the controller's head cannot be kept on disk: %s", error)
            self._channel.head = token
            return
        self._channel.head = self._state.kept_head()[1]

    def _keep(self, stamp: tuple[int, int]) -> None:
        self._head = max(self._head, stamp) if stamp[0] == self._head[0] else stamp
        last = self._core.floors.dropped  # what says after a restart as well that a grant is too old
        in_force = {cut.key for cut in [*self._core.floors, *([] if last is None else [last])]}
        self._cut_tokens = {key: token for key, token in self._cut_tokens.items() if key in in_force}
        self._receipts.keep(in_force)
        kept = (self._head, list(self._cut_tokens.values()))
        if kept == self._kept:
            return
        try:
            self._state.keep_cuts(*kept)
            self._kept = kept
        except OSError as error:
            # They are in force, and the controller sends them again after a restart: no reason to serve nobody, or not to answer.
            logger.error("cuts in force cannot be kept on disk: %s", error)

    # ---- relays

    async def _attend(self, message: control.ConnectorConfiguration) -> None:
        tickets = {ticket.relay: ticket.token for ticket in message.tickets}
        wanted = {relay.id: relay for relay in message.relays if relay.id in tickets}
        for id in [id for id, one in self._relays.items() if id not in wanted or wanted[id].address != one.relay.address]:
            await self._relays.pop(id).aclose()
        nearest = self._relay_choice.best(wanted)
        for id in [id for id in self._relays if id not in nearest]:
            presence = self._relays.pop(id)
            presence.stop_waiting()
            self._left_relays.append(presence)  # who is joined there stays so
        for id, relay in nearest.items():
            if id in self._relays:
                self._relays[id].ticket = tickets[id]
                self._relays[id].follow(relay)
            else:
                self._relays[id] = RelayPresence(
                    message.connector, relay, tickets[id], self._links, self._clock.now, self._channel.tickets_used_up
                )
                self._relays[id].start()

    async def _look_for_nearer_relays(self) -> None:
        """Measure the relays once in a while where there are more than this connector waits at, and move to nearer ones."""
        while True:
            all_there = all(presence.attached for presence in self._relays.values())
            await asyncio.sleep(MEASURE_SECONDS if all_there and self._relay_choice.measured else AWAY_SECONDS)
            for presence in [one for one in self._left_relays if not one.serving]:
                self._left_relays.remove(presence)
                await presence.aclose()
            message = self._configuration
            if message is None or len(message.relays) <= KEPT_RELAYS or self._core.draining:
                continue
            await self._relay_choice.measure(message.relays)
            await self._attend(self._configuration or message)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_SECONDS)
            now = self._clock.now()
            deadline = self._core.next_deadline()
            if deadline is not None and deadline <= now:
                self._flows.end(self._core.deadline_reached(now), time.monotonic())
            self._links.end_unfinished()
            if not self._core.draining:
                self._run_file.tell(draining=False, flows=self._core.flows)
            if (relays := self._attached_relays()) != self._told_relays:
                self._told_relays = relays
                self._channel.relays_changed()

    async def _spool_events(self) -> None:
        """Keep flow events safe also while no channel is there to send them on."""
        while True:
            await asyncio.sleep(BATCH_SECONDS)
            await self._events.spool()
