"""A link with a real connector: warm pipes, pipes that died, draining, renewal of grants, and its replacement."""

from __future__ import annotations

import asyncio
import socket

import msgspec
import pytest

from klinket.client import link as client_link
from klinket.client import warm_pipes
from klinket.client.client import Client
from klinket.client.flow import ClientDatagrams
from klinket.client.link import ConnectorLink, LinkLost
from klinket.client.opening import ask
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from klinket.net.direct_path import DirectPath
from klinket.wire import link_control
from klinket.wire.link_control import GrantAccepted
from klinket.wire.pipe import FrameType
from tests.eventually import eventually
from tests.unit.client.conftest import granted
from tests.unit.connector.test_connector_dial import descriptors
from tests.unit.net.conftest import pipe_ends
from tests.unit.whole import Whole


@pytest.fixture
async def client(whole: Whole) -> Client:
    return await whole.client()


def link_of(client: Client) -> ConnectorLink:
    (found,) = client._links.values()
    return found


async def warmed(link: ConnectorLink) -> None:
    """Have a warm pipe ready."""
    (await link.pipe()).abort()
    await eventually(lambda: link._warm)


async def test_a_warm_pipe_is_used_once_and_replaced(client: Client) -> None:
    link = link_of(client)
    await warmed(link)
    ready = [pipe for pipe, _ in link._warm._kept]
    pipe = await link.pipe()
    assert pipe in ready
    assert pipe not in [one for one, _ in link._warm._kept]
    await eventually(lambda: link._warm)
    pipe.abort()


async def test_a_warm_pipe_that_died_is_not_handed_out(whole: Whole, client: Client) -> None:
    link = link_of(client)
    await warmed(link)
    dead = [pipe for pipe, _ in link._warm._kept]
    for pipe in dead:
        pipe.sock.shutdown(2)
    fresh = await link.pipe()
    assert fresh not in dead
    assert all(pipe.closed for pipe in dead)
    fresh.abort()
    await whole.flow(client)


async def test_a_pipe_that_waited_too_long_is_not_handed_out(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    link = link_of(client)
    await warmed(link)
    old = [pipe for pipe, _ in link._warm._kept]
    monkeypatch.setattr(warm_pipes, "WARM_SECONDS", 0.0)
    fresh = await link.pipe()
    assert fresh not in old
    fresh.abort()


async def test_a_flow_that_waits_for_a_pipe_of_a_link_that_is_closed_goes_elsewhere(client: Client) -> None:
    """Also one that has just got the link: LinkLost is what attempts at other connectors follow upon."""
    link = link_of(client)
    link._warm.close()
    link._warm = warm_pipes.WarmPipes(link._new_pipe, link._tasks)
    waiting = asyncio.ensure_future(link.pipe())
    await asyncio.sleep(0)
    await link.aclose()
    for asked in (waiting, link.pipe()):
        with pytest.raises(LinkLost):
            await asyncio.wait_for(asked, 5)


async def test_a_connector_that_drains_gets_no_new_flow_and_keeps_the_live_one(whole: Whole, client: Client) -> None:
    flow = await whole.flow(client)
    whole.connector._links.drain()
    link = link_of(client)
    await eventually(lambda: not link.usable)
    await flow.echo()
    with pytest.raises(FlowRefused) as caught:
        await client.open_stream(whole.resource.destination)
    assert caught.value.failure is FlowFailure.DRAINING


async def test_flows_go_on_when_their_link_is_replaced(whole: Whole, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    flow = await whole.flow(client)
    former = link_of(client)
    assert not former.old
    monkeypatch.setattr(former, "_made_at", former._clock() - 4000)
    assert former.old
    await whole.flow(client)  # served by the present link while the new one is made
    await eventually(lambda: link_of(client) is not former)
    await flow.echo()
    assert not former.usable
    await (await whole.flow(client)).echo()


async def test_a_new_grant_is_presented_on_the_link_there_is(whole: Whole, client: Client) -> None:
    link = link_of(client)
    before = link._presented
    granted = await whole.controller.add_resource(whole.office, "Other", "127.0.0.3")
    await whole.controller.change(
        "mutation ($a: ID!, $r: [ID]) { serviceAccountUpdate(id: $a, addedResourceIds: $r) { ok error } }",
        a=whole.account,
        r=[granted],
    )
    await eventually(lambda: link._presented != before)
    assert link_of(client) is link
    await whole.flow(client)


async def test_a_grant_that_is_not_taken_makes_no_link(client: Client) -> None:
    (grant,) = client._core.configuration.grants
    forged = msgspec.structs.replace(grant, token=grant.token[:-8] + "AAAAAAAA")
    client._core.configure(msgspec.structs.replace(client._core.configuration, grants=[forged]))
    with pytest.raises(LinkLost, match="refused the grant"):
        await link_of(client).present_grant()
    with pytest.raises(LinkLost):
        (route,) = client._core.routes(client.resources[0], client._clock.now())
        await client._link_set._open(route)


async def test_closing_leaves_no_socket(whole: Whole, client: Client) -> None:
    await warmed(link_of(client))
    mine = {pipe.sock.fileno() for pipe, _ in link_of(client)._warm._kept}
    assert mine
    before = descriptors()
    await client.aclose()
    await eventually(lambda: descriptors() < before)
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith(("link with", "client"))]


async def test_an_answer_to_no_grant_ends_the_link_and_is_not_kept(whole: Whole, client: Client) -> None:
    link = link_of(client)
    ((control, _),) = whole.connector._links._control.values()
    for _ in range(3):
        control.send_now(FrameType.CONTROL, link_control.encode(GrantAccepted(revision=1, expires_at_ms=1)))
    await eventually(lambda: not link.usable)
    assert link._answers.empty()


async def test_a_connector_that_is_connected_to_and_says_nothing_is_not_waited_for(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kernel still accepts: nobody sends a greeting."""
    monkeypatch.setattr(client_link, "GREETING_SECONDS", 0.1)
    link = link_of(client)
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        link._paths = [DirectPath([f"127.0.0.1:{hanging.getsockname()[1]}"])]
        link._warm._kept.clear()
        with pytest.raises(LinkLost):
            async with asyncio.timeout(10):
                await link._new_pipe()


@pytest.mark.parametrize("answer", [b"", b"\x06\x00", bytes(404)])
async def test_a_refusal_that_is_not_understood_is_a_lost_link(answer: bytes) -> None:
    ends = pipe_ends()
    destination = Destination("echo.internal", 80, TransportProtocol.TCP)
    asking = asyncio.ensure_future(ask(ends.client, destination, granted(1, "echo.internal")))
    assert (await ends.connector.receive()).type is FrameType.OPEN
    await ends.connector.send(FrameType.FAIL, answer)
    with pytest.raises(LinkLost):
        await asking
    ends.connector.abort()


@pytest.mark.parametrize("answer", [b"", b"\x06\x00", bytes(404)])
async def test_a_refusal_that_is_not_understood_ends_an_association(client: Client, answer: bytes) -> None:
    ends = pipe_ends()
    association = ClientDatagrams(granted(1, "echo.internal"), ends.client, link_of(client), lambda _: None)
    await ends.connector.send(FrameType.FAIL, answer)
    with pytest.raises(FlowRefused):
        await association.receive()
    association.close()
    ends.connector.abort()
