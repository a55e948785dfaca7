"""A controller's clock that is set ahead: grants that are over by it open nothing, and live flows have time for fresh ones."""

from __future__ import annotations

import pytest

from klinket.connector.limits import REGRANT_SECONDS
from klinket.domain.errors import FlowRefused
from klinket.wire.signing import LEEWAY_SECONDS
from tests.unit.connector.conftest import DATABASE, NOW, World, request, tcp

DB = tcp("db.internal", 5432)
HOUR = 3600.0


def test_live_flows_have_time_for_a_fresh_grant_and_nothing_is_opened_with_the_former(world: World) -> None:
    link = world.granted(DATABASE)
    flow = world.core.open(link, request(DB), NOW)
    now = world.core._grants[link.principal.session].claims.expires_at + LEEWAY_SECONDS
    world.core.clock_set_ahead(now, HOUR)
    assert world.core.deadline_reached(now + REGRANT_SECONDS - 0.1) == []
    with pytest.raises(FlowRefused):
        world.core.open(link, request(DB), now)
    assert [one.flow for one in world.core.deadline_reached(now + REGRANT_SECONDS)] == [flow]


@pytest.mark.parametrize(("over_before", "step"), [(0.0, 1.0), (-HOUR, 1.0)])
def test_a_grant_that_was_over_before_or_is_not_over_yet_ends_in_its_own_time(
    world: World, over_before: float, step: float
) -> None:
    link = world.granted(DATABASE)
    world.core.open(link, request(DB), NOW)
    end = world.core._grants[link.principal.session].claims.expires_at + LEEWAY_SECONDS
    now = end + over_before + step
    world.core.clock_set_ahead(now, step)
    assert world.core.next_deadline() == end
    assert len(world.core.deadline_reached(now)) == (now >= end)
