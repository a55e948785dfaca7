"""One simulation: real cores under one virtual clock, with faults and changes that a seed chooses, and what must hold.

Invariants
- No flow is live without the model's leave: longer than CUT_SECONDS after the connector could hear of the change, and never
  longer than a grant lives.
- Every cut is answered by every connector that is attached in the end.
- Nothing that was acknowledged is lost: in the end the store says what the model says, with an audit event for each change.
- When all is well again, every granted flow opens, and no other.
- Every flow that was opened is in the flow events, but for what a killed connector had no time to write.
- No part meets an exception that it does not expect, also where it logs it and goes on.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, MutableSequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import TypeVar
from unittest.mock import patch

from klinket.connector import addresses, enrol, serve
from klinket.connector.enrol import Credentials
from klinket.connector.limits import BATCH_SECONDS
from klinket.controller.app import audit_check, cuts
from klinket.controller.app.connectors import token_hash
from klinket.controller.app.ports import Transaction
from klinket.controller.audit_signing import sign_waiting
from klinket.controller.enrolment import EnrolmentRequest
from klinket.controller.trust import KeyPurpose
from klinket.domain.address import ResourceAddress
from klinket.domain.cut import ScopeKind
from klinket.domain.errors import ControllerUnreachable, KlinketError
from klinket.domain.resource import Resource
from klinket.net import backoff, channel
from klinket.net.certificate_request import certificate_request
from klinket.net.copies import CopyWatch
from klinket.wire.audit_signature import verify_anchor, verify_block
from klinket.wire.signing import LEEWAY_SECONDS
from tests.simulation import model
from tests.simulation.admin import Admin
from tests.simulation.client import SimulatedClient
from tests.simulation.connector import LiveFlow, NoRunFile, Presence, SimulatedConnector
from tests.simulation.controller import GRANT_SECONDS, Controller
from tests.simulation.controller import NAME as CONTROLLER
from tests.simulation.defects import defects_told
from tests.simulation.model import NEVER, Model
from tests.simulation.network import Network
from tests.simulation.relay import Relay
from tests.simulation.template import DESTINATIONS, template
from tests.simulation.virtual_time import EPOCH, PLACE, Skew, VirtualLoop, run_at, virtual_time

T = TypeVar("T")
#: Seconds in which all has to be well again when the last fault is over, and for which it is waited in any case: a grant's life.
RECOVERY_SECONDS = 25.0
QUIET_SECONDS = GRANT_SECONDS + LEEWAY_SECONDS + 1.0
#: Seconds that faults last.
FAULT_SECONDS = (0.3, 2.0, 6.0, 20.0)
#: Seconds from an acknowledged change until the last flow of it has ended at a connector that is attached: the bound of a cut,
#: and the longest that a word takes.
CUT_SECONDS = 1.0
WORD_SECONDS = 0.6
#: Seconds between looks at live flows.
LOOK_SECONDS = 0.2
#: Wall clocks are wrong by up to this.
SKEW_SECONDS = 5.0
#: Seconds until a peer gives up asking a controller that it cannot reach.
ASK_SECONDS = 10.0


@dataclass(frozen=True)
class Size:
    """How much of a world there is: small ones find more in the same time, some things happen in large ones only.

    `trouble`: seconds of changes and faults. `clients`: how many, the thief among them. `between`: seconds at the most from one
    flow of a program to the next.
    """

    trouble: float
    clients: int
    between: float


#: The whole, and parts of it.
WHOLE = Size(30.0, 4, 7.0)
SIZES = (WHOLE, Size(20.0, 3, 5.0), Size(12.0, 4, 4.0), Size(10.0, 3, 3.0), Size(8.0, 2, 2.0))


class BrokenInvariant(AssertionError):
    """What must hold did not; the text has the seed and what happened."""


class World:
    """Everything of one simulation. `trace`: what happened, in order."""

    grant_seconds = GRANT_SECONDS
    #: Seconds between faults, and between changes of an admin, on average; and between looks at live flows.
    between_faults, between_changes, between_looks = 4.0, 2.0, LOOK_SECONDS
    fault_kinds: tuple[str, ...] = (
        "controller", "connector", "connector", "relay", "client", "partition", "partition", "partition", "clock", "disk",
    )  # fmt: skip
    #: Names of those that are never killed.
    spared: frozenset[str] = frozenset()

    def __init__(self, seed: int, folder: Path, loop: VirtualLoop, size: Size | None = None) -> None:
        self.random = Random(seed)
        self.entropy = self.random.randbytes
        self.size = size or self.random.choice(SIZES)
        self.template = template()
        self.network = Network(self.random, loop.time)
        self.trace: MutableSequence[str] = []
        #: How often each part has begun: links and seats are of one life.
        self.lives: dict[str, int] = {}
        self._loop = loop
        self._seed = seed
        self._faults: list[str] = []
        self._slow_until = 0.0
        self._running_faults: set[asyncio.Task[None]] = set()
        self._opened: dict[str, tuple[SimulatedConnector, float]] = {}
        self._may_be_lost: set[str] = set()
        database = folder / "klinket.db"
        database.write_bytes(self.template.database)
        self.controller = Controller(
            database,
            self.template.master,
            self.network,
            self.now,
            self.entropy,
            self._disk_delay,
            grant_seconds=self.grant_seconds,
            housekeeping=self.keep_house,
        )
        self.relays = {
            id: Relay(name, id, lambda: self.controller.trust, self.now, self.entropy)
            for name, id in self.template.relays.items()
        }
        self.connectors = [
            SimulatedConnector(self, name, id, folder / name, self._skew()) for name, id in self.template.connectors.items()
        ]
        for connector in self.connectors:
            connector.tokens = self.template.tokens[connector.name]
        keys = self.template.keys
        honest = self.random.sample(sorted(keys), self.size.clients - 1)
        self.clients = [
            *(SimulatedClient(self, f"client of {name}", keys[name], self._skew()) for name in honest),
            SimulatedClient(self, "thief", keys["deploy-1"], self._skew(), honest=False),
        ]
        self.admin: Admin = Admin(self)
        self.model: Model
        #: Of each resource, everything that it may become.
        self.widest: dict[int, tuple[Resource, ...]] = {}

    def _disk_delay(self) -> float:
        """Return how long the controller's disk takes, in seconds, before a change and again before its answer."""
        return self.random.uniform(0.1, 0.3) if self._loop.time() < self._slow_until else self.random.uniform(0.0, 0.01)

    async def keep_house(self, controller: Controller) -> None:
        """Do what a controller does by itself: nothing within a minute."""

    def _skew(self) -> Skew:
        return Skew(self.random.uniform(-SKEW_SECONDS, SKEW_SECONDS))

    def now(self) -> float:
        """Return true time in seconds since the epoch."""
        return EPOCH + self._loop.time()

    def note(self, what: str) -> None:
        """Add to the trace."""
        self.trace.append(f"{self._loop.time():9.3f} {what}")

    def broken(self, what: str) -> None:
        """Note that something that must hold does not."""
        self.note(f"BROKEN: {what}")
        self._faults.append(what)

    def met_defect(self, what: str) -> None:
        """Note an exception that a part did not expect."""
        self.broken(f"{PLACE.get() or 'somebody'} met a defect: {what}")

    def connector(self, id: int) -> SimulatedConnector:
        """Return a connector by its id."""
        return next(one for one in self.connectors if one.id == id)

    def address(self, name: str) -> str:
        """Return the address that the controller sees of somebody."""
        return f"192.0.2.{100 + sum(name.encode()) % 100}"

    # ---- the way to the controller

    async def ask_controller(self, name: str, work: Callable[[], Awaitable[T]]) -> T:
        """Ask the controller something, as a request over HTTPS; raises ControllerUnreachable, and what it answers."""
        await asyncio.sleep(self.network.delay())
        if not self.network.joined(name, CONTROLLER):
            await asyncio.sleep(ASK_SECONDS)
            raise ControllerUnreachable("no answer")
        if not self.controller.up:
            raise ControllerUnreachable("refused")
        asked = run_at(CONTROLLER, Skew(), lambda: self.controller.do(work))
        await asyncio.wait({asked})
        await asyncio.sleep(self.network.delay())
        if asked.cancelled():
            raise ControllerUnreachable("reset")
        if not self.network.joined(name, CONTROLLER):
            await asyncio.sleep(ASK_SECONDS)
            raise ControllerUnreachable("no answer")
        return asked.result()  # type: ignore[return-value]

    @asynccontextmanager
    async def _open_channel(self, url: str, path: str, context: object, **_: object) -> AsyncIterator[object]:
        name = PLACE.get()
        await asyncio.sleep(self.network.delay() + self.network.delay())
        if not self.network.joined(name, CONTROLLER):
            await asyncio.sleep(ASK_SECONDS)
            raise ControllerUnreachable("no answer")
        if not self.controller.up:
            raise ControllerUnreachable("refused")
        connection = run_at(CONTROLLER, Skew(), lambda: self.controller.connect(name, self.address(name)))
        try:
            yield connection.client
        finally:
            await connection.client.close()

    async def _enrol(self, config: serve.ConnectorConfig, key: object, _: object) -> Credentials:
        request = EnrolmentRequest(
            access_token=config.access_token,
            refresh_token=config.refresh_token,
            certificate_request=certificate_request(key),  # type: ignore[arg-type]
        )
        name = PLACE.get()
        answer = await self.ask_controller(name, lambda: self.controller.enrolments.enrol(request, self.address(name)))
        return Credentials(
            answer.connector, answer.network, answer.certificate, answer.access_token, answer.expires_at_ms, answer.time_ms
        )

    def _presence(
        self, connector: int, relay: object, ticket: str, links: object, clock: object, used_up: Callable[[], None]
    ) -> Presence:
        return Presence(self, self.connector(connector).name, relay, ticket, used_up)  # type: ignore[arg-type]

    def way(self, client: str, relay: int, connector: SimulatedConnector) -> bool:
        """Return whether words of a client get to a connector over a relay."""
        via = self.relays[relay]
        return via.up and connector.up and self.network.joined(client, via.name) and self.network.joined(connector.name, via.name)

    # ---- flows

    def opened(self, connector: SimulatedConnector, live: LiveFlow) -> None:
        """A flow was opened; it will be closed by its program some time."""
        self.note(f"{connector.name} opened {live.flow.destination} for {live.flow.principal.key}")
        self._opened[live.flow.id] = connector, self.now()
        self._check(connector, live)
        life = self.random.choice((0.5, 5.0, 60.0, 60.0))
        self._loop.call_later(life, lambda: connector.close(live) if connector.up else None)

    def lost_process(self, connector: SimulatedConnector, live: list[LiveFlow]) -> None:
        """A connector was killed: what it had no time to write down may be missing."""
        written_before = self.now() - 2 * BATCH_SECONDS
        self._may_be_lost |= {
            flow for flow, (at, opened_at) in self._opened.items() if at is connector and opened_at > written_before
        }

    def _check(self, connector: SimulatedConnector, live: LiveFlow) -> None:
        """Compare a live flow with the model."""
        now, flow = self.now(), live.flow
        last = self.model.last_allowed(flow.principal, flow.destination, connector.id, live.token_hash, now)
        if last >= now:
            return
        limit = last + self.grant_seconds + LEEWAY_SECONDS + CUT_SECONDS
        if connector.attached:
            heard = max(last, connector.configured_at, EPOCH + self.network.joined_since(connector.name, CONTROLLER))
            limit = min(limit, heard + CUT_SECONDS + WORD_SECONDS)
        if now > limit:
            since = "never allowed" if last == NEVER else f"not allowed for {now - last:.2f} s"
            self.broken(f"{connector.name} carries {flow.destination} for {flow.principal.key}, {since}")
            connector.close(live)

    async def _watch(self) -> None:
        while True:
            for connector in self.connectors:
                for live in list(connector.flows.live.values()):
                    self._check(connector, live)
            await asyncio.sleep(self.between_looks)

    async def _program(self, client: SimulatedClient) -> None:
        """Open flows now and then, as the programs of a machine do."""
        while True:
            await asyncio.sleep(self.random.uniform(0.5, self.size.between))
            destination = self.random.choice(DESTINATIONS)
            try:
                if client.honest:
                    await client.open(destination)
                elif client.core.configured and client.session is not None:
                    await self._attack(client)
            except KlinketError:
                pass

    async def _attack(self, thief: SimulatedClient) -> None:
        connector, relay = self.random.choice(self.connectors), self.random.choice(list(self.relays))
        victim = self.random.choice(self.clients[:-1])
        if self.random.random() < 0.3 and victim.core.configured and victim.core.configuration.grants:
            grant = self.random.choice(victim.core.configuration.grants)
            await thief.show_stolen_grant(grant.token, connector, relay)
        else:
            destination = self.random.choice(DESTINATIONS)
            await thief.open_at(connector, relay, destination, next(iter(self.template.resources.values())))  # type: ignore[arg-type]

    # ---- beginnings and ends

    async def _start_controller(self) -> None:
        await run_at(CONTROLLER, Skew(), lambda: asyncio.ensure_future(self.controller.start()))
        self._begun(CONTROLLER)

    def _start_connector(self, connector: SimulatedConnector) -> None:
        self._begun(connector.name)
        connector.token_hash = token_hash(connector.tokens[0])
        run_at(connector.name, connector.skew, connector.start)

    def _start_relay(self, relay: Relay) -> None:
        relay.start()
        self._begun(relay.name)

    def _start_client(self, client: SimulatedClient) -> None:
        run_at(client.name, client.skew, client.start)
        self._begun(client.name)

    def _begun(self, name: str) -> None:
        self.lives[name] = self.lives.get(name, 0) + 1
        self.note(f"{name} begins")

    async def _trouble(self) -> None:
        """One fault after another, each for a while."""
        while True:
            await asyncio.sleep(self.random.expovariate(1 / self.between_faults))
            fault = asyncio.ensure_future(self._one_fault())
            self._running_faults.add(fault)
            fault.add_done_callback(self._running_faults.discard)

    async def _one_fault(self) -> None:
        choose = self.random.choice
        kind = choose(self.fault_kinds)
        away = choose(FAULT_SECONDS)
        if kind == "partition":
            names = [one.name for one in (*self.connectors, *self.clients)]
            one, other = choose(names), choose([CONTROLLER, CONTROLLER, *(relay.name for relay in self.relays.values())])
            self.note(f"{one} and {other} are apart for {away} s")
            self.network.part(one, other)
            await asyncio.sleep(away)
            self.network.join(one, other)
        elif kind == "clock":
            who = choose([*self.connectors, *self.clients])
            who.skew.seconds = self.random.uniform(-SKEW_SECONDS, SKEW_SECONDS)
            self.note(f"the wall clock of {who.name} is set to {who.skew.seconds:+.1f} s")
        elif kind == "disk":
            self.note(f"the disk of {CONTROLLER} is slow for {away} s")
            self._slow_until = self._loop.time() + away
        elif kind == "controller" and self.controller.up:
            self.note(f"{CONTROLLER} is killed")
            await self.controller.kill()
            await asyncio.sleep(away)
            await self._start_controller()
        elif kind == "relay":
            relay = choose(list(self.relays.values()))
            if relay.up and relay.name not in self.spared:
                self.note(f"{relay.name} is killed")
                relay.kill()
                await asyncio.sleep(away)
                self._start_relay(relay)
        elif kind == "connector":
            connector = choose(self.connectors)
            if connector.up and connector.name not in self.spared:
                await self._restart_connector(connector, away)
        elif kind == "client":
            client = choose([one for one in self.clients if one.name not in self.spared])
            await self._restart_client(client)

    async def _restart_client(self, client: SimulatedClient) -> None:
        await client.kill()
        self.note(f"{client.name} is killed")
        self._start_client(client)

    async def _restart_connector(self, connector: SimulatedConnector, away: float) -> None:
        self.note(f"{connector.name} is killed")
        await connector.kill()
        await asyncio.sleep(away)
        self._start_connector(connector)

    async def _administer(self) -> None:
        while True:
            await asyncio.sleep(self.random.expovariate(1 / self.between_changes))
            try:
                await self.admin.change()
            except ControllerUnreachable:
                continue
            await self._deploy_tokens()

    async def _deploy_tokens(self) -> None:
        """Restart connectors that were given new tokens."""
        for connector in self.connectors:
            if connector.up and token_hash(connector.tokens[0]) != connector.token_hash and not self.admin.in_doubt:
                restart = asyncio.ensure_future(self._restart_connector(connector, 0.5))
                self._running_faults.add(restart)
                restart.add_done_callback(self._running_faults.discard)
                await asyncio.shield(restart)  # the end of trouble does not leave it down

    # ---- the simulation

    async def run(self) -> None:
        """Run it; raises BrokenInvariant."""
        await self._start_controller()
        await self.controller.store.write(self._give_ends)
        self.model = Model(await self.controller.store.read(lambda tx: model.read(tx, ())), self.now())
        self._know_widest()
        for relay in self.relays.values():
            self._start_relay(relay)
        for connector in self.connectors:
            self._start_connector(connector)
        for client in self.clients:
            self._start_client(client)
        programs = [asyncio.ensure_future(self._program(client)) for client in self.clients]
        watching = asyncio.ensure_future(self._watch())
        trouble = [asyncio.ensure_future(self._trouble()), asyncio.ensure_future(self._administer())]
        await self._pass()
        await _end(trouble)
        self.note("no more trouble")
        await asyncio.gather(*self._running_faults)
        await asyncio.sleep(self._slow_until - self._loop.time())
        self.network.join_all()
        await self.admin.settle()
        await self._deploy_tokens()
        await self._recover()
        await _end(programs)
        await self._all_is_well()
        await _end([watching])
        await self._close()
        if self._faults:
            raise BrokenInvariant("\n".join([f"seed {self._seed}: {self._faults[0]}", *list(self.trace)[-200:]]))

    async def _pass(self) -> None:
        """Let the time of trouble go by."""
        await asyncio.sleep(self.size.trouble)

    async def _recover(self) -> None:
        """Return when all seems well again, or the time for it is over."""
        until = self._loop.time() + RECOVERY_SECONDS
        await asyncio.sleep(QUIET_SECONDS)
        while self._loop.time() < until and not self._seems_well():
            await asyncio.sleep(1.0)

    def _seems_well(self) -> bool:
        """Return whether everybody who may is attached."""
        waiting = [one for connector in self.connectors for one in connector.made._relays.values() if not one.attached]
        outside = [one for one in self.clients if one.honest and one.over is None and not one.core.configured]
        return not waiting and not outside and all(connector.attached for connector in self.connectors)

    def _give_ends(self, tx: Transaction) -> None:
        """Let some keys and some access end by themselves during the simulation."""
        for key in tx.service_keys.find():
            if self.random.random() < 0.3:
                tx.service_keys.change(key.id, expires_at_ms=tx.now_ms + round(self.random.uniform(5, self.size.trouble) * 1000))
        for row in tx.access.find():
            if self.random.random() < 0.3:
                tx.access.change(row.id, expires_at_ms=tx.now_ms + round(self.random.uniform(5, self.size.trouble) * 1000))
        tx.bump()

    def _know_widest(self) -> None:
        for id, (resource,) in self.model.state.resources.items():
            name = resource.name
            addresses = {"database": ("db.internal", "db2.internal"), "builds": ("10.1.0.0/24", "10.1.0.0/29")}
            given = addresses.get(name, (resource.address.text, "other.internal"))
            self.widest[id] = tuple(replace(resource, address=ResourceAddress.parse(address)) for address in given)

    async def _close(self) -> None:
        for client in self.clients:
            await client.kill()
        for connector in self.connectors:
            if connector.up:
                await connector.kill()
        await self.controller.kill()

    # ---- in the end

    async def _all_is_well(self) -> None:
        for client in self.clients:
            if client.honest:
                await self._opens_what_it_may(client)
        await asyncio.sleep(5 * BATCH_SECONDS)
        await sign_waiting(self.controller.store, self.controller.trust, now=True)
        stored, events, actors, receipts, checked = await self.controller.store.read(self._look)
        expected = self.model.state
        for what in ("keys", "resources", "connectors"):
            if getattr(stored, what) != getattr(expected, what):
                self.broken(
                    f"an acknowledged change of {what} was lost: {getattr(stored, what)} is not {getattr(expected, what)}"
                )
        now = self.now()
        kept = {key for key, end in expected.access.items() if end > now}
        if {key for key, end in stored.access.items() if end > now} != kept:
            self.broken(f"an acknowledged change of access was lost: {sorted(stored.access)} is not {sorted(kept)}")
        if missing := [name for name in self.admin.acknowledged if name not in actors]:
            self.broken(f"no audit event of {missing}")
        if missing := [flow for flow in self._opened if flow not in events and flow not in self._may_be_lost]:
            self.broken(f"{len(missing)} flows are in no flow event: {missing[:3]}")
        attached = {one.id for one in self.connectors if one.attached}
        if pending := [one for one in receipts if one in attached]:
            self.broken(f"connectors {pending} have not answered cuts")
        if checked.wrong is not None:
            self.broken(f"the audit does not verify: {checked.wrong.message}")

    def _look(self, tx: Transaction):  # type: ignore[no-untyped-def]
        events = {row.flow for row in tx.flow_events.find() if row.kind == "established"}
        actors = {(row.actor["info"] or {}).get("name") for row in tx.audit.find()}
        # A connector that was given new tokens has ended since, and cannot tell what its cut ended.
        told = {row.id for row in tx.cuts.find() if not row.scope.startswith(ScopeKind.CONNECTOR.value)}
        pending = [row.connector_id for row in tx.cut_receipts.find(state=cuts.PENDING) if row.cut_id in told]
        trust = self.controller.trust
        keys = trust.keys[KeyPurpose.AUDIT]
        openers = (lambda token: verify_block(token, keys), 0, lambda token: verify_anchor(token, keys))
        checked = audit_check.part(tx, trust.network, *openers)
        return model.read(tx, self.model.state.ended), events, actors, pending, checked

    async def _opens_what_it_may(self, client: SimulatedClient) -> None:
        state = self.model.state
        for destination in DESTINATIONS:
            key = client.key
            facts = state.keys.get(key.kid)
            dead = facts is None or facts.is_revoked or facts.expires_at <= self.now()
            failure: KlinketError | None = None
            may = False
            for _ in range(3):
                may = (
                    not dead and client.session is not None and state.until(client.principal, destination, None, "") > self.now()
                )
                try:
                    await client.open(destination)
                    failure = None
                    break
                except KlinketError as error:
                    failure = error
                    if not may:
                        break
                await asyncio.sleep(2.0)
            if failure is not None and (may or (not dead and client.session is None)):
                self.broken(f"{client.name} does not reach {destination}: {failure.code}: {failure.message}")
            if failure is None and not may:
                self.broken(f"{client.name} reaches {destination}")


