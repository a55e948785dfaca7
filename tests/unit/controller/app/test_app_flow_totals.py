"""Small charts of flows along time."""

from __future__ import annotations

from klinket.controller.app import flow_totals
from klinket.controller.app.flow_totals import HOUR_MS
from klinket.controller.app.ports import Transaction
from tests.unit.controller.app.conftest import Inventory

STEP_MS = 6 * HOUR_MS


async def test_a_chart_has_a_point_for_each_step_and_counts_what_was_established(inventory: Inventory) -> None:
    now_ms = round(inventory.now * 1000)
    first = (now_ms - 24 * HOUR_MS) // STEP_MS

    def add(tx: Transaction) -> None:
        for account, step, kind, flows in (
            (1, 0, "established", 3),
            (1, 0, "denied", 50),
            (1, 0, "closed", 3),
            (1, 4, "established", 2),
            (1, -1, "established", 70),  # before the chart begins
            (1, 9, "established", 80),  # of a connector whose clock is wrong
            (2, 1, "established", 1),
            (3, 1, "denied", 1),
        ):
            tx.flow_totals.add(
                hour_ms=(first + step) * STEP_MS, service_account_id=account, resource_id=1, kind=kind, failure="",
                flows=flows, bytes_from_client=0, bytes_to_client=0,
            )  # fmt: skip

    await inventory.write(add)
    begin_ms = now_ms - 24 * HOUR_MS
    drawn = await inventory.read(lambda tx: flow_totals.along(tx, "service_account_id", begin_ms, STEP_MS))
    assert drawn == {1: [3, 0, 0, 0, 2], 2: [0, 1, 0, 0, 0]}
    only = await inventory.read(lambda tx: flow_totals.along(tx, "resource_id", begin_ms, STEP_MS, service_account_id=2))
    assert only == {1: [0, 1, 0, 0, 0]}
