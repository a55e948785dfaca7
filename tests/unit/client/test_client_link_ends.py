"""A link that ends by its time: a flow that lives longer goes on, and its next grant is presented over a new link."""

from __future__ import annotations

from dataclasses import replace

import pytest

from klinket.wire import control
from tests.eventually import eventually
from tests.unit.whole import Whole


@pytest.mark.parametrize("seen_in_time", [True, False])
async def test_a_flow_outlives_its_link_though_nothing_else_is_opened(whole: Whole, seen_in_time: bool) -> None:
    client = await whole.client()
    flow = await whole.flow(client)
    core = whole.connector._core
    ((id, link),) = client._links.items()
    record = core._links[link._link.handle]
    grant = core._grants[record.principal.session].claims
    if seen_in_time:
        link._made_at -= 3600  # more than half of its life is over
    else:
        core._links[link._link.handle] = replace(record, link=replace(record.link, expires_at=0.0))
        await eventually(lambda: not link.usable)  # its control pipe has ended
    await client._channel.send(control.Renew())
    await eventually(lambda: client._links[id] is not link and client._links[id].usable)
    await eventually(lambda: core._grants[record.principal.session].claims is not grant)
    assert core._grants[record.principal.session].claims.stamp >= grant.stamp
    await flow.echo()
