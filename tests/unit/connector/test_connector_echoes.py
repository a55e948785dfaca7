"""ICMP flows at a connector: real echoes of loopback, honest failures, bounds, and an end that nothing outlives."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from klinket.connector import echoes
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from klinket.net import echo_socket
from klinket.net.echo_socket import EchoSocket
from klinket.net.pacing import Lanes
from klinket.wire.echo import Echo
from klinket.wire.pipe import FrameType
from klinket.wire.pipe_messages import Failure
from tests.unit.connector.conftest import World
from tests.unit.connector.test_connector_flows import LOOPBACK, Served, served

__all__ = ["served"]
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(sys.platform != "linux" or os.geteuid() != 0, reason="needs root for a raw socket"),
]
PING = Destination("127.0.0.1", 0, TransportProtocol.ICMP)


@pytest.fixture
def pinging(served: Served, world: World) -> Served:
    """A server whose client may ping."""
    world.granted(replace(LOOPBACK, protocols=replace(LOOPBACK.protocols, allow_icmp=True)))
    return served


async def send(served: Served, echo: Echo) -> None:
    await served.ends.client.send(FrameType.DATAGRAM, echo.encode())


async def test_an_echo_comes_back_with_its_sequence_number_and_payload(pinging: Served) -> None:
    assert (await pinging.opened(PING)).address == "127.0.0.1"
    for echo in (Echo(1, b"abc"), Echo(65_535), Echo(2, os.urandom(9_000))):
        await send(pinging, echo)
        frame = await pinging.answer()
        assert (frame.type, Echo.decode(frame.content)) == (FrameType.DATAGRAM, echo)
    pinging.ends.client.abort()
    await pinging.over()
    closed = (await pinging.told())[-1]
    assert (closed.event, closed.protocol, closed.port, closed.host) == ("closed", "icmp", 0, "127.0.0.1")
    assert closed.bytes_from_client == closed.bytes_to_client == 9_009


async def test_a_resource_that_does_not_allow_it_refuses_it(served: Served) -> None:
    told = await served.failed(PING)
    assert (told.failure, told.message) == (FlowFailure.NOT_GRANTED, f"resource {LOOPBACK.name!r} does not open ICMP echo")
    assert [event.event for event in await served.told()] == ["denied"]


async def test_a_cut_ends_it_at_once(pinging: Served) -> None:
    await pinging.opened(PING)
    [told] = pinging.cut()
    assert (told.protocol, told.port) == ("icmp", 0)
    frame = await pinging.answer()
    assert (frame.type, Failure.decode(frame.content).failure) == (FrameType.FAIL, FlowFailure.SERVICE_KEY_REVOKED)
    await pinging.over()


async def test_a_cut_is_no_turn_for_the_echo_that_waits_for_its_bandwidth(
    pinging: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[Echo] = []

    async def send_on(self: EchoSocket, echo: Echo) -> None:
        sent.append(echo)

    monkeypatch.setattr(EchoSocket, "send", send_on)
    await pinging.opened(PING)
    ((flow, carrier),) = pinging.server.traffic.live()
    lanes = Lanes.of(100_000)
    carrier.pace(lanes)
    for number in range(2):  # the second one waits
        await send(pinging, Echo(number, bytes(40_000)))
    async with asyncio.timeout(5):
        while not lanes.from_clients.waits:
            await asyncio.sleep(0.01)
    assert [echo.sequence for echo in sent] == [0]
    pinging.cut()
    lanes.from_clients.set_rate(None)  # its turn, in the very moment of the cut
    await pinging.over()
    assert [echo.sequence for echo in sent] == [0], f"nothing of {flow.id} is released after its cut"


async def test_an_idle_flow_ends(pinging: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(echoes, "ECHO_IDLE_SECONDS", 0.2)
    await pinging.opened(PING)
    await pinging.over()


async def test_requests_above_the_rate_are_lost(pinging: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(echoes, "ECHO_BURST", 3)
    monkeypatch.setattr(echoes, "ECHOES_PER_SECOND", 0.01)
    await pinging.opened(PING)
    for number in range(10):
        await send(pinging, Echo(number))
    assert [Echo.decode((await pinging.answer()).content).sequence for _ in range(3)] == [0, 1, 2]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(pinging.ends.client.receive(), 0.3)


async def test_what_is_no_echo_ends_the_flow(pinging: Served) -> None:
    await pinging.opened(PING)
    await pinging.ends.client.send(FrameType.DATAGRAM, b"x")
    await pinging.over()


async def test_a_machine_that_allows_neither_kind_of_socket_says_so(pinging: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(family: int) -> tuple[socket.socket, int]:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(echo_socket, "_make", forbidden)
    told = await pinging.failed(PING)
    assert told.failure is FlowFailure.ICMP_UNAVAILABLE
    assert "ping_group_range" in told.message
    assert "CAP_NET_RAW" in told.message
    assert [event.event for event in await pinging.told()] == ["failed"]


@pytest.fixture
def two() -> Iterator[list[EchoSocket]]:
    made = [EchoSocket.open([(socket.AF_INET, ("127.0.0.1", 0))]) for _ in range(2)]
    yield made
    for sock in made:
        sock.close()


async def test_two_flows_to_one_address_do_not_see_each_others_replies(two: list[EchoSocket]) -> None:
    await two[0].send(Echo(1, b"first"))
    await two[1].send(Echo(2, b"second"))
    assert await two[1].receive() == Echo(2, b"second")
    assert await two[0].receive() == Echo(1, b"first")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(two[0].receive(), 0.1)
