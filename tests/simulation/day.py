"""Long runs with the same load all the time: nothing that klinket keeps, in memory or on disk, may go on growing.

Retention is shortened from days to hours, so that a day shows it. Some processes live as long as the run, the controller for half
of it: what a life gathers shows in long ones, what outlives restarts in the others.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from sqlalchemy import func, select

from klinket.controller import pruning, serve
from klinket.controller.app import access, flow_events, live_flows, retention, service_keys, sessions
from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.clock_watch import ClockWatch
from klinket.controller.store import schema
from klinket.domain.errors import ControllerUnreachable
from klinket.domain.identifiers import Kid, ServiceAccountUuid
from klinket.domain.service_key import KeyState
from klinket.wire import signing
from tests.simulation import sizes
from tests.simulation.admin import Admin, _only, _same
from tests.simulation.client import ServiceKey, SimulatedClient
from tests.simulation.connector import LiveFlow, SimulatedConnector
from tests.simulation.controller import NAME as CONTROLLER
from tests.simulation.controller import Controller
from tests.simulation.model import FOREVER, KeyFacts, State
from tests.simulation.template import ACCOUNTS
from tests.simulation.virtual_time import VirtualLoop
from tests.simulation.world import Size, World, simulate

HOUR = 3600.0
#: Looks at all sizes in the whole run.
LOOKS = 96
#: Flow events kept, and in which part of the run each retention forgets.
FLOW_EVENTS = 1_000
KEPT_SHARE = 1 / 12
#: Seconds a flow is expected in the flow events, which are forgotten later, at the most.
CHECKED_SECONDS = 300.0
#: Looks for which changes must be in the audit: retention leaves them for twice as long at the least.
CHECKED_LOOKS = 4

#: What is kept for an hour at the most, since grants and tickets live no longer: runs below HOURS_TO_KNOW do not show it.
KEPT_FOR_AN_HOUR = (
    "._links",
    "_cut_tokens",
    "_receipts",
    "_kept",
    "floors.",
    "configuration.cuts",
    "._shown",
    "._admitted",
    "bytes of ",
)
HOURS_TO_KNOW = 6.0


class DayAdmin(Admin):
    """Takes back what it takes away: the load stays the same. Keys end, are replaced, and are deleted."""

    def __init__(self, world: Day) -> None:
        super().__init__(world)
        self._day = world
        self._keys = 0
        #: Keys made for somebody who has not got them yet.
        self.made: list[tuple[SimulatedClient, ServiceKey]] = []

    def _kinds(self):  # type: ignore[no-untyped-def]
        return (
            self._take_access, *[self._give_access] * 5, self._lend_access, self._disable, *[self._enable] * 5,
            self._set_ports, self._set_ports, self._move, self._end_session, self._new_tokens, self._new_key, self._new_key,
            self._revoke_key, self._delete_old_key, self._delete_old_key, self._delete_old_key,
        )  # fmt: skip

    def _new_key(self):  # type: ignore[no-untyped-def]
        random, world = self._day.random, self._day
        honest = [one for one in world.clients if one.honest and one.name not in world.spared]
        client = random.choice([one for one in honest if one.over is not None] or honest)
        account = next(name for name in ACCOUNTS if client.name.startswith(f"client of {name}"))
        self._keys += 1
        kid = Kid(f"{account}-key-{self._keys}")
        key = ServiceKey(client.key.account, kid, signing.generate_private_key())
        public = signing.public_key_to_pem(key.private.public_key())
        ends = round(world.now() + random.choice((600, 1800, 7200))) if random.random() < 0.5 else None

        def new_key(tx: Transaction, actor: Actor) -> None:
            owner = _only(tx.service_accounts.find(name=account))
            row = service_keys.create(tx, actor, owner, days=0, name=kid, kid=kid, public_key=public)
            if ends is not None:
                tx.service_keys.change(row.id, expires_at_ms=ends * 1000)

        def wider(state: State) -> State:
            facts = KeyFacts(client.key.account, False, FOREVER if ends is None else float(ends))
            return State(**{**vars(state), "keys": {**state.keys, kid: facts}})

        self.made.append((client, key))
        return new_key, wider, wider

    def _revoke_key(self):  # type: ignore[no-untyped-def]
        kid = self._day.random.choice(
            [one for one in self._day.clients if one.honest and one.name not in self._day.spared]
        ).key.kid

        def revoke_key(tx: Transaction, actor: Actor) -> None:
            service_keys.revoke(tx, actor, _only(tx.service_keys.find(kid=kid, revoked_at_ms=None)))

        def after(state: State) -> State:
            facts = state.keys[kid]
            return State(**{**vars(state), "keys": {**state.keys, kid: KeyFacts(facts.account, True, facts.expires_at)}})

        return revoke_key, _same, after

    def _delete_old_key(self):  # type: ignore[no-untyped-def]
        used = {one.key.kid for one in self._day.clients} | {key.kid for _, key in self.made}
        old = sorted(kid for kid in self._day.model.state.keys if kid not in used)
        if not old:
            return None, None, None

        def delete_key(tx: Transaction, actor: Actor) -> None:
            row = _only(tx.service_keys.find(kid=old[0]))
            if row.state(tx.now_ms) is KeyState.ACTIVE:
                row = service_keys.revoke(tx, actor, row)
            service_keys.delete(tx, actor, row)

        def after(state: State) -> State:
            return State(**{**vars(state), "keys": {kid: facts for kid, facts in state.keys.items() if kid != old[0]}})

        return delete_key, _same, after

    def _lend_access(self):  # type: ignore[no-untyped-def]
        account, resource, uuid = self._pair()
        until = round(self._day.now() + self._day.random.choice((120, 900)))

        def lend_access(tx: Transaction, actor: Actor) -> None:
            owner = _only(tx.service_accounts.find(name=account))
            access.grant(tx, actor, _only(tx.resources.find(id=resource)), owner, until * 1000)

        def after(state: State) -> State:
            return State(**{**vars(state), "access": {**state.access, (ServiceAccountUuid(uuid), resource): float(until)}})

        return lend_access, after, after


class Day(World):
    """A world for `hours`."""

    grant_seconds = 300
    between_faults, between_changes, between_looks = 60.0, 40.0, 1.0
    fault_kinds = ("connector", "relay", "client", "client", "partition", "partition", "partition", "clock", "disk")
    spared = frozenset({"office-1", "relay-1", "client of ci-1"})

    def __init__(
        self,
        seed: int,
        folder: Path,
        loop: VirtualLoop,
        hours: float,
        *,
        pace: float = 1.0,
        progress: Callable[[float], None] = lambda _: None,
    ) -> None:
        """`pace`: how much more often things happen than in a whole day. `progress`: called with the hours that have gone by."""
        super().__init__(seed, folder, loop, Size(hours * HOUR, 4, 40.0 / pace))
        self.trace = deque(maxlen=2_000)
        self.admin = DayAdmin(self)
        self.seconds = hours * HOUR
        self.between_faults, self.between_changes = self.between_faults / pace, self.between_changes / pace
        self._progress = progress
        self._folder = folder
        #: How large everything is, and how many rows each table has, look by look.
        self.looks: list[Counter[str]] = []
        self.tables: list[Counter[str]] = []

    async def keep_house(self, controller: Controller) -> None:
        """Do what a real controller does beside answering."""
        counted: Any = SimpleNamespace(set_expiring=lambda _: None)
        config: Any = SimpleNamespace(flow_days=1, flow_events=FLOW_EVENTS)

        async def nobody() -> None:
            pass

        watch = ClockWatch(self.now, asyncio.get_running_loop().time, nobody)
        await asyncio.gather(
            serve._housekeeping(controller.store, controller.peers, counted),
            serve._keep_events(
                config,
                controller.store,
                controller.trust,
                pruning.Pruning(controller.store, controller.trust, 1, lambda: False, watch.steady_seconds),
            ),
        )

    def opened(self, connector: SimulatedConnector, live: LiveFlow) -> None:
        """Remember the flows of the last minutes only."""
        super().opened(connector, live)
        self._forget_opened()

    async def _all_is_well(self) -> None:
        self._forget_opened()
        await super()._all_is_well()

    def _forget_opened(self) -> None:
        oldest = self.now() - min(CHECKED_SECONDS, self.seconds * KEPT_SHARE / 2)
        for flow in [flow for flow, (_, opened_at) in self._opened.items() if opened_at < oldest]:
            del self._opened[flow]
            self._may_be_lost.discard(flow)

    def _give_ends(self, tx: Transaction) -> None:
        """Nothing ends by itself but what the admin makes so."""

    async def _administer(self) -> None:
        while True:
            await asyncio.sleep(self.random.expovariate(1 / self.between_changes))
            try:
                await self.admin.change()
                await self.admin.settle()
            except ControllerUnreachable:
                continue
            await self._deploy_tokens()
            await self._hand_out_keys()

    async def _hand_out_keys(self) -> None:
        made, self.admin.made = self.admin.made, []
        for client, key in made:
            if key.kid in self.model.state.keys:
                client.key = key
                await self._restart_client(client)

    async def _pass(self) -> None:
        """Look at all sizes; the controller is killed in the middle."""
        hours_a_look = self.seconds / LOOKS / HOUR
        acknowledged = deque([0] * CHECKED_LOOKS)
        for look in range(LOOKS):
            await asyncio.sleep(self.seconds / LOOKS)
            if look == LOOKS // 2:
                await self.controller.kill()
                await self._start_controller()
                await asyncio.sleep(self.seconds / LOOKS)
            self.looks.append(self._measure())
            self.tables.append(self.controller.store._read(_rows))
            acknowledged.append(len(self.admin.acknowledged))
            old = acknowledged.popleft()
            del self.admin.acknowledged[:old]
            acknowledged = deque(count - old for count in acknowledged)
            self._progress((look + 1) * hours_a_look)

    def _measure(self) -> Counter[str]:
        found = Counter[str]()
        parts: dict[str, object] = {"trust": self.controller.trust, "peers": self.controller.peers}
        for name in ("logins", "enrolments", "_dispatch", "_channels"):
            parts[name] = getattr(self.controller, name)
        found.update(sizes.measure({f"{CONTROLLER}.{name}": part for name, part in parts.items()}))
        found.update(sizes.measure({one.name: one._core for one in self.relays.values() if one.up}))
        found.update(sizes.measure({one.name: one.made for one in self.connectors if one.up}))
        for client in self.clients:
            kept = {"core": client.core, "clock": client._clock, "session": client.session}
            found.update(sizes.measure({f"{client.name}.{name}": part for name, part in kept.items()}))
        found.update({f"module {name}": size for name, size in sizes.measure_modules().items()})
        running = [task.get_coro().__qualname__ for task in asyncio.all_tasks() if _is_of_klinket(task)]  # type: ignore[union-attr]
        found.update(Counter(f"tasks {name}" for name in running))
        for folder in (one._folder for one in self.connectors):
            files = [file for file in folder.rglob("*") if file.is_file()]
            found[f"files of {folder.name}"] = len(files)
            found[f"bytes of {folder.name}"] = sum(file.stat().st_size for file in files)
        found["bytes of the write-ahead log"] = (self._folder / "klinket.db-wal").stat().st_size
        return found

    def growing(self) -> dict[str, list[float]]:
        """Return what has grown all the time, in both lives of the controller or in the longer ones of others."""
        half = len(self.looks) // 2
        of_controller = [
            {name: size for name, size in look.items() if name.startswith((CONTROLLER, "tasks"))} for look in self.looks
        ]
        of_others = [{name: size for name, size in look.items() if not name.startswith(CONTROLLER)} for look in self.looks]
        first, second = sizes.growing(of_controller[:half]), sizes.growing(of_controller[half:])
        found = {name: [*parts, *second[name]] for name, parts in first.items() if name in second}
        found |= sizes.growing(of_others)
        if self.seconds < HOURS_TO_KNOW * HOUR:
            found = {name: parts for name, parts in found.items() if not any(word in name for word in KEPT_FOR_AN_HOUR)}
        tables = sizes.growing(self.tables)
        return found | {f"table {name}": parts for name, parts in tables.items()}


def _is_of_klinket(task: asyncio.Task[Any]) -> bool:
    """Return whether a task runs something real, not a part of the simulated network."""
    code = getattr(task.get_coro(), "cr_code", None)
    return code is not None and "/klinket/" in code.co_filename


def _rows(tx: Transaction) -> Counter[str]:
    connection = tx._connection  # type: ignore[attr-defined]
    tables = schema.metadata.tables
    return Counter(
        {name: connection.execute(select(func.count()).select_from(table)).scalar_one() for name, table in tables.items()}
    )


@contextmanager
def short_retention(seconds: float) -> Iterator[None]:
    """Forget after seconds what is otherwise forgotten after days."""
    kept_ms = round(seconds * 1000)
    with (
        patch.object(sessions, "FORGET_SESSION_MS", kept_ms),
        patch.object(serve, "LOST_SESSION_MS", kept_ms),
        patch.object(live_flows, "MAX_UNHEARD_MS", kept_ms),
        patch.object(flow_events, "DAY_MS", kept_ms),
        patch.object(retention, "DAY_MS", kept_ms),
        patch.object(pruning, "STEADY_SECONDS", seconds / 8),
    ):
        yield


def simulate_day(seed: int, hours: float, *, pace: float = 1.0, progress: Callable[[float], None] = lambda _: None) -> Day:
    """Run a world for hours and return it; raises BrokenInvariant."""
    worlds: list[Day] = []

    def world_of(seed: int, folder: Path, loop: VirtualLoop) -> Day:
        worlds.append(Day(seed, folder, loop, hours, pace=pace, progress=progress))
        return worlds[0]

    with short_retention(hours * HOUR * KEPT_SHARE):
        simulate(seed, world_of)
    return worlds[0]
