"""Punched holes with all four parts: new flows leave the relay, the handshake stays, relays serve where the stock is empty."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from klinket.client import linking
from klinket.client import punching as client_punching
from klinket.client.client import Client
from klinket.client.link import ConnectorLink
from klinket.client.punching import PunchedPath, Puncher
from klinket.connector import punching as connector_punching
from klinket.connector.punching import ConnectorPunching
from klinket.controller import punching as controller_punching
from klinket.net import punching
from klinket.net.channel import controller_context
from klinket.net.direct_path import DirectUnavailable
from klinket.wire.control import Message, PunchInvitation, PunchRefused, PunchStart
from tests.eventually import eventually
from tests.unit.net.conftest import tcp_pair
from tests.unit.whole import Whole, everything


@pytest.fixture
def near(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let peers of one machine meet, without a NAT in between, and soon."""
    monkeypatch.setattr(controller_punching, "_objection", lambda seen, own_host: None)
    monkeypatch.setattr(controller_punching, "objection", lambda own, other: None)
    monkeypatch.setattr(punching, "objection", lambda own, other: None)
    monkeypatch.setattr(linking, "PUNCH_AFTER_SECONDS", 0.0)
    monkeypatch.setattr(client_punching, "AGAIN_SECONDS", 0.2)


@pytest.fixture
async def whole(near: None, tmp_path: Path) -> AsyncIterator[Whole]:
    async with everything(tmp_path) as made:
        yield made


def link_of(client: Client) -> ConnectorLink:
    (found,) = client._links.values()
    return found


def path_of(client: Client) -> PunchedPath:
    (found,) = client.linker.puncher._paths.values()
    return found


def punching_of(whole: Whole) -> ConnectorPunching:
    found = whole.connector._punching
    assert found is not None
    return found


async def punched(whole: Whole) -> Client:
    """Return a client whose link goes through holes."""
    client = await whole.client()
    async with asyncio.timeout(30):
        while not link_of(client).direct:
            await (await whole.flow(client)).echo()
            await asyncio.sleep(0.1)
    return client


async def test_new_flows_take_punched_holes_with_the_same_handshake(whole: Whole) -> None:
    client = await whole.client()
    before = await whole.flow(client)
    assert not link_of(client).direct
    client = await punched(whole)
    link = link_of(client)
    assert link.punched is not None
    assert link.relays != []
    flows = [await whole.flow(client) for _ in range(5)]
    for flow in (*flows, before):
        await flow.echo()
    pipe = await link.pipe()
    assert pipe.sock.getpeername()[1] != whole.relay_port
    pipe.abort()


