"""A controller whose clock is set: nobody takes that for a copied machine, and flows go on."""

from __future__ import annotations

import pytest

from klinket.client.link import ConnectorLink
from klinket.connector import limits
from klinket.wire import control
from tests.eventually import eventually
from tests.unit.whole import Whole


@pytest.mark.parametrize("step", [60.0, 1500.0, -3600.0])  # ahead of the end of grants, not of certificates
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


@pytest.mark.parametrize("off", [3600.0, -3600.0])
async def test_a_client_starts_works_and_logs_out_while_the_controllers_clock_is_off(whole: Whole, off: float) -> None:
    whole.controller.offset += off
    await whole.controller.controller.clock_watch.look()
    client = await whole.client()
    await (await whole.flow(client)).echo()
    client._channel.abort()
    client._channel._connection = None
    await client.aclose()  # without a channel: by an assertion of its own
    (row,) = await whole.sessions()
    assert row.end_reason == "logout"


async def test_a_connector_whose_controllers_clock_was_set_ahead_waits_for_fresh_grants(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "REGRANT_SECONDS", 3600.0)
    client = await whole.client()
    flow = await whole.flow(client)
    core = whole.connector._core
    (session,) = core._grants

    async def never(self: ConnectorLink) -> None:
        """The fresh one is late."""

    monkeypatch.setattr(ConnectorLink, "present_grant", never)
    whole.controller.offset += 1500
    await whole.controller.controller.clock_watch.look()
    await eventually(lambda: core._ungranted)
    assert (list(core._ungranted), list(core._grants)) == ([session], [])
    await flow.echo()
