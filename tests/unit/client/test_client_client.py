"""A running client against a real controller, relay and connector."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from klinket.client import client as client_client
from klinket.client.client import Client
from klinket.client.flow import ClientStream
from klinket.client.opening import ask
from klinket.domain.errors import ControllerUnreachable, FlowRefused, ServiceKeyRevoked
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from tests.eventually import PATIENCE, eventually
from tests.unit.connector.test_connector_dial import closed_port
from tests.unit.whole import Whole, tasks_named


async def test_a_flow_reaches_the_resource_and_back(whole: Whole) -> None:
    client = await whole.client()
    flow = await whole.flow(client)
    await flow.echo(b"and again")
    flow.program.shutdown(1)
    await flow.carrying
    # the pipe carries the next flow
    await (await whole.flow(client)).echo()


async def test_the_resources_answer_is_the_flows(whole: Whole) -> None:
    client = await whole.client()
    with pytest.raises(FlowRefused) as caught:
        await client.open_stream(Destination("127.0.0.1", closed_port(), TransportProtocol.TCP))
    assert caught.value.failure is FlowFailure.REFUSED
    with pytest.raises(FlowRefused) as caught:
        await client.open_stream(Destination("127.0.0.2", 80, TransportProtocol.TCP))
    assert caught.value.failure is FlowFailure.NOT_GRANTED


async def test_a_revoked_key_ends_flows_and_the_client_for_good(whole: Whole) -> None:
    client = await whole.client()
    flow = await whole.flow(client)
    await whole.controller.revoke_key(whole.key)
    assert await flow.is_reset()
    await eventually(client.ended.is_set)
    assert isinstance(client.end_reason, ServiceKeyRevoked)
    with pytest.raises(FlowRefused) as caught:
        await client.open_stream(whole.resource.destination)
    assert caught.value.failure is FlowFailure.SERVICE_KEY_REVOKED


async def test_a_start_that_fails_leaves_no_channel_behind(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client(whole.key_file)
    with monkeypatch.context() as patched:
        patched.setattr(client_client, "START_SECONDS", 0.0)
        for _ in range(3):
            with pytest.raises(ControllerUnreachable):
                await client.start()
    assert tasks_named("client: channel") == []
    await client.start()
    assert len(tasks_named("client: channel")) == 1
    await client.aclose()


async def test_a_start_that_is_given_up_leaves_no_channel_behind(whole: Whole) -> None:
    client = Client(whole.key_file)
    starting = asyncio.ensure_future(client.start())
    async with asyncio.timeout(10):
        while not tasks_named("client: channel"):
            await asyncio.sleep(0)  # not a moment longer: the start must not be over
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    assert tasks_named("client: channel") == []
    await client.aclose()


async def test_flows_that_fail_together_close_the_link_they_used_and_no_newer_one(whole: Whole) -> None:
    client = await whole.client()
    (failed,) = client._links.values()
    await client._link_set.lost(failed)  # the first to notice
    flow = await whole.flow(client)  # somebody makes a new link
    (present,) = client._links.values()
    assert present is not failed
    await asyncio.gather(*(client._link_set.lost(failed) for _ in range(5)))  # the others notice as well
    assert list(client._links.values()) == [present]
    assert present.usable
    await flow.echo()


async def test_a_live_link_takes_new_flows_while_the_controller_has_not_met_the_connector_again(whole: Whole) -> None:
    client = await whole.client()
    flow = await whole.flow(client)
    # What a client is told that is back at a restarted controller before the connector.
    away = [msgspec.structs.replace(one, relays=[], online=False) for one in client._core.configuration.connectors]
    client._configure(msgspec.structs.replace(client._core.configuration, connectors=away))
    await (await whole.flow(client)).echo()
    await flow.echo()
    (link,) = client._links.values()
    await client._link_set.lost(link)
    with pytest.raises(FlowRefused, match="none is connected"):
        await client.open_stream(whole.resource.destination)


async def test_flows_of_a_connector_that_was_removed_are_cut(whole: Whole) -> None:
    client = await whole.client()
    flow = await whole.flow(client)
    (stream,) = client._flows
    # Only the client is told here: the connector goes on.
    client._configure(msgspec.structs.replace(client._core.configuration, connectors=[]))
    assert await flow.is_reset()
    await flow.carrying
    assert isinstance(stream, ClientStream)
    assert stream.failure is not None
    assert stream.failure.failure is FlowFailure.CUT
    assert not client._links


@pytest.mark.parametrize("channel", ["up", "down"])
async def test_closing_ends_the_session_at_the_controller(whole: Whole, channel: str) -> None:
    client = await whole.client()
    assert [row.ended_at_ms for row in await whole.sessions()] == [None]
    if channel == "down":
        connection = client._channel._connection
        assert connection is not None
        await connection.close()
        await eventually(lambda: client._channel._connection is None)
    await client.aclose()
    async with asyncio.timeout(10):
        while [row.ended_at_ms for row in await whole.sessions()] == [None]:
            await asyncio.sleep(0.02)


async def test_a_defect_in_a_message_does_not_make_the_client_deaf(
    whole: Whole, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = await whole.client()
    real = client._core.configure
    failures = [RuntimeError("a defect")]

    def configure(configuration: object) -> None:
        if failures:
            raise failures.pop()
        real(configuration)  # type: ignore[arg-type]

    monkeypatch.setattr(client._core, "configure", configure)
    await whole.controller.add_resource(whole.office, "Other", "other.internal")
    granted = await whole.controller.add_resource(whole.office, "Web", "web.internal")
    await whole.controller.change(
        "mutation ($a: ID!, $r: [ID]) { serviceAccountUpdate(id: $a, addedResourceIds: $r) { ok error } }",
        a=whole.account,
        r=[granted],
    )
    await eventually(lambda: "the channel failed" in caplog.text)
    await eventually(lambda: "Web" in [resource.name for resource in client.resources])
    await whole.controller.revoke_key(whole.key)
    await eventually(client.ended.is_set)


async def test_a_connector_refuses_what_a_narrowed_session_did_not_choose(whole: Whole) -> None:
    port = whole.resource.destination.port
    resource = await whole.controller.add_resource(whole.office, "Other", "127.0.0.2")
    await whole.controller.grant(whole.account, resource)
    client = Client(whole.key_file, ["Echo"])
    try:
        await client.start()
        await client.wait_ready(["Echo"], PATIENCE)
        (other,) = [one for one in client.core._index.resources if one.name == "Other"]
        with pytest.raises(FlowRefused, match="only Echo may be used here"):
            await client.open_stream(Destination("127.0.0.2", port, TransportProtocol.TCP))
        (link,) = client._links.values()
        with pytest.raises(FlowRefused) as caught:  # as a client would that has forgotten its choice
            await ask(await link.pipe(), Destination("127.0.0.2", port, TransportProtocol.TCP), other)
        assert caught.value.failure is FlowFailure.NOT_GRANTED
        await (await whole.flow(client)).echo()
    finally:
        await client.aclose()
