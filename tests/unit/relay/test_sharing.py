"""Pairs that a relay's workers move are what they were before, and their places are counted where they were."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import time
from collections.abc import AsyncIterator

import pytest
import uvloop

from klinket.net import sockets, workers
from klinket.net.splice import KernelPipes, Pair
from klinket.relay import sharing
from klinket.relay.limits import RelayLimits
from klinket.relay.sharing import PairSharing
from tests.eventually import eventually
from tests.unit.net.conftest import tcp_pair
from tests.unit.net.test_pump import reset_is_seen

pytestmark = pytest.mark.skipif(not workers.there_are(), reason="no worker processes on this system")
MEBIBYTE = 1 << 20


@pytest.fixture
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy()


@pytest.fixture
async def shared() -> AsyncIterator[PairSharing]:
    made = PairSharing(2, RelayLimits())
    deadline = time.monotonic() + 20
    while not any(worker.ready for worker in made.pool._workers):
        assert time.monotonic() < deadline
        made.pool._choose(busy=True)
        await asyncio.sleep(0.02)
    yield made
    made.close()


class Joined:
    """client <-> pair <-> connector."""

    def __init__(self) -> None:
        self.client, one = tcp_pair()
        self.connector, two = tcp_pair()
        self.ended = 0
        self.pair = Pair(one, two, KernelPipes(), self._end)
        self.pair.start()

    def _end(self, _: Pair) -> None:
        self.ended += 1

    async def passes(self) -> None:
        loop = asyncio.get_running_loop()
        for here, there in ((self.client, self.connector), (self.connector, self.client)):
            await loop.sock_sendall(here, b"x")
            assert await asyncio.wait_for(loop.sock_recv(there, 1), 5) == b"x"

    async def over(self) -> None:
        deadline = time.monotonic() + 10
        while not self.ended:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        assert self.ended == 1

    def close(self) -> None:
        self.client.close()
        self.connector.close()


async def given(shared: PairSharing, joined: Joined) -> None:
    """The pair is at a worker; bytes may be in flight for a moment."""
    deadline = time.monotonic() + 20
    while not shared.given:
        assert time.monotonic() < deadline
        assert shared.give(joined.pair)
        await asyncio.sleep(0.002)


async def digest(sock: socket.socket) -> str:
    loop, found = asyncio.get_running_loop(), hashlib.sha256()
    while data := await loop.sock_recv(sock, MEBIBYTE):
        found.update(data)
    return found.hexdigest()


async def test_a_pair_that_moves_while_it_is_busy_loses_nothing_and_passes_each_end_on(shared: PairSharing) -> None:
    joined, loop = Joined(), asyncio.get_running_loop()
    content = os.urandom(32 * MEBIBYTE)

    async def send() -> None:
        for start in range(0, len(content), MEBIBYTE):
            if start == len(content) // 2:
                await eventually(lambda: shared.given)
            await loop.sock_sendall(joined.client, content[start : start + MEBIBYTE])
            await asyncio.sleep(0.002)
        joined.client.shutdown(socket.SHUT_WR)

    async with asyncio.timeout(60):
        _, found, _ = await asyncio.gather(send(), digest(joined.connector), given(shared, joined))
    assert found == hashlib.sha256(content).hexdigest()
    await loop.sock_sendall(joined.connector, b"the answer after the question has ended")
    assert await loop.sock_recv(joined.client, 100) == b"the answer after the question has ended"
    joined.connector.close()
    assert await loop.sock_recv(joined.client, 100) == b""
    await joined.over()
    assert shared.given == 0
    joined.close()


async def test_a_half_closed_pair_moves_as_such(shared: PairSharing) -> None:
    joined, loop = Joined(), asyncio.get_running_loop()
    await joined.passes()
    joined.client.shutdown(socket.SHUT_WR)
    assert await loop.sock_recv(joined.connector, 1) == b""
    await given(shared, joined)
    await loop.sock_sendall(joined.connector, b"answer")
    assert await asyncio.wait_for(loop.sock_recv(joined.client, 100), 5) == b"answer"
    joined.connector.shutdown(socket.SHUT_WR)
    assert await asyncio.wait_for(loop.sock_recv(joined.client, 100), 5) == b""
    await joined.over()
    joined.close()


@pytest.mark.parametrize("which", ["client", "connector"])
async def test_a_reset_is_passed_on_by_a_worker(shared: PairSharing, which: str) -> None:
    joined = Joined()
    await given(shared, joined)
    await joined.passes()
    here, there = (joined.client, joined.connector) if which == "client" else (joined.connector, joined.client)
    sockets.reset(here)
    assert await reset_is_seen(there)
    await joined.over()
    joined.close()


async def test_a_worker_passes_a_reset_on_though_the_other_side_reads_nothing(shared: PairSharing) -> None:
    joined = Joined()
    await given(shared, joined)
    sending = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(joined.client, bytes(64 * MEBIBYTE)))
    await asyncio.sleep(0.5)
    assert not sending.done(), "every buffer on the way is full"
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    sockets.reset(joined.client)
    await joined.over()
    with pytest.raises(ConnectionResetError):
        await digest(joined.connector)
    joined.close()


async def test_a_worker_that_dies_resets_its_pairs_and_their_places_are_free(shared: PairSharing) -> None:
    joined = Joined()
    await given(shared, joined)
    await joined.passes()
    for worker in shared.pool._workers:
        worker.process.kill()
    assert await reset_is_seen(joined.client)
    assert await reset_is_seen(joined.connector)
    await joined.over()
    assert shared.given == 0
    joined.close()


async def test_what_moves_much_is_given_away_and_so_are_the_oldest_of_very_many(
    shared: PairSharing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "MUCH_BYTES", 1000)
    shared.kept = 2
    pairs = [Joined() for _ in range(5)]
    loop = asyncio.get_running_loop()
    for joined in pairs:
        shared.attend(joined.pair)
    await loop.sock_sendall(pairs[4].client, bytes(2000))
    assert len(await loop.sock_recv(pairs[4].connector, 4000)) == 2000
    deadline = time.monotonic() + 10
    while shared.given < 3:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    await asyncio.sleep(2 * workers.LOOK_SECONDS)
    assert [joined.pair.over for joined in pairs] == [True, True, False, False, True]
    for joined in pairs:
        await joined.passes()
        joined.close()


async def test_what_a_pair_has_received_is_known_here_while_a_worker_has_it_and_after(
    shared: PairSharing,
) -> None:
    joined = Joined()
    await joined.passes()
    assert shared.give(joined.pair)
    assert joined.pair.received() == (1, 1)
    await joined.passes()
    async with asyncio.timeout(20):  # its worker says it every few seconds
        while joined.pair.received() != (2, 2):
            await asyncio.sleep(0.05)
    await joined.passes()
    sockets.reset(joined.client)
    async with asyncio.timeout(20):
        while not joined.ended:
            await asyncio.sleep(0.02)
    assert joined.pair.received() == (3, 3)
    joined.connector.close()


def test_what_a_worker_says_in_another_form_counts_nothing() -> None:
    assert sharing.pair_worker.decode_received(b"") is None
    assert sharing.pair_worker.decode_received(bytes(17)) is None
    assert sharing.pair_worker.decode_received(bytes(15) + b"\x07") == (0, 7)
