"""UDP flows between a client and a connector that meet at a relay only: everything there is, in one process."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from examples.deployment import free_port
from klinket.client import datagram_way, sealed_datagrams
from klinket.client.client import Client
from klinket.client.link import ConnectorLink
from klinket.connector import links as connector_links
from klinket.domain.flow import Destination
from klinket.net import relay_binding, relay_path
from klinket.net.sockets import HostPort
from klinket.relay import certificate, serve
from klinket.relay.datagram_port import DatagramPort
from klinket.relay.forwarding import DatagramForwarding
from klinket.wire.link_control import ASK_NAME, GrantAccepted
from klinket.wire.relay import ADMISSION_PROTOCOL
from tests.unit.connector.test_connector_datagram_paths import echo, frames_of, link_of, sealed
from tests.unit.whole import Whole, eventually, everything


class WatchedPort(DatagramPort):
    """A relay's UDP port that keeps what it has seen. `blocked`: it is as if a firewall were before it."""

    def __init__(self, forwarding: DatagramForwarding) -> None:
        super().__init__(forwarding)
        self.seen: list[bytes] = []
        self.blocked = False
        self.most = 65_535

    def _received(self, sock: socket.socket, datagrams: memoryview, size: int, address: Any) -> None:
        if not self.blocked and size <= self.most:
            self.seen.append(bytes(datagrams))
            super()._received(sock, datagrams, size, address)


@pytest.fixture
def ports(monkeypatch: pytest.MonkeyPatch) -> list[WatchedPort]:
    """The UDP ports of relays that are started from now on."""
    made: list[WatchedPort] = []

    def make(forwarding: DatagramForwarding) -> WatchedPort:
        made.append(WatchedPort(forwarding))
        return made[-1]

    monkeypatch.setattr(serve, "DatagramPort", make)
    return made


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed_datagrams, "TICK_SECONDS", 0.05)
    monkeypatch.setattr(sealed_datagrams, "AGAIN_SECONDS", 0.2)


@pytest.fixture
async def whole(tmp_path: Path, ports: list[WatchedPort]) -> AsyncIterator[Whole]:
    async with everything(tmp_path) as made:
        yield made


async def framed_only(client: Client, target: Destination) -> None:
    """See that a flow works, and that no path comes about for it."""
    flow = await client.open_datagrams(target)
    for _ in range(10):
        await echo(flow, b"framed")
        await asyncio.sleep(0.05)
    assert not link_of(client).datagrams.works