async def _end(tasks: Collection[asyncio.Task[None]]) -> None:
    tasks = [task for task in tasks if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def simulate(seed: int, world_of: Callable[[int, Path, VirtualLoop], World] = World) -> MutableSequence[str]:
    """Run one simulation and return its trace; raises BrokenInvariant."""
    template()
    folder = Path(tempfile.mkdtemp(prefix="klinket-simulation-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    try:
        with virtual_time() as loop, ExitStack() as stack:
            world = world_of(seed, folder, loop)
            stack.enter_context(defects_told(world.met_defect))
            stack.enter_context(patch.object(channel, "open_channel", world._open_channel))
            stack.enter_context(patch.object(enrol, "enrol", world._enrol))
            stack.enter_context(patch.object(serve, "RelayPresence", world._presence))
            stack.enter_context(patch.object(serve, "own_addresses", set))
            stack.enter_context(patch.object(addresses, "own_addresses", list))
            stack.enter_context(patch.object(serve, "RunFile", lambda _: NoRunFile()))
            stack.enter_context(patch.object(serve, "controller_context", lambda _: None))
            stack.enter_context(patch.object(serve, "LinkTerminator", lambda *_: object()))
            stack.enter_context(patch.object(CopyWatch, "start", lambda _: None))
            stack.enter_context(patch.object(backoff.random, "SystemRandom", lambda: world.random))
            try:
                loop.run_until_complete(world.run())
            finally:
                loop.run_until_complete(_end(asyncio.all_tasks(loop)))
            return world.trace
    finally:
        shutil.rmtree(folder, ignore_errors=True)
