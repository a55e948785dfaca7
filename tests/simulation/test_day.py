"""A slice of the long run, which `./dev simulate --hours N` makes as long as wanted; and that it finds what grows."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

import pytest

from klinket.connector.core import Flow
from klinket.connector.events import FlowEventLog
from klinket.controller.peers import Peers
from klinket.controller.store.repository import SqlRepository
from tests.simulation.day import simulate_day
from tests.simulation.sizes import growing, measure

#: Hours of the slice, a few seconds, and how much more happens in them.
SLICE_HOURS, PACE = 0.6, 5.0


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(300)
def test_nothing_grows_under_a_load_that_stays_the_same() -> None:
    day = simulate_day(1, SLICE_HOURS, pace=PACE)
    assert day.growing() == {}
    assert day.tables[-1]["flow_events"] > 0
    assert any(name.startswith("office-1._core") for name in day.looks[-1])


@pytest.mark.timeout(300)
def test_what_remembers_every_flow_and_a_table_that_forgets_nothing_are_found() -> None:
    closed = FlowEventLog.closed

    def closed_and_remembered(self: FlowEventLog, flow: Flow, *more: Any) -> None:
        vars(self).setdefault("_remembered", []).append(flow)
        closed(self, flow, *more)

    with (
        patch.object(FlowEventLog, "closed", closed_and_remembered),
        patch.object(SqlRepository, "remove_below", lambda *_: 0),
    ):
        grown = simulate_day(1, SLICE_HOURS, pace=PACE).growing()
    assert any(name.endswith("._events._remembered") for name in grown)
    assert "table sessions" in grown


def test_what_rises_from_quarter_to_quarter_grows() -> None:
    rising = [{"a": number} for number in range(40)]
    assert growing(rising) == {"a": [4.5, 14.5, 24.5, 34.5]}


@pytest.mark.parametrize(
    "series",
    [
        [7] * 40,  # stays
        [*range(10), *[10] * 30],  # reaches its bound in the first quarter
        [number % 10 for number in range(40)],  # comes and goes
        [100 + number // 10 for number in range(40)],  # rises by less than the noise of the load
    ],
)
def test_what_stays_below_a_bound_does_not_grow(series: list[int]) -> None:
    assert growing([{"a": size} for size in series]) == {}


def test_sizes_are_of_all_containers_below_an_object() -> None:
    peers = Peers()
    peers.relays[1] = peers  # type: ignore[assignment] - a ring ends somewhere
    peers.logged_in("one")
    assert measure({"peers": peers}) == {
        "peers.clients": 0,
        "peers.connectors": 0,
        "peers.relays": 1,
        "peers.seating": 0,
        "peers._unattached": 1,
    }
