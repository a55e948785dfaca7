"""When the controller prunes: by a steady clock, while nobody reads an export, a bounded number of steps a round."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from klinket.controller import audit_signing, pruning
from klinket.controller.app import retention
from klinket.controller.clock_watch import ClockWatch
from klinket.controller.pruning import STEADY_SECONDS, Pruning
from klinket.domain.audit import SYSTEM, AuditAction, AuditEvent
from klinket.domain.sink import Stream
from tests.unit.controller.running import Running

DAY = 24 * 3600.0
ROUND = 10.0


class Clocks:
    """The controller's clock, and one that nobody sets."""

    def __init__(self, controller: Running) -> None:
        self._controller = controller
        self.even = 0.0

    def go_on(self, seconds: float) -> None:
        self.even += seconds
        self._controller.offset += seconds

    def set(self, seconds: float) -> None:
        self._controller.offset += seconds


@pytest.fixture
async def clocks(controller: Running) -> Clocks:
    def write(tx: Any) -> None:
        for _ in range(150):
            tx.record(AuditEvent(AuditAction.EDIT, SYSTEM, ({"type": "group", "id": "1", "name": "ops"},)))

    await controller.write(write)
    await audit_signing.sign_waiting(controller.store, controller.trust, now=True)
    return Clocks(controller)


async def nobody() -> None:
    """Is told of steps of the clock."""


@pytest.fixture
def started(controller: Running, clocks: Clocks) -> Callable[..., Pruning]:
    def start(is_exporting: Callable[[], bool] = lambda: False) -> Pruning:
        frozen = controller.clock() - controller.offset
        watch = ClockWatch(lambda: frozen + controller.offset, lambda: clocks.even, nobody)
        return Pruning(controller.store, controller.trust, retention.MIN_DAYS, is_exporting, watch.steady_seconds)

    return start


async def pruned(controller: Running) -> int:
    anchor = await controller.store.read(lambda tx: tx.audit_anchor.get(1))
    return 0 if anchor is None else anchor.number


async def test_old_events_go_once_the_clock_has_been_steady_for_an_hour(
    controller: Running, clocks: Clocks, started: Callable[..., Pruning]
) -> None:
    clocks.go_on((retention.MIN_DAYS + 2) * DAY)
    rounds = started()
    await rounds.round()
    assert await pruned(controller) == 0
    clocks.go_on(STEADY_SECONDS)
    await rounds.round()
    assert await pruned(controller) >= 150


async def test_a_clock_that_jumps_ahead_and_is_put_right_within_an_hour_removes_nothing(
    controller: Running, clocks: Clocks, started: Callable[..., Pruning]
) -> None:
    rounds = started()
    clocks.go_on(2 * STEADY_SECONDS)
    await rounds.round()
    clocks.set(400 * DAY)
    for _ in range(int(STEADY_SECONDS / ROUND)):
        await rounds.round()
        clocks.go_on(ROUND)
    clocks.set(-400 * DAY)
    for _ in range(3):
        clocks.go_on(ROUND)
        await rounds.round()
    assert await pruned(controller) == 0


async def test_nothing_goes_while_an_export_is_read(controller: Running, clocks: Clocks, started: Callable[..., Pruning]) -> None:
    reading = [True]
    rounds = started(lambda: bool(reading))
    clocks.go_on((retention.MIN_DAYS + 2) * DAY)
    await rounds.round()
    clocks.go_on(STEADY_SECONDS)
    await rounds.round()
    clocks.go_on(STEADY_SECONDS)
    await rounds.round()
    assert await pruned(controller) == 0
    reading.clear()
    await rounds.round()
    assert await pruned(controller) >= 150


async def test_a_round_ends_after_a_bounded_number_of_steps(
    controller: Running, clocks: Clocks, started: Callable[..., Pruning], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "MAX_STEPS", 1)
    monkeypatch.setattr(retention.audit_check, "PART_EVENTS", 100)
    clocks.go_on((retention.MIN_DAYS + 2) * DAY)
    rounds = started()
    clocks.go_on(STEADY_SECONDS)
    await rounds.round()
    assert await pruned(controller) == 100
    await rounds.round()
    assert await pruned(controller) >= 150


async def test_an_audit_that_was_tampered_with_is_told_once_and_stays(
    controller: Running, clocks: Clocks, started: Callable[..., Pruning], caplog: pytest.LogCaptureFixture
) -> None:
    await controller.write(lambda tx: tx.audit.remove(number=9))
    clocks.go_on((retention.MIN_DAYS + 2) * DAY)
    rounds = started()
    clocks.go_on(STEADY_SECONDS)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await rounds.round()
    assert await pruned(controller) == 0
    assert [record.message.count("is not intact") for record in caplog.records if record.name == pruning.__name__] == [1]


async def test_a_sink_that_holds_old_events_back_is_named(
    controller: Running, clocks: Clocks, started: Callable[..., Pruning], caplog: pytest.LogCaptureFixture
) -> None:
    given: dict[str, Any] = {"settings": {}, "sealed_secret": None, "is_enabled": False, "flow_position": 0, "attempts": 0}
    await controller.write(
        lambda tx: tx.sinks.add(name="siem", kind="WEBHOOK", streams=[Stream.AUDIT.value], audit_position=3, **given)
    )
    clocks.go_on((retention.MIN_DAYS + 2) * DAY)
    rounds = started()
    clocks.go_on(STEADY_SECONDS)
    with caplog.at_level(logging.WARNING):
        await rounds.round()
    assert await pruned(controller) == 0
    assert "siem" in caplog.text
