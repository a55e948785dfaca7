"""What expires ends at its instant, once, and no failure keeps it alive."""

from __future__ import annotations

from typing import Any

import pytest

from klinket.controller import expiries
from klinket.controller.app.rows import CutRow
from klinket.domain.errors import ServiceKeyExpired
from klinket.wire import control
from tests.eventually import eventually
from tests.unit.controller.running import Running
from tests.unit.controller.test_controller_dispatch import DAY, enrolled, granted, stored_cuts


async def test_what_expired_while_no_controller_ran_is_ended_at_the_start(controller: Running) -> None:
    network = await controller.add_network()
    await enrolled(controller, network)
    resource = await controller.add_resource(network)
    account = await controller.add_account(resources=[resource])
    await controller.add_key(account, 1)
    ends = controller.clock() * 1000 + 4_000_000
    await controller.write(lambda tx: tx.access.change(1, expires_at_ms=round(ends)))
    controller.offset = 2 * DAY
    async with controller.listening():
        found = await eventually(lambda: _both(controller))
    assert {cut.scope.partition(" ")[0] for cut in found} == {"access", "key"}
    assert await controller.read(lambda tx: tx.access.find()) == []


async def _both(controller: Running) -> list[CutRow]:
    found = await stored_cuts(controller)
    return found if len(found) == 2 else []


async def test_a_key_ends_at_its_instant_with_everything_reached_through_it(live: Running) -> None:
    network, _, _, session = await granted(live, days=1)
    connector = await enrolled(live, network)
    async with live.attached(connector) as edge, live.attached(session) as client:
        await edge.take(control.ConnectorConfiguration)
        await client.take(control.ClientConfiguration)
        live.offset = DAY + 1
        live.dispatch.peers_changed()  # the clock was moved, not waited for
        await edge.take(control.Cut)
        assert (await client.wait_for(control.SessionEnded)).code == ServiceKeyExpired.code


async def test_what_has_ended_is_ended_once(live: Running) -> None:
    await granted(live, days=1)
    live.offset = DAY + 1
    live.dispatch.peers_changed()
    await eventually(lambda: stored_cuts(live))
    for _ in range(3):
        before = live.dispatch.snapshot
        live.dispatch.peers_changed()
        await eventually(lambda before=before: live.dispatch.snapshot is not before)
    assert len(await stored_cuts(live)) == 1
    assert live.dispatch.snapshot.next_expiry is None


async def test_expiries_that_cannot_be_ended_are_tried_again(live: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiries, "RETRY_SECONDS", 0.05)
    real, left = expiries.end_expired, [OSError("disk full")]

    def end_expired(tx: Any) -> int:
        if left:
            raise left.pop()
        return real(tx)

    monkeypatch.setattr(expiries, "end_expired", end_expired)
    await granted(live, days=1)
    live.offset = DAY + 1
    live.dispatch.peers_changed()
    assert await eventually(lambda: stored_cuts(live))
    assert not left