async def test_where_the_stock_is_empty_the_relay_serves_at_once(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await punched(whole)
    path_of(client).drop()
    path_of(client)._again_at = float("inf")
    link_of(client)._warm._kept.clear()
    pipe = await link_of(client)._new_pipe()
    assert pipe.sock.getpeername()[1] == whole.relay_port
    pipe.abort()
    await (await whole.flow(client)).echo()


async def test_the_stock_is_filled_again_before_it_is_empty(whole: Whole) -> None:
    client = await punched(whole)
    path = path_of(client)
    path._again_at = 0.0
    while len(path) >= client_punching.LOW_STOCK:
        path._stock.pop()[0].close()
    (await path.connect(1)).close()
    assert path.meeting
    await eventually(lambda: len(path) > client_punching.LOW_STOCK)


async def test_a_link_through_holes_that_broke_is_followed_by_a_relayed_one(whole: Whole) -> None:
    client = await punched(whole)
    link = link_of(client)
    path_of(client)._failures = 10  # not again within this test
    assert link._control is not None
    link._control.abort()
    await eventually(lambda: not link.usable)
    await client._link_set.lost(link)
    assert len(path_of(client)) == 0
    await (await whole.flow(client)).echo()
    assert not link_of(client).direct


async def test_a_link_is_renewed_over_the_stock_and_over_relays_where_that_is_dead(whole: Whole) -> None:
    client = await punched(whole)
    path = path_of(client)
    await eventually(lambda: not path.meeting)
    (route,) = client.core.routes(client.resources[0], client.now())
    renewed = await client.linker.open(route, client._link_initiator())
    assert renewed.punched is path
    await renewed.aclose()
    path.drop()
    ours, theirs = tcp_pair()
    path._stock.append((ours, path._monotonic()))  # looks alive, and whoever is there ends every handshake
    ended = asyncio.ensure_future(_end_at_first_byte(theirs))
    relayed = await client.linker.open(route, client._link_initiator())
    await ended
    assert not relayed.direct
    await relayed.aclose()


async def _end_at_first_byte(sock: socket.socket) -> None:
    await asyncio.get_running_loop().sock_recv(sock, 1)
    sock.close()


async def test_another_connector_behind_a_hole_is_not_believed(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    client = await whole.client()
    real = client.linker.puncher._meet

    async def meet(connector: int) -> list[socket.socket]:
        found = await real(connector)
        for sock in found:
            sock.close()
        return [impostor() for _ in found]

    def impostor() -> socket.socket:
        ours, theirs = tcp_pair()
        theirs.send(b"\x01" + bytes(32))
        made.append(theirs)
        return ours

    made: list[socket.socket] = []
    monkeypatch.setattr(client.linker.puncher, "_meet", meet)
    for _ in range(20):
        await (await whole.flow(client)).echo()
        assert not link_of(client).direct
        await asyncio.sleep(0.05)
    await eventually(lambda: made)
    hellos = [sock.recv(1) for sock in made if _has_data(sock)]
    assert set(hellos) == {b"\x16"}  # a TLS handshake and nothing else was ever said to them
    for sock in made:
        sock.close()


def _has_data(sock: socket.socket) -> bool:
    try:
        return bool(sock.recv(1, socket.MSG_PEEK))
    except OSError:
        return False


async def test_connections_that_wait_at_a_connector_are_bounded_and_end_with_it(
    whole: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector_punching, "MAX_PUNCHED_PER_SOURCE", 3)
    its = punching_of(whole)
    pairs = [tcp_pair() for _ in range(5)]
    for ours, _ in pairs:
        its._came(ours)
    assert len(its._waiting) == 3
    await eventually(lambda: [ours.fileno() for ours, _ in pairs[:2]] == [-1, -1])
    its.end_waiting()
    await eventually(lambda: not its._waiting)
    for _, theirs in pairs:
        theirs.close()


async def test_meetings_at_a_connector_are_bounded(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector_punching, "MAX_PUNCHES", 2)
    its = punching_of(whole)
    for number in range(5):
        its.told(PunchInvitation(id=str(number), token="nobody was given it", connector=1))
    assert len(its._meetings) == 2
    await eventually(lambda: not its._meetings)
    its.told(PunchStart(id="unknown", peers=["8.8.8.8:40000"]))


@pytest.mark.parametrize("side", ["client", "connector"])
async def test_each_side_can_turn_it_off(near: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: str) -> None:
    if side == "client":
        monkeypatch.setenv(client_punching.VARIABLE, "1")
    settings: dict[str, Any] = {"hole_punching": False} if side == "connector" else {}
    async with everything(tmp_path, **settings) as whole:
        client = await whole.client()
        await (await whole.flow(client)).echo()
        (entry,) = client.core.configuration.connectors
        assert entry.punches is (side == "client")
        assert client.linker.puncher.path(entry.id, entry.punches) is None
        await (await whole.flow(client)).echo()
        assert not link_of(client).direct


async def test_on_one_machine_the_controller_refuses_and_the_relay_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linking, "PUNCH_AFTER_SECONDS", 0.0)
    async with everything(tmp_path) as whole:
        client = await whole.client()
        await (await whole.flow(client)).echo()
        await (await whole.flow(client)).echo()
        await eventually(lambda: path_of(client)._failures)
        await (await whole.flow(client)).echo()
        assert not link_of(client).direct
        assert not path_of(client).worth_trying


# ---- the stock and the meetings by themselves


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_connection_that_ended_or_is_old_is_not_handed_out() -> None:
    clock = Clock()
    pairs = [tcp_pair() for _ in range(4)]
    for _, theirs in pairs:
        theirs.send(b"\x01" + bytes(32))

    async def refill(_: PunchedPath) -> list[socket.socket]:
        return [ours for ours, _ in pairs]

    path = PunchedPath(refill, lambda _: None, clock)
    await path.fill()
    pairs[3][1].close()
    assert await path.connect(1) is pairs[2][0]
    assert pairs[3][0].fileno() == -1
    clock.now = client_punching.STOCK_SECONDS
    with pytest.raises(DirectUnavailable):
        await path.connect(1)
    assert len(path) == 0
    for pair in pairs:
        for sock in pair:
            sock.close()


async def test_after_a_failure_it_is_tried_again_later_and_later() -> None:
    clock = Clock()

    async def refill(_: PunchedPath) -> list[socket.socket]:
        raise DirectUnavailable("nobody")

    path = PunchedPath(refill, lambda _: None, clock)
    waits = []
    for _ in range(9):
        assert path.worth_trying
        with pytest.raises(DirectUnavailable):
            await path.fill()
        waits.append(path._again_at - clock.now)
        clock.now = path._again_at
    assert waits[:3] == [60.0, 120.0, 240.0]
    assert waits[-1] == client_punching.MOST_AGAIN_SECONDS


async def test_a_refusal_says_why_and_words_nobody_waits_for_are_dropped() -> None:
    said: list[Message] = []

    async def send(message: Message) -> bool:
        said.append(message)
        return True

    puncher = Puncher("https://127.0.0.1:1", controller_context(None), send)
    for word in (
        PunchInvitation(id="x", token="t", connector=7),
        PunchStart(id="x", peers=[]),
        PunchRefused(connector=7, message=""),
    ):
        puncher.told(word)
    path = puncher.path(7, True)
    assert path is not None
    filling = asyncio.ensure_future(path.fill())
    await eventually(lambda: said)
    puncher.told(PunchRefused(connector=8, message="another"))
    puncher.told(PunchRefused(connector=7, message="turned off"))
    with pytest.raises(DirectUnavailable, match="turned off"):
        await filling
    assert (puncher._told, puncher._meetings) == ({}, {})
    await puncher.aclose()