async def test_what_fits_goes_sealed_over_the_relay_which_sees_no_content(
    whole: Whole, ports: list[WatchedPort], target: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await whole.client()
    flow = await sealed(client, target)
    assert link_of(client).datagrams.relayed
    (one,) = whole.connector._flows.paths._by_receiver.values()
    await eventually(lambda: one.path.size > 1300)
    framed, counts = frames_of(flow, monkeypatch), ports[0]._counts
    before = counts.datagrams_from_clients, counts.datagrams_from_connectors
    for content in (b"", b"a content nobody else may read", bytes(1200)):
        await echo(flow, content)
    assert framed == []
    assert counts.datagrams_from_clients - before[0] >= 3
    assert counts.datagrams_from_connectors - before[1] >= 3
    assert not any(b"nobody else may read" in data for data in ports[0].seen)
    await echo(flow, bytes(60_000))
    assert len(framed) == 2, "what does not fit, there and back"


async def test_a_relay_without_a_udp_port_leaves_datagrams_to_frames(
    tmp_path: Path, target: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DatagramPort, "listen", lambda self, host, port: False)
    async with everything(tmp_path) as whole:
        client = await whole.client()
        await framed_only(client, target)
        assert not link_of(client).datagrams._ways[1].where()


async def test_a_relay_of_the_first_version_leaves_datagrams_to_frames(
    tmp_path: Path, ports: list[WatchedPort], target: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(certificate, "ADMISSION_PROTOCOLS", (ADMISSION_PROTOCOL,))
    async with everything(tmp_path) as whole:
        await framed_only(await whole.client(), target)
        assert ports[0].seen == []


async def test_peers_of_the_first_version_are_admitted_as_ever(
    tmp_path: Path, ports: list[WatchedPort], target: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_path, "ADMISSION_PROTOCOLS", (ADMISSION_PROTOCOL,))
    async with everything(tmp_path) as whole:
        await framed_only(await whole.client(), target)
        assert ports[0].seen == []


async def test_a_connector_that_does_not_name_it_is_not_asked(
    whole: Whole, ports: list[WatchedPort], target: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = connector_links.GrantAccepted

    def former(*, features: list[str], **rest: Any) -> GrantAccepted:
        return accepted(features=[ASK_NAME], **rest)

    monkeypatch.setattr(connector_links, "GrantAccepted", former)
    await framed_only(await whole.client(), target)
    assert ports[0].seen == []
    assert not whole.connector._links._datagrams


async def test_a_way_that_is_blocked_later_falls_to_frames_and_comes_back(
    whole: Whole, ports: list[WatchedPort], target: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await whole.client()
    flow = await sealed(client, target)
    ports[0].blocked = True
    framed = frames_of(flow, monkeypatch)
    await flow.send(b"lost, as datagrams are")
    await eventually(lambda: not link_of(client).datagrams.works)
    await eventually(lambda: not whole.connector._flows.paths._by_receiver)
    await echo(flow, b"framed")
    assert len(framed) >= 2
    ports[0].blocked = False
    await eventually(lambda: link_of(client).datagrams.works)
    framed.clear()
    await eventually(lambda: any(one.path.size for one in whole.connector._flows.paths._by_receiver.values()))
    await echo(flow, b"sealed again")
    assert framed == []


async def test_where_the_udp_port_is_blocked_from_the_beginning_the_connector_says_so(
    whole: Whole, ports: list[WatchedPort], target: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    from klinket.connector import datagram_paths

    monkeypatch.setattr(datagram_paths, "BIND_SECONDS", 0.2)
    monkeypatch.setattr(datagram_paths, "BINDING_LOOK_SECONDS", 0.1)
    ports[0].blocked = True
    client = await whole.client()
    flow = await client.open_datagrams(target)
    await echo(flow, b"framed")
    relayed = link_of(client).datagrams._ways[1]
    await eventually(lambda: relayed.again_at > 0)
    await echo(flow, b"framed")
    await eventually(lambda: not whole.connector._links._datagrams and not whole.connector._flows.paths._by_receiver)


async def test_a_connector_that_never_answers_on_the_pipe_is_not_waited_for(
    whole: Whole, target: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datagram_way, "ANSWER_SECONDS", 0.2)
    asked: list[object] = []
    monkeypatch.setattr(whole.connector._flows.paths, "open_relayed", lambda *given: asked.append(given))
    client = await whole.client()
    flow = await client.open_datagrams(target)
    await echo(flow, b"framed")
    relayed = link_of(client).datagrams._ways[1]
    await eventually(lambda: asked)
    await eventually(lambda: relayed.again_at > 0)
    await eventually(lambda: not whole.connector._links._datagrams)
    await echo(flow, b"framed")


async def test_the_way_ends_at_all_parts_when_its_pair_does(
    whole: Whole, ports: list[WatchedPort], target: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealed_datagrams, "AGAIN_SECONDS", 60.0)
    client = await whole.client()
    flow = await sealed(client, target)
    (pipe,) = whole.connector._links._datagrams.values()
    assert len(ports[0]._senders) == 2
    pipe.abort()
    await eventually(lambda: not link_of(client).datagrams.works)
    await eventually(lambda: not ports[0]._senders and not whole.connector._flows.paths._by_receiver)
    await echo(flow, b"framed")


async def test_a_revoked_key_ends_the_way_at_all_parts(whole: Whole, ports: list[WatchedPort], target: Destination) -> None:
    client = await whole.client()
    await sealed(client, target)
    await whole.controller.revoke_key(whole.key)
    await eventually(lambda: not ports[0]._senders)
    await eventually(lambda: not whole.connector._flows.paths._by_receiver and not whole.connector._links._datagrams)


async def test_flows_keep_a_way_when_their_link_is_replaced(
    whole: Whole, target: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await whole.client()
    flow = await sealed(client, target)
    former = link_of(client)
    monkeypatch.setattr(ConnectorLink, "old", property(lambda self: self is former))
    (await client.open_datagrams(target)).close()
    await eventually(lambda: link_of(client) is not former and link_of(client).datagrams.works)
    await eventually(lambda: any(one.path.size for one in whole.connector._flows.paths._by_receiver.values()))
    framed = frames_of(flow, monkeypatch)
    await echo(flow, b"on the new link's path")
    assert framed == []
    await eventually(lambda: len(whole.connector._links._datagrams) == 1)


async def test_bindings_are_refreshed_while_they_are_used(
    whole: Whole, ports: list[WatchedPort], target: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    from klinket.connector import datagram_paths

    monkeypatch.setattr(relay_binding, "REFRESH_SECONDS", 0.1)
    monkeypatch.setattr(datagram_paths, "BINDING_LOOK_SECONDS", 0.05)
    client = await whole.client()
    await sealed(client, target)
    until = {end: end.until for end in ports[0]._senders.values()}
    assert len(until) == 2
    await eventually(lambda: all(end.until > before for end, before in until.items()))
    assert set(ports[0]._senders.values()) == until.keys()


async def test_where_the_direct_way_drops_datagrams_they_take_the_relay_and_move_up_when_it_works(
    tmp_path: Path, ports: list[WatchedPort], target: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealed_datagrams, "AGAIN_SECONDS", 30.0)  # the direct way is tried again when this test says so
    where = ConnectorLink._where
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hole:
        hole.bind(("127.0.0.1", 0))
        monkeypatch.setattr(ConnectorLink, "_where", lambda self: where(self) and (socket.AF_INET, hole.getsockname()))
        async with everything(tmp_path, listen=HostPort("127.0.0.1", free_port())) as whole:
            client = await whole.client()
            flow = await client.open_datagrams(target)
            await echo(flow, b"framed")
            assert link_of(client).direct
            await eventually(lambda: link_of(client).datagrams.works)
            datagrams = link_of(client).datagrams
            assert datagrams.relayed
            framed = frames_of(flow, monkeypatch)
            datagrams._direct.again_at = float("inf")
            (one,) = whole.connector._flows.paths._by_receiver.values()
            await eventually(lambda: one.path.size > 0)
            await echo(flow, b"over the relay")
            assert framed == []
            monkeypatch.setattr(datagrams._direct, "where", lambda: where(link_of(client)))
            datagrams._direct.again_at = 0.0
            await eventually(lambda: datagrams.works and not datagrams.relayed)
            await eventually(lambda: not ports[0]._senders and not whole.connector._links._datagrams)
            await eventually(lambda: any(one.path.size for one in whole.connector._flows.paths._by_receiver.values()))
            framed.clear()
            await echo(flow, b"directly")
            assert framed == []


async def test_a_link_behind_the_relay_that_carries_less_than_before_is_noticed(
    whole: Whole, ports: list[WatchedPort], target: Destination, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await whole.client()
    flow = await sealed(client, target)
    path = link_of(client).datagrams._path
    assert path is not None
    await eventually(lambda: path.size > 8000)
    monkeypatch.setattr(sealed_datagrams, "KEEPALIVE_SECONDS", 0.3)
    ports[0].most = 1452

    async def short_ones() -> None:
        while True:
            await echo(flow, b"short")
            await asyncio.sleep(0.01)

    going = asyncio.ensure_future(short_ones())
    await eventually(lambda: path.size == 1452)
    going.cancel()
    await asyncio.gather(going, return_exceptions=True)
    assert link_of(client).datagrams._path is path, "what is short went on"
