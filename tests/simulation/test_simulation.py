"""A slice of the simulation, which `./dev simulate` runs for as long as wanted; and that it finds bugs."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from unittest.mock import patch

import pytest

from klinket.connector.events import FlowEventLog
from klinket.domain.address import ResourceAddress
from klinket.domain.flow import Destination, TransportProtocol
from klinket.domain.grant import Principal
from klinket.domain.identifiers import Kid, RemoteNetworkId, ResourceId, ServiceAccountUuid, SessionId
from klinket.domain.resource import Resource
from tests.simulation.connector import Flows
from tests.simulation.model import FOREVER, NEVER, KeyFacts, Model, State
from tests.simulation.planted import PLANTED
from tests.simulation.template import template
from tests.simulation.virtual_time import NothingHappens, virtual_time
from tests.simulation.world import BrokenInvariant, World, simulate

#: Seconds of the slice.
SLICE_SECONDS = float(os.environ.get("KLINKET_TEST_SIMULATION_SECONDS", "60"))
#: Seeds that once broke an invariant.
REGRESSIONS: tuple[int, ...] = (170, 20495, 60615)
#: Seeds in which a planted bug has to show.
SEEDS = 300


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """Refusals and lost channels are what it is about: thousands of lines that tell nothing."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(SLICE_SECONDS + 120)
def test_nothing_that_must_hold_is_broken() -> None:
    """Prints the seed, and what happened, where something is."""
    template()
    until = time.perf_counter() + SLICE_SECONDS
    seeds = 0
    while time.perf_counter() < until:
        seeds += 1
        simulate(seeds)
    assert seeds > 3


@pytest.mark.parametrize("seed", REGRESSIONS)
def test_what_was_once_broken_holds(seed: int) -> None:
    simulate(seed)


def test_a_seed_says_all_that_happens() -> None:
    assert simulate(3) == simulate(3)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("bug", sorted(PLANTED))
def test_a_planted_bug_is_found(bug: str) -> None:
    template()
    for seed in range(1, SEEDS + 1):
        try:
            # Defects that the planting itself makes do not count.
            with PLANTED[bug](), patch.object(World, "met_defect", lambda *_: None):
                simulate(seed)
        except BrokenInvariant:
            return
    pytest.fail(f"{bug}: not found in {SEEDS} seeds")


def test_a_defect_that_a_part_survives_is_noticed() -> None:
    """One in what it logs with a traceback before it goes on, and one in a task that ends by it."""
    for owner, name in ((Flows, "limits_changed"), (FlowEventLog, "spool")):
        with patch.object(owner, name, side_effect=ZeroDivisionError("planted")):
            with pytest.raises(BrokenInvariant, match="met a defect: ZeroDivisionError: planted"):
                simulate(1)


def test_a_simulation_in_which_everybody_waits_is_noticed() -> None:
    with virtual_time() as loop, pytest.raises(NothingHappens):
        loop.run_until_complete(loop.create_future())


def test_the_model_remembers_until_when_something_was_allowed() -> None:
    principal = Principal(ServiceAccountUuid("a"), Kid("k"), SessionId("s"))
    database = Resource(ResourceId(1), "database", ResourceAddress.parse("db.internal"), RemoteNetworkId(1))
    destination = Destination("db.internal", 5432, TransportProtocol.TCP)
    without = State(keys={"k": KeyFacts("a", False, 8.0)}, resources={1: (database,)}, connectors={7: "hash"})
    with_access = replace(without, access={("a", 1): FOREVER})

    def last_allowed(now: float, token_hash: str = "hash") -> float:
        return model.last_allowed(principal, destination, 7, token_hash, now)

    model = Model(without, 0.0)
    assert last_allowed(1.0) == NEVER
    model.widens(with_access, 2.0)
    assert last_allowed(3.0) == 3.0
    assert last_allowed(10.0) == 8.0  # the key's own end
    model.becomes(without, 5.0)
    assert last_allowed(6.0) == 5.0
    assert last_allowed(6.0, "of other tokens") == NEVER
