"""Connections between the local ports of two sides: awaited endpoints only, a greeting only, nothing left behind."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from klinket.domain.errors import InvalidInput
from klinket.domain.punch import Endpoint
from klinket.net import punching
from klinket.net.punching import LocalPort, LocalPorts, _bound


class Reflecting:
    """In place of the connection to the controller."""

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


def ports(count: int = 2, family: int = socket.AF_INET) -> LocalPorts:
    """Return local ports of loopback, where no NAT is in between."""
    host = "127.0.0.1" if family == socket.AF_INET else "[::1]"
    made = []
    for _ in range(count):
        with _bound(family, 0) as probe:
            port = probe.getsockname()[1]
        connection: Any = Reflecting()
        made.append(LocalPort(family, port, Endpoint.parse(f"{host}:{port}"), connection))
    return LocalPorts(made)


def endpoints(side: LocalPorts) -> list[Endpoint]:
    return [one.seen for one in side._ports]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(punching, "ROUND_SECONDS", 0.2)
    monkeypatch.setattr(punching, "LEAD_SECONDS", 0.05)


@pytest.fixture
def held() -> Iterator[list[socket.socket]]:
    made: list[socket.socket] = []
    yield made
    for sock in made:
        sock.close()


def greeted(sock: socket.socket) -> bool:
    return sock.recv(1, socket.MSG_PEEK) == b"\x01"


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
async def test_every_port_meets_every_endpoint(held: list[socket.socket], family: int) -> None:
    client, connector = ports(2, family), ports(2, family)

    def came(sock: socket.socket) -> None:
        sock.send(b"\x01")
        held.append(sock)

    accepting = asyncio.ensure_future(connector.accept(endpoints(client), came))
    made = await client.connect(endpoints(connector), greeted)
    await accepting
    held += made
    assert len(made) == 4
    assert len({(sock.getsockname(), sock.getpeername()) for sock in made}) == 4


async def test_who_is_not_awaited_is_reset(held: list[socket.socket]) -> None:
    client, connector, stranger = ports(1), ports(1), ports(1)
    accepting = asyncio.ensure_future(connector.accept(endpoints(client), held.append))
    assert await stranger.connect(endpoints(connector), greeted) == []
    await accepting
    assert held == []


async def test_connections_without_a_greeting_are_not_kept(held: list[socket.socket]) -> None:
    client, connector = ports(1), ports(1)

    def came(sock: socket.socket) -> None:
        sock.send(b"SSH-2.0-\r\n")
        held.append(sock)

    accepting = asyncio.ensure_future(connector.accept(endpoints(client), came))
    assert await client.connect(endpoints(connector), greeted) == []
    await accepting


async def test_the_ports_are_free_when_it_is_over(held: list[socket.socket]) -> None:
    connector = ports(2)
    await connector.accept(endpoints(ports(1)), held.append)
    for endpoint in endpoints(connector):
        with socket.socket() as other, pytest.raises(ConnectionRefusedError):
            other.connect((str(endpoint.host), endpoint.port))
    connector.close()
    assert all(one.connection.closed for one in connector._ports)  # type: ignore[attr-defined]


async def test_cancelling_ends_listening_at_once(held: list[socket.socket]) -> None:
    connector = ports(1)
    accepting = asyncio.ensure_future(connector.accept(endpoints(ports(1)), held.append))
    await asyncio.sleep(0.05)
    accepting.cancel()
    await asyncio.gather(accepting, return_exceptions=True)
    with socket.socket() as other, pytest.raises(ConnectionRefusedError):
        other.connect(("127.0.0.1", endpoints(connector)[0].port))


@pytest.mark.parametrize("told", ["8.8.8.8:22", "127.0.0.2:40000", "169.254.169.254:40000", "db.internal:40000", ""])
def test_what_may_not_be_dialled_is_refused_whatever_the_controller_says(told: str) -> None:
    side = ports(1)
    with pytest.raises(InvalidInput):
        side.dialled(["8.8.8.8:40000", told])


def test_more_endpoints_than_there_are_ports_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    side = ports(1)
    assert len(side.dialled([f"8.8.8.8:{port}" for port in range(2_000, 2_100)])) == 4
