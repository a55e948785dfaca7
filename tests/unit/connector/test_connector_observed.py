"""A running connector as who watches it sees it: what flows moved is counted while they live and after, each byte once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from examples.deployment import free_port
from klinket.connector.traffic import Transport
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from klinket.domain.readiness import Readiness
from klinket.net.exposition import Exposition
from tests.eventually import eventually
from tests.unit.whole import Whole, everything


@pytest.fixture
async def whole(tmp_path: Path) -> AsyncIterator[Whole]:
    async with everything(tmp_path) as made:
        yield made


async def test_bytes_are_counted_while_a_flow_lives_and_once_when_it_has_ended(whole: Whole) -> None:
    traffic = whole.connector.observed().traffic
    flow = await whole.flow(await whole.client())
    assert traffic.from_clients() == {Transport.RELAY: 4, Transport.DIRECT: 0}
    await flow.echo(b"12345678")
    assert traffic.from_clients()[Transport.RELAY] == traffic.to_clients()[Transport.RELAY] == 12
    flow.program.close()
    await eventually(lambda: whole.connector._core.flows == 0)
    assert traffic.from_clients()[Transport.RELAY] == traffic.to_clients()[Transport.RELAY] == 12
    assert (traffic.opened, traffic.ended) == (1, 0)


async def test_flows_that_a_cut_ends_and_refusals_are_counted(whole: Whole) -> None:
    traffic = whole.connector.observed().traffic
    client = await whole.client()
    flow = await whole.flow(client)
    with pytest.raises(FlowRefused):
        await client.open_stream(Destination("127.0.0.1", free_port(), TransportProtocol.TCP))
    assert traffic.refused == {FlowFailure.REFUSED: 1}
    await whole.controller.revoke_key(whole.key)
    assert await flow.is_reset()
    assert traffic.ended == 1
    observed = whole.connector.observed()
    text = Exposition("connector", observed.metrics).text(Readiness())[1].decode()
    for line in (
        'klinket_connector_flows_refused_total{reason="refused"} 1.0',
        "klinket_connector_flows_ended_total 1.0",
        'twingate_inbound_bytes_total{transport="relay"} 4.0',
        "klinket_connector_relays 1.0",
    ):
        assert line in text


async def test_a_connector_is_ready_while_it_is_attached_and_at_a_relay(whole: Whole) -> None:
    observed = whole.connector.observed()
    assert (await observed.ready()).is_ready
    relays, whole.connector._relays = whole.connector._relays, {}
    assert [one.code for one in (await observed.ready()).reasons] == ["no-path"]
    whole.connector._relays = relays
    whole.connector._core.draining = True
    assert "draining" in [one.code for one in (await observed.ready()).reasons]
    whole.connector._core.draining = False
    whole.connector._channel.abort()
    await eventually(lambda: not whole.connector._channel.is_attached())
    assert "not-attached" in [one.code for one in (await observed.ready()).reasons]
