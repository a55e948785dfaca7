"""The connector's own listener: bounded before any proof, whatever comes."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from examples.deployment import free_port
from klinket.connector import config, listener
from klinket.connector.listener import DirectListener
from klinket.domain.errors import InvalidInput
from klinket.net.sockets import HostPort
from klinket.wire import pipe
from tests.eventually import eventually
from tests.unit.whole import Whole, everything


@pytest.fixture
async def whole(tmp_path: Path) -> AsyncIterator[Whole]:
    async with everything(tmp_path, listen=HostPort("127.0.0.1", free_port())) as made:
        yield made


def listening(whole: Whole) -> DirectListener:
    found = whole.connector._listener
    assert found is not None
    return found


def unproven(whole: Whole) -> int:
    return len(listening(whole)._unproven)


def dial(whole: Whole) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", listening(whole).port), timeout=5)
    sock.setblocking(False)
    return sock


async def test_it_greets_and_ends_whoever_says_something_else(whole: Whole) -> None:
    loop = asyncio.get_running_loop()
    rng = random.Random(7)
    for _ in range(30):
        with dial(whole) as sock:
            greeting = b""
            while len(greeting) < pipe.GREETING_BYTES:
                greeting += await loop.sock_recv(sock, 100)
            await loop.sock_sendall(sock, bytes([rng.choice((0, 1, 2, 0x16, 255))]) + os.urandom(rng.randrange(200)))
            sock.shutdown(socket.SHUT_WR)
            try:
                async with asyncio.timeout(5):
                    while await loop.sock_recv(sock, 4096):
                        pass
            except ConnectionResetError:
                pass
    await eventually(lambda: not listening(whole)._unproven)
    client = await whole.client()
    await (await whole.flow(client)).echo()


async def test_of_too_many_connections_of_one_address_the_oldest_gives_way(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "MAX_DIRECT_UNPROVEN_PER_SOURCE", 3)
    loop = asyncio.get_running_loop()
    held = []
    for _ in range(3):
        held.append(dial(whole))
        await loop.sock_recv(held[-1], 100)
    with dial(whole) as further:
        assert await loop.sock_recv(further, 100)  # greeted
        async with asyncio.timeout(5):
            assert await loop.sock_recv(held[0], 100) == b""
    for sock in held:
        sock.close()
    await eventually(lambda: not unproven(whole))


async def test_whoever_holds_the_most_gives_way_to_somebody_else(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener, "MAX_DIRECT_UNPROVEN", 3)
    loop = asyncio.get_running_loop()
    held = [dial(whole) for _ in range(3)]
    await eventually(lambda: unproven(whole) == 3)
    honest = socket.socket()
    honest.bind(("127.0.0.9", 0))
    honest.connect(("127.0.0.1", listening(whole).port))
    honest.setblocking(False)
    async with asyncio.timeout(5):
        assert await loop.sock_recv(honest, 100)
    assert [listening(whole)._unproven.of(one) for one in ("127.0.0.1", "127.0.0.9")] == [2, 1]
    for sock in (*held, honest):
        sock.close()


async def test_a_flow_does_not_count_any_more_and_pipes_that_wait_for_theirs_do(whole: Whole) -> None:
    client = await whole.client()
    flows = [await whole.flow(client) for _ in range(3)]
    (link,) = client._links.values()
    await eventually(lambda: unproven(whole) == len(link._warm) > 0)
    await asyncio.gather(*(flow.echo() for flow in flows))


async def test_one_that_is_told_to_stop_takes_nobody_in(whole: Whole) -> None:
    listening(whole).stop_accepting()
    with pytest.raises(ConnectionRefusedError):
        dial(whole)


async def test_a_listener_on_all_addresses_tells_those_of_its_family(whole: Whole) -> None:
    own = ["10.1.2.3", "2001:db8::5"]
    for host, told in (("0.0.0.0", ["10.1.2.3"]), ("::", own), ("127.0.0.1", ["127.0.0.1"])):
        made = DirectListener(HostPort(host, 0), (), whole.connector._links)
        assert made.addresses(own) == [str(HostPort(address, made.port)) for address in told]
        made._listener.close()
    given = DirectListener(HostPort("127.0.0.1", 0), (HostPort("c.example", 7443),), whole.connector._links)
    assert given.addresses(own) == ["c.example:7443"]
    given._listener.close()


async def test_an_address_that_is_taken_is_said(whole: Whole) -> None:
    with pytest.raises(InvalidInput, match="cannot listen"):
        DirectListener(HostPort("127.0.0.1", listening(whole).port), (), whole.connector._links)


def test_an_advertised_address_needs_a_listener() -> None:
    with pytest.raises(InvalidInput, match="without --listen"):
        config._advertised(None, [HostPort("c.example", 7443)])
