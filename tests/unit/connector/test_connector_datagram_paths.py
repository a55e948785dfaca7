"""UDP flows between a client and a connector that it meets directly: everything there is, in one process."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from examples.deployment import free_port
from klinket.client.client import Client
from klinket.client.flow import ClientDatagrams
from klinket.client.link import ConnectorLink
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import Destination, FlowFailure
from klinket.net import datagram_path, segments
from klinket.net.sockets import HostPort
from tests.eventually import eventually
from tests.unit.whole import Whole, everything


@pytest.fixture
async def whole(tmp_path: Path) -> AsyncIterator[Whole]:
    async with everything(tmp_path, listen=HostPort("127.0.0.1", free_port())) as made:
        yield made


def link_of(client: Client) -> ConnectorLink:
    (link,) = client._links.values()
    return link


async def echo(flow: ClientDatagrams, content: bytes) -> None:
    async with asyncio.timeout(10):
        await flow.send(content)
        assert await flow.receive() == content


async def sealed(client: Client, target: Destination) -> ClientDatagrams:
    """Return a flow that has echoed, and whose datagrams go sealed by themselves in both directions."""
    flow = await client.open_datagrams(target)
    await echo(flow, b"begin")
    await eventually(lambda: link_of(client).datagrams.works)
    return flow


def frames_of(flow: ClientDatagrams, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Return the list of what goes out as a frame from now on."""
    framed: list[bytes] = []
    whole_send = flow._framed.__class__.send

    def send(self: object, datagram: bytes) -> None:
        framed.append(datagram)
        whole_send(self, datagram)  # type: ignore[arg-type]

    monkeypatch.setattr(flow._framed.__class__, "send", send)
    return framed


async def test_what_fits_goes_sealed_and_what_does_not_as_a_frame(
    whole: Whole, target: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await whole.client()
    flow = await sealed(client, target)
    paths = whole.connector._flows.paths
    (one,) = paths._by_receiver.values()
    await eventually(lambda: one.path.size > 1300)
    framed = frames_of(flow, monkeypatch)
    for content in (b"", b"x", bytes(1200)):
        await echo(flow, content)
    assert framed == []
    await echo(flow, bytes(60_000))
    assert len(framed) == 2, "there and back"
    flow.close()
    await eventually(lambda: not paths._flows.get(one.session))


async def test_a_way_that_is_lost_is_not_noticed(whole: Whole, target: Destination, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await whole.client()
    flow = await sealed(client, target)
    link_of(client).datagrams._given_up("a test says so")
    framed = frames_of(flow, monkeypatch)
    await eventually(lambda: not whole.connector._flows.paths._by_receiver)
    for number in range(5):
        await echo(flow, b"%d" % number)
    assert len(framed) == 10


async def test_a_revoked_key_ends_the_flow_at_once_and_the_path_with_it(whole: Whole, target: Destination) -> None:
    client = await whole.client()
    flow = await sealed(client, target)
    await whole.controller.revoke_key(whole.key)
    with pytest.raises(FlowRefused) as caught:
        async with asyncio.timeout(10):
            await flow.receive()
    assert caught.value.failure in (FlowFailure.SERVICE_KEY_REVOKED, FlowFailure.RESET)
    paths = whole.connector._flows.paths
    await eventually(lambda: not paths._by_receiver and not paths._flows)
    with pytest.raises(FlowRefused):
        await flow.send(b"late")


async def test_flows_keep_a_path_when_their_link_is_replaced(
    whole: Whole, target: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await whole.client()
    flow = await sealed(client, target)
    former = link_of(client)
    monkeypatch.setattr(ConnectorLink, "old", property(lambda self: self is former))
    (await client.open_datagrams(target)).close()
    await eventually(lambda: link_of(client) is not former and link_of(client).datagrams.works)
    framed = frames_of(flow, monkeypatch)
    await eventually(lambda: any(one.path.size > 1300 for one in whole.connector._flows.paths._by_receiver.values()))
    await echo(flow, b"on the new link's path")
    assert framed == []


async def test_a_connector_without_a_udp_port_says_so(whole: Whole, target: Destination) -> None:
    whole.connector._flows.paths.close()
    client = await whole.client()
    flow = await client.open_datagrams(target)
    link_of(client).relay_paths = list
    await echo(flow, b"framed")
    await eventually(lambda: link_of(client).datagrams._direct.again_at > 0)
    assert not link_of(client).datagrams.works
    await echo(flow, b"framed")


async def test_a_port_that_is_taken_is_no_reason_not_to_serve(tmp_path: Path, target: Destination) -> None:
    port = free_port()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", port))
        async with everything(tmp_path, listen=HostPort("127.0.0.1", port)) as whole:
            flow = await (await whole.client()).open_datagrams(target)
            await echo(flow, b"framed")


@pytest.mark.skipif(not segments.SUPPORTED, reason="no UDP_SEGMENT here")
@pytest.mark.parametrize("refusal", [0, errno.EINVAL, errno.EIO, errno.EMSGSIZE, errno.ECONNREFUSED])
async def test_what_comes_together_reaches_the_resource_one_by_one_and_in_order(
    whole: Whole, target: Destination, monkeypatch: pytest.MonkeyPatch, refusal: int
) -> None:
    """Where the kernel takes none together towards the resource, too."""
    flow = await sealed(await whole.client(), target)
    together: list[int] = []
    send = segments.send

    def watched(sock: socket.socket, datagrams: bytes | memoryview, size: int, to: object) -> None:
        if to is None and sock.getpeername()[1] == target.port:
            together.append(-(-len(datagrams) // size))
            if refusal:
                raise OSError(refusal, "not here")
        send(sock, datagrams, size, to)

    monkeypatch.setattr(segments, "send", watched)
    contents = [bytes((number,)) * 1_000 for number in range(7)] + [b"shorter"]
    for _ in range(2):
        datagram_path.gather()
        for content in contents:
            flow.put(content)
        datagram_path.leave_all()
        async with asyncio.timeout(10):
            assert [await flow.receive() for _ in contents] == contents
    assert together == [8] * (2 if refusal in (0, errno.ECONNREFUSED) else 1), "an interface that takes none is asked once"
