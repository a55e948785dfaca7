"""A withdrawn signing key: its grants open nothing any more; live flows go on if their session shows a fresh one in time."""

from __future__ import annotations

import pytest

from klinket.connector.limits import REGRANT_SECONDS
from klinket.domain.errors import FlowRefused, InvalidToken
from klinket.domain.flow import FlowFailure
from klinket.wire.signing import KeySet, SigningKey
from tests.unit.connector.conftest import DATABASE, KEY, LIMITS, NETWORK, NOW, REMOTE, WEB, World, principal, request, tcp

NEW = SigningKey.generate("grants-2")
DB, SITE = tcp("db.internal", 5432), tcp("web.internal", 80)


def withdraw(world: World, *left: SigningKey) -> int:
    world.core.configure(NETWORK, REMOTE, KeySet({key.kid: key.public_key for key in left}), LIMITS)
    return world.core.drop_withdrawn(NOW)


def test_nothing_opens_with_a_grant_of_a_withdrawn_key_nor_is_it_taken_again(world: World) -> None:
    link = world.granted(DATABASE)
    old = world.grant(link, DATABASE)
    assert withdraw(world, NEW) == 1
    with pytest.raises(FlowRefused):
        world.core.open(link, request(DB), NOW)
    with pytest.raises(InvalidToken):
        world.core.present_grant(link, old, NOW)


def test_live_flows_go_on_with_a_fresh_grant_and_are_held_to_it(world: World) -> None:
    link = world.granted(DATABASE, WEB)
    kept, lost = world.core.open(link, request(DB), NOW), world.core.open(link, request(SITE), NOW)
    withdraw(world, NEW)
    assert world.core.flows == 2
    _, ended = world.core.present_grant(link, world.grant(link, DATABASE, key=NEW), NOW + 1)
    assert [one.flow for one in ended] == [lost]
    assert world.core.deadline_reached(NOW + REGRANT_SECONDS + 1) == []
    world.core.recheck(kept, NOW + REGRANT_SECONDS + 1)
    world.core.open(link, request(DB), NOW + 2)


def test_live_flows_without_a_fresh_grant_end_after_their_time(world: World) -> None:
    link = world.granted(DATABASE)
    flow = world.core.open(link, request(DB), NOW)
    withdraw(world, NEW)
    assert world.core.next_deadline() == NOW + REGRANT_SECONDS
    assert world.core.deadline_reached(NOW + REGRANT_SECONDS - 0.1) == []
    (ended,) = world.core.deadline_reached(NOW + REGRANT_SECONDS)
    assert (ended.flow, ended.failure) == (flow, FlowFailure.CUT)
    assert world.core.flows == 0
    assert world.core.next_deadline() is None


def test_sessions_with_grants_of_other_keys_are_not_touched(world: World) -> None:
    world.core.configure(NETWORK, REMOTE, KeySet({key.kid: key.public_key for key in (KEY, NEW)}), LIMITS)
    mine, other = world.granted(DATABASE), world.granted(who=principal("b" * 22))
    world.core.present_grant(other, world.grant(other, DATABASE, key=NEW), NOW)
    world.core.open(mine, request(DB), NOW)
    flow = world.core.open(other, request(DB), NOW)
    assert withdraw(world, NEW) == 1
    world.core.open(other, request(DB), NOW)
    assert flow not in [one.flow for one in world.core.deadline_reached(NOW + REGRANT_SECONDS)]
    assert world.core.flows == 2


def test_a_new_key_beside_the_old_one_drops_nothing(world: World) -> None:
    link = world.granted(DATABASE)
    assert withdraw(world, KEY, NEW) == 0
    world.core.open(link, request(DB), NOW)
