"""A controller whose clock is set: nobody takes that for a copied machine, and flows go on."""

from __future__ import annotations

import pytest

from klinket.wire import control
from tests.eventually import eventually
from tests.unit.whole import Whole


@pytest.mark.parametrize("step", [60.0, 3600.0, -3600.0])
async def test_sessions_and_flows_outlive_a_step_of_the_controllers_clock(
    whole: Whole, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    monkeypatch.setattr(control, "HEARTBEAT_SECONDS", 0.1)
    client = await whole.client()
    flow = await whole.flow(client)
    core = whole.connector._core
    ((session, before),) = core._grants.items()
    whole.controller.offset += step
    await whole.controller.controller.clock_watch.look()
    await eventually(lambda: session in core._grants and core._grants[session] is not before and not core._ungranted)
    assert client.session == session
    grant = core._grants[session].claims
    assert grant.expires_at > whole.controller.clock()
    await flow.echo()
    assert core.flows == 1
    await (await whole.flow(client)).echo()
