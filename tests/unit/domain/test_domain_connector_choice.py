"""Which connector a flow goes to: an even spread, little movement, and what was seen of each."""

from __future__ import annotations

from collections import Counter

import pytest

from klinket.domain.connector_choice import (
    FAILED_SECONDS,
    MAX_UNREACHED,
    MOST_FAILED_SECONDS,
    TRIAL_SECONDS,
    UNREACHED_SECONDS,
    ConnectorChoice,
    score,
)
from klinket.domain.identifiers import ResourceId

CONNECTORS = [1, 2, 3, 4]
RESOURCE = ResourceId(7)
HOST = "db.internal"


def firsts(choice: ConnectorChoice, connectors: list[int] = CONNECTORS, flows: int = 2_000) -> dict[int, int]:
    """Return the connector chosen first by flow number: a session each, and a resource each."""
    return {n: choice.order(f"session {n // 4}", ResourceId(n % 4), HOST, connectors, 0.0)[0] for n in range(flows)}


def order(choice: ConnectorChoice, now: float, resource: ResourceId = RESOURCE, host: str = HOST) -> list[int]:
    return choice.order("session", resource, host, CONNECTORS, now)


def test_flows_spread_evenly_by_session_and_by_resource() -> None:
    counts = Counter(firsts(ConnectorChoice()).values())
    assert all(400 < counts[id] < 600 for id in CONNECTORS)
    of_one_session = {order(ConnectorChoice(), 0.0, ResourceId(n))[0] for n in range(50)}
    assert of_one_session == {1, 2, 3, 4}


def test_a_connector_that_goes_or_comes_moves_its_own_flows_only() -> None:
    choice = ConnectorChoice()
    before, after = firsts(choice), firsts(choice, CONNECTORS[1:])
    assert all(after[flow] == connector for flow, connector in before.items() if connector != 1)


def test_load_moves_flows_away_from_the_loaded_one_and_none_between_the_others() -> None:
    choice = ConnectorChoice()
    before = firsts(choice)
    choice.reports(1, 90)
    after = firsts(choice)
    moved = {flow for flow in before if before[flow] != after[flow]}
    assert {before[flow] for flow in moved} == {1}
    assert 60 < Counter(after.values())[1] < 200  # a fifth of its share, never none


@pytest.mark.parametrize(("told", "counts_as"), [(-5, 0), (10**9, 100)])
def test_a_lying_connector_gets_its_equal_share_at_the_most_and_the_least_one_at_the_least(told: int, counts_as: int) -> None:
    liar, honest = ConnectorChoice(), ConnectorChoice()
    liar.reports(1, told)
    honest.reports(1, counts_as)
    assert firsts(liar, flows=200) == firsts(honest, flows=200)
    assert 0 < liar.weight(1) <= ConnectorChoice().weight(2) == 1.0


def test_every_score_is_a_positive_number() -> None:
    assert all(0 < score(f"s{n}", RESOURCE, n, 1.0) < float("inf") for n in range(1_000))


def test_a_connector_that_did_not_reach_a_resource_comes_last_for_it_only_and_for_a_while() -> None:
    choice = ConnectorChoice()
    before = order(choice, 0.0)
    choice.unreached(before[0], RESOURCE, HOST, 0.0)
    assert order(choice, UNREACHED_SECONDS - 1) == [*before[1:], before[0]]
    assert order(choice, 0.0, ResourceId(8)) == order(ConnectorChoice(), 0.0, ResourceId(8))
    assert order(choice, UNREACHED_SECONDS) == before
    choice.reached(before[0], RESOURCE, HOST)
    assert order(choice, 1.0) == before


def test_what_is_known_of_the_very_host_counts_more_than_the_rest_of_its_resource() -> None:
    choice = ConnectorChoice()
    first, *others = order(choice, 0.0)
    choice.unreached(first, RESOURCE, "a.internal", 0.0)
    assert order(choice, 1.0, host="b.internal")[-1] == first  # most likely it does not reach the others either
    choice.reached(first, RESOURCE, "b.internal")
    assert order(choice, 1.0, host="b.internal")[0] == first
    assert order(choice, 1.0, host="a.internal") == [*others, first]


def test_a_miss_that_nobody_else_has_proved_counts_for_that_very_host_only() -> None:
    choice = ConnectorChoice()
    first, *others = order(choice, 0.0)
    choice.missed(first, RESOURCE, "a.internal", 0.0)
    assert order(choice, 1.0, host="a.internal") == [*others, first]
    assert order(choice, 1.0, host="b.internal")[0] == first
    assert order(choice, UNREACHED_SECONDS, host="a.internal")[0] == first
    choice.reached(first, RESOURCE, "a.internal")
    assert order(choice, 1.0, host="a.internal")[0] == first


def test_after_the_wait_one_flow_tries_and_the_others_stay_away_until_it_has_ended() -> None:
    choice = ConnectorChoice()
    first, *others = order(choice, 0.0)
    choice.failed(first, 0.0)
    choice.tries(first, RESOURCE, HOST, FAILED_SECONDS)
    assert order(choice, FAILED_SECONDS) == [*others, first]
    assert order(choice, FAILED_SECONDS + TRIAL_SECONDS) == [first, *others]


def test_each_failed_trial_doubles_the_wait_up_to_a_bound() -> None:
    choice, now, waits = ConnectorChoice(), 0.0, []
    first = order(choice, 0.0)[0]
    for _ in range(5):
        choice.failed(first, now)
        choice.failed(first, now)  # flows that failed together count once
        begun = now
        while order(choice, now)[0] != first:
            now += 1
        waits.append(now - begun)
    assert waits == [FAILED_SECONDS, 20.0, 40.0, MOST_FAILED_SECONDS, MOST_FAILED_SECONDS]


def test_what_is_remembered_is_bounded_and_ends_with_the_connector() -> None:
    choice = ConnectorChoice()
    for n in range(MAX_UNREACHED + 10):
        choice.unreached(1, RESOURCE, f"h{n}", 0.0)
    assert len(choice._unreached) == MAX_UNREACHED
    choice.failed(1, 0.0)
    choice.reports(1, 80)
    choice.keep([2])
    assert not choice._failed
    assert choice.weight(1) == 1.0
