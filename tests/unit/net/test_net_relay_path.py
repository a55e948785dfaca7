"""The way through a relay, against a real one: admitted once, by the controller's time, and nothing left when given up."""

from __future__ import annotations

import asyncio
import time

import pytest

from klinket.net import relay_path
from klinket.net.relay_path import RENEW_AHEAD_SECONDS, RelayPath, RelayUnavailable
from klinket.relay.limits import RelayLimits
from klinket.wire.relay import RelayAnswer, RelayError, RelayRole
from klinket.wire.ticket import TicketRole
from tests.unit.connector.test_connector_dial import descriptors
from tests.unit.relay.conftest import ticket
from tests.unit.relay.test_relay_server import Running, StartRelay, start_relay, state

LIFETIME = 600.0
__all__ = ["start_relay", "state"]  # fixtures


@pytest.fixture
async def running(start_relay: StartRelay) -> Running:
    return await start_relay(pairing_seconds=0.05)  # nobody waits long for a connector that does not come


class Tickets:
    """Gives tickets and counts them: one is shown per admission."""

    def __init__(self, *, connector: bool = False) -> None:
        self.connector = connector
        self.given = 0

    def __call__(self) -> str:
        self.given += 1
        return ticket(TicketRole.CONNECTOR if self.connector else TicketRole.CLIENT, now=time.time(), lifetime=LIFETIME)


@pytest.mark.parametrize(
    ("ahead", "admissions"),
    [(0.0, 1), (LIFETIME - RENEW_AHEAD_SECONDS - 60, 1), (LIFETIME - RENEW_AHEAD_SECONDS + 1, 3), (LIFETIME + 1, 3)],
)
async def test_an_admission_is_used_until_shortly_before_its_end_by_the_clock_given(
    running: Running,
    ahead: float,
    admissions: int,
) -> None:
    tickets = Tickets(connector=True)
    path = RelayPath(running.entry, RelayRole.CONNECTOR, tickets, lambda: time.time() + ahead)
    for _ in range(3):
        (await path.register(7)).sock.close()
    assert tickets.given == admissions


@pytest.mark.parametrize(
    ("first", "newest", "reached"),
    [((7,), (7, 8), True), ((7,), (7,), False), ((7,), (7, 9), False)],
    ids=["it came to the ticket", "the ticket is the same", "the new ticket has it neither"],
)
async def test_a_connector_that_came_to_the_ticket_later_is_reached_without_waiting_for_the_admissions_end(
    running: Running, first: tuple[int, ...], newest: tuple[int, ...], reached: bool
) -> None:
    names = [first]
    tickets = {
        connectors: ticket(TicketRole.CLIENT, now=time.time(), lifetime=LIFETIME, connectors=connectors)
        for connectors in (first, newest)
    }
    path = RelayPath(running.entry, RelayRole.CLIENT, lambda: tickets[names[-1]], time.time)

    async def refused(connector: int) -> RelayAnswer:
        with pytest.raises(RelayError) as error:
            await path.connect(connector)
        return error.value.answer

    assert await refused(7) is RelayAnswer.NO_CONNECTOR  # allowed, but nobody waits
    assert await refused(8) is RelayAnswer.NOT_ALLOWED
    names.append(newest)
    assert await refused(8) is (RelayAnswer.NO_CONNECTOR if reached else RelayAnswer.NOT_ALLOWED)
    assert await refused(7) is RelayAnswer.NO_CONNECTOR


async def test_a_certificate_that_is_not_the_pinned_one_sees_no_ticket(running: Running) -> None:
    tickets = Tickets()
    entry = type(running.entry)(id=running.entry.id, address=running.entry.address, certificate_sha256="0" * 64)
    with pytest.raises(RelayUnavailable, match="not the one"):
        await RelayPath(entry, RelayRole.CLIENT, tickets, time.time).connect(7)
    assert tickets.given == 0


async def test_giving_up_at_any_moment_leaves_no_socket(running: Running) -> None:
    path = RelayPath(running.entry, RelayRole.CLIENT, Tickets(), time.time)
    with pytest.raises(RelayError):
        await path.connect(7)
    await asyncio.sleep(0.1)
    before = descriptors()
    for steps in range(12):
        connecting = asyncio.ensure_future(path.connect(7))
        for _ in range(steps):
            await asyncio.sleep(0)
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
    async with asyncio.timeout(10):
        while descriptors() > before:  # the relay's own ends go as it notices
            await asyncio.sleep(0.02)


async def test_a_relay_that_cannot_be_reached_is_told_by_its_address(
    running: Running,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(relay_path, "CONNECT_SECONDS", 0.2)
    entry = type(running.entry)(id=9, address="127.0.0.1:1", certificate_sha256="0" * 64)
    with pytest.raises(RelayUnavailable, match=r"127\.0\.0\.1:1"):
        await RelayPath(entry, RelayRole.CLIENT, Tickets(), time.time).connect(7)


async def test_clients_beyond_a_relays_limit_of_waiting_ones_wait_for_their_turn(running: Running) -> None:
    limit = RelayLimits().max_unfinished_per_ticket
    assert limit > relay_path.MAX_PAIRING
    path = RelayPath(running.entry, RelayRole.CLIENT, Tickets(), time.time)
    answers = await asyncio.gather(*(path.connect(7) for _ in range(limit * 3)), return_exceptions=True)
    assert {answer.answer for answer in answers if isinstance(answer, RelayError)} == {RelayAnswer.NO_CONNECTOR}
    assert len(answers) == limit * 3
