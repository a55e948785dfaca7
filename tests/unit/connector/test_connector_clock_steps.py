"""The controller's clock is set ahead, and put right: flows wait for fresh grants, and what a cut took away stays away."""

from __future__ import annotations

import pytest

from klinket.connector.core import LinkRecord
from klinket.connector.limits import REGRANT_SECONDS
from klinket.domain.cut import CutScope
from klinket.domain.errors import InvalidToken
from klinket.domain.flow import FlowFailure
from klinket.wire.grant_token import MAX_LIFETIME_SECONDS
from klinket.wire.signing import LEEWAY_SECONDS
from tests.unit.connector.conftest import ACCOUNT, DATABASE, NOW, OTHER_ACCOUNT, WEB, World, request, tcp
from tests.unit.connector.test_connector_core import refused

DB = tcp("db.internal", 5432)
DAY = 86_400.0
FORGOTTEN = MAX_LIFETIME_SECONDS + 2 * LEEWAY_SECONDS + 1


def forget_before(world: World, now: float) -> None:
    """Have a cut of somebody else come, with which old floors are forgotten."""
    world.core.apply_cut(world.cut(CutScope.of_account(OTHER_ACCOUNT), stamp=(1, 30), issued_at=now), now)


def end_of_grant(world: World, link: LinkRecord) -> float:
    return world.core._grants[link.principal.session].claims.expires_at + LEEWAY_SECONDS


def test_a_grant_from_before_a_cut_counts_no_more_when_the_cut_is_forgotten(world: World) -> None:
    link = world.granted(DATABASE, WEB, stamp=(1, 10))
    of_a_day_ahead = world.grant(link, DATABASE, WEB, stamp=(1, 10), now=NOW + DAY)
    world.core.apply_cut(world.cut(CutScope.of_access(ACCOUNT, DATABASE.id), stamp=(1, 20)), NOW)
    world.core.deadline_reached(NOW + 400)
    forget_before(world, NOW + FORGOTTEN)
    assert len(world.core.floors) == 1
    link = world.granted(stamp=(1, 30))  # another link, of the same session
    world.core.deadline_reached(NOW + 400)
    with pytest.raises(InvalidToken, match="older than a cut"):
        world.core.present_grant(link, of_a_day_ahead, NOW + DAY)


def test_a_grant_in_force_from_before_a_cut_ends_when_the_cut_is_forgotten(world: World) -> None:
    link = world.granted(stamp=(1, 9))
    world.core.present_grant(link, world.grant(link, DATABASE, WEB, stamp=(1, 10), now=NOW + DAY), NOW + DAY)
    world.core.apply_cut(world.cut(CutScope.of_access(ACCOUNT, DATABASE.id), stamp=(1, 20)), NOW)
    flow = world.core.open(link, request(tcp("web.internal", 80)), NOW)
    later = NOW + FORGOTTEN
    forget_before(world, later)
    assert refused(world, link, DB) is FlowFailure.NOT_GRANTED
    (ended,) = world.core.deadline_reached(later + REGRANT_SECONDS)
    assert ended.flow is flow


def test_a_grant_from_after_a_forgotten_cut_counts(world: World) -> None:
    link = world.granted(DATABASE, stamp=(1, 10))
    world.core.apply_cut(world.cut(CutScope.of_access(ACCOUNT, WEB.id), stamp=(1, 20)), NOW)
    later = NOW + FORGOTTEN
    world.core.present_grant(link, world.grant(link, DATABASE, stamp=(1, 20), now=later), later)
    flow = world.core.open(link, request(DB), NOW)
    forget_before(world, later)
    world.core.recheck(flow, later)


def test_a_grant_of_a_time_to_come_counts_no_more_when_the_clock_is_set_back(world: World) -> None:
    link = world.granted(stamp=(1, 9))
    world.core.present_grant(link, world.grant(link, DATABASE, now=NOW + DAY), NOW + DAY)
    flow = world.core.open(link, request(DB), NOW)
    world.core.clock_set(NOW, -DAY)
    assert refused(world, link, DB) is FlowFailure.NOT_GRANTED
    assert world.core.flows == 1
    (ended,) = world.core.deadline_reached(NOW + REGRANT_SECONDS)
    assert ended.flow is flow


def test_flows_have_no_longer_for_a_fresh_grant_when_the_clock_is_set_back_meanwhile(world: World) -> None:
    link = world.granted(DATABASE)
    flow = world.core.open(link, request(DB), NOW)
    world.core.clock_set(NOW + DAY, DAY)
    world.core.clock_set(NOW + 1, -DAY)
    assert world.core.next_deadline() == NOW + 1 + REGRANT_SECONDS
    (ended,) = world.core.deadline_reached(NOW + 1 + REGRANT_SECONDS)
    assert ended.flow is flow


def test_a_grant_of_now_goes_on_when_the_clock_is_set_back(world: World) -> None:
    link = world.granted(DATABASE)
    flow = world.core.open(link, request(DB), NOW)
    world.core.clock_set(NOW - 4, -6.0)
    world.core.recheck(flow, NOW)


def test_live_flows_have_time_for_a_fresh_grant_when_the_clock_is_set_ahead(
    world: World,
) -> None:
    link = world.granted(DATABASE)
    flow = world.core.open(link, request(DB), NOW)
    now = end_of_grant(world, link)
    world.core.clock_set(now, DAY)
    assert world.core.deadline_reached(now + REGRANT_SECONDS - 0.1) == []
    assert refused(world, link, DB) is FlowFailure.NOT_GRANTED
    assert [one.flow for one in world.core.deadline_reached(now + REGRANT_SECONDS)] == [flow]


@pytest.mark.parametrize("off", [1.0, -3600.0])
def test_a_grant_that_was_over_before_the_clock_was_set_or_is_not_over_yet_ends_in_its_own_time(world: World, off: float) -> None:
    link = world.granted(DATABASE)
    world.core.open(link, request(DB), NOW)
    end = end_of_grant(world, link)
    world.core.clock_set(end + off, 1.0)
    assert world.core.next_deadline() == end
    assert len(world.core.deadline_reached(end + off)) == (off > 0)
