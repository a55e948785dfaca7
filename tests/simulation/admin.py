"""The simulated admin: changes through the use cases that the Admin API calls, each with its effect on the model."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from klinket.controller.app import access, connectors, resources, service_keys, sessions
from klinket.controller.app.ports import Actor, Transaction
from klinket.domain.audit import ActorType
from klinket.domain.errors import ControllerUnreachable, KlinketError
from tests.simulation import model
from tests.simulation.model import FOREVER, State
from tests.simulation.template import ACCOUNTS, RESOURCES, ports

if TYPE_CHECKING:
    from tests.simulation.world import World

#: What a change does to a transaction, and how the state looks when it is made.
Change = Callable[[Transaction, Actor], object]
Effect = Callable[[State], State]


class Admin:
    """Makes one change after another."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._number = 0
        #: Names of the actors of changes that were acknowledged.
        self.acknowledged: list[str] = []
        #: Whether a change was sent whose answer never came.
        self.in_doubt = False
        #: Whether the controller still has a change before it, with somebody who waits for the answer or without.
        self._under_way = False

    async def change(self) -> None:
        """Make one change, chosen by the seed; notes in the model what it means."""
        change, wider, after = self._world.random.choice(self._kinds())()
        if change is None:
            return
        await self.settle()
        self._number += 1
        actor = Actor(ActorType.API, id=str(self._number), name=f"change-{self._number}")
        world, before = self._world, self._world.model.state
        world.note(f"{actor.name}: {change.__name__}")
        self.in_doubt = True

        async def make() -> None:
            self._under_way = True
            try:
                await world.controller.store.write(lambda tx: change(tx, actor))
            finally:
                self._under_way = False

        world.model.widens(wider(before), world.now())
        try:
            await world.ask_controller("admin", make)
        except ControllerUnreachable:
            world.note(f"{actor.name}: no answer")
            return  # in doubt
        except KlinketError as error:
            world.note(f"{actor.name}: {error.code}")
            world.model.becomes(before, world.now())
        else:
            world.model.becomes(after(before), world.now())
            if after(before) != before:  # what was so already changes nothing, and is no event
                self.acknowledged.append(str(actor.name))
        self.in_doubt = False

    def _kinds(self):  # type: ignore[no-untyped-def]
        """Return what may be changed, some of it more often."""
        return (
            self._revoke_key, self._take_access, self._give_access, self._give_access, self._disable, self._enable,
            self._enable, self._set_ports, self._set_ports, self._move, self._end_session, self._new_tokens, self._delete_key,
        )  # fmt: skip

    async def settle(self) -> None:
        """Look what became of a change whose answer never came; raises ControllerUnreachable."""
        if self.in_doubt:
            world = self._world
            while self._under_way:
                await asyncio.sleep(0.1)
            ended = world.model.state.ended
            found = await world.ask_controller(
                "admin", lambda: world.controller.store.read(lambda tx: (model.read(tx, ended), _ended_by_admin(tx)))
            )
            world.model.becomes(replace(found[0], ended=frozenset(found[1])), world.now())
            self.in_doubt = False

    # ---- the changes: (what is done, what may hold from the request on, what holds after the answer)

    def _revoke_key(self):  # type: ignore[no-untyped-def]
        kid = self._world.random.choice(sorted(self._world.template.keys))
        if self._world.random.random() < 0.5:
            return None, None, None  # keys cannot be made active again: not too often

        def revoke_key(tx: Transaction, actor: Actor) -> None:
            service_keys.revoke(tx, actor, _only(tx.service_keys.find(kid=kid)))

        def after(state: State) -> State:
            facts = state.keys[kid]
            return replace(state, keys={**state.keys, kid: replace(facts, is_revoked=True)})

        return revoke_key, _same, after

    def _delete_key(self):  # type: ignore[no-untyped-def]
        kid = self._world.random.choice(sorted(self._world.template.keys))

        def delete_key(tx: Transaction, actor: Actor) -> None:
            service_keys.delete(tx, actor, _only(tx.service_keys.find(kid=kid)))

        return (
            delete_key,
            _same,
            lambda state: replace(state, keys={name: one for name, one in state.keys.items() if name != kid}),
        )

    def _pair(self) -> tuple[str, int, str]:
        random, made = self._world.random, self._world.template
        account = random.choice(ACCOUNTS)
        name = random.choice(sorted(RESOURCES))
        uuid = next(key.account for key in made.keys.values() if key.kid.startswith(account))
        return account, made.resources[name], uuid

    def _take_access(self):  # type: ignore[no-untyped-def]
        account, resource, uuid = self._pair()

        def take_access(tx: Transaction, actor: Actor) -> None:
            found = _only(tx.service_accounts.find(name=account))
            _only(tx.access.find(resource_id=resource, service_account_id=found.id))
            access.revoke(tx, actor, _only(tx.resources.find(id=resource)), found)

        def after(state: State) -> State:
            return replace(state, access={key: end for key, end in state.access.items() if key != (uuid, resource)})

        return take_access, _same, after

    def _give_access(self):  # type: ignore[no-untyped-def]
        account, resource, uuid = self._pair()

        def give_access(tx: Transaction, actor: Actor) -> None:
            access.grant(tx, actor, _only(tx.resources.find(id=resource)), _only(tx.service_accounts.find(name=account)))

        def wider(state: State) -> State:
            return replace(state, access={**state.access, (uuid, resource): FOREVER})

        return give_access, wider, wider

    def _changed(self, name: str, changes: dict[str, object], told: str):  # type: ignore[no-untyped-def]
        id = self._world.template.resources[name]
        rows = {}

        def change(tx: Transaction, actor: Actor) -> None:
            rows[id] = resources.update(tx, actor, _only(tx.resources.find(id=id)), changes)

        change.__name__ = f"{told} {name}"

        def after(state: State) -> State:
            row = rows[id]
            kept = {one: found for one, found in state.resources.items() if one != id}
            return replace(state, resources={**kept, **({id: (resources.to_domain(row),)} if row.is_active else {})})

        return change, after

    def _name(self) -> str:
        return self._world.random.choice(sorted(RESOURCES))

    def _disable(self):  # type: ignore[no-untyped-def]
        change, after = self._changed(self._name(), {"is_active": False}, "disable")
        return change, _same, after

    def _enable(self):  # type: ignore[no-untyped-def]
        name = self._name()
        change, after = self._changed(name, {"is_active": True}, "enable")
        return change, self._all_of(name), after

    def _set_ports(self):  # type: ignore[no-untyped-def]
        name = self._name()
        first, last = RESOURCES[name][2]
        spans = ((first, last), (first, first), (last, last), (9, 9))
        change, after = self._changed(name, {"protocols": ports(*self._world.random.choice(spans))}, "set ports of")
        return change, self._all_of(name), after

    def _move(self):  # type: ignore[no-untyped-def]
        name = self._name()
        address = RESOURCES[name][1]
        other = {"db.internal": "db2.internal", "10.1.0.0/24": "10.1.0.0/29"}.get(address, "other.internal")
        change, after = self._changed(name, {"address": self._world.random.choice((address, other))}, "move")
        return change, self._all_of(name), after

    def _all_of(self, name: str) -> Effect:
        """Return the effect of the widest that a resource may become: while a change is on its way, more may hold."""
        id = self._world.template.resources[name]
        return lambda state: replace(state, resources={**state.resources, id: self._world.widest[id]})

    def _end_session(self):  # type: ignore[no-untyped-def]
        alive = [one.session.id for one in self._world.clients if one.session is not None]
        if not alive:
            return None, None, None
        session = self._world.random.choice(alive)

        def end_session(tx: Transaction, actor: Actor) -> None:
            if _only(tx.sessions.find(id=session)).ended_at_ms is not None:
                raise KlinketError("it has ended already")
            sessions.end_by_admin(tx, actor, session)

        return end_session, _same, lambda state: replace(state, ended=state.ended | {session})

    def _new_tokens(self):  # type: ignore[no-untyped-def]
        world = self._world
        if world.random.random() < 0.6:
            return None, None, None
        connector = world.random.choice([one for one in world.connectors if one.name not in world.spared])
        told = {}

        def new_tokens(tx: Transaction, actor: Actor) -> None:
            row = _only(tx.connectors.find(id=connector.id))
            connector.tokens = connectors.issue_tokens(tx, actor, row, world.entropy)
            told[0] = _only(tx.connectors.find(id=connector.id)).access_token_hash

        def after(state: State) -> State:
            return replace(state, connectors={**state.connectors, connector.id: told[0]})

        return new_tokens, _same, after


def _same(state: State) -> State:
    return state


def _only(rows):  # type: ignore[no-untyped-def]
    """Return the one row; a KlinketError where there is none."""
    if not rows:
        raise KlinketError("there is none any more")
    return rows[0]


def _ended_by_admin(tx: Transaction) -> list[str]:
    return [row.id for row in tx.sessions.find() if row.end_reason == sessions.ENDED_BY_ADMIN]
