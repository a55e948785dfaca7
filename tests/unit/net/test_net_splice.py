"""Two sockets joined in the kernel: every byte once, ends as ends, resets as resets, no descriptor left."""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
from collections.abc import Iterator

import pytest
import uvloop

from klinket.net import sockets, splice
from klinket.net.poll import poll
from klinket.net.splice import KernelPipes, Pair
from tests.unit.connector.test_connector_dial import descriptors
from tests.unit.net.conftest import tcp_pair

MEBIBYTE = 1 << 20


@pytest.fixture(params=["uvloop", "asyncio"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    return uvloop.EventLoopPolicy() if request.param == "uvloop" else asyncio.DefaultEventLoopPolicy()


class Joined:
    """left <-> (a Pair) <-> right."""

    def __init__(self) -> None:
        self.left, one = tcp_pair()
        self.right, two = tcp_pair()
        self.pipes = KernelPipes()
        self.ended: list[Pair] = []
        self.pair = Pair(one, two, self.pipes, self.ended.append)
        self.pair.start()

    async def over(self) -> None:
        async with asyncio.timeout(5):
            while not self.ended:
                await asyncio.sleep(0.005)


@pytest.fixture
async def joined() -> Iterator[Joined]:  # type: ignore[misc]
    made = Joined()
    yield made
    made.pair.reset()
    made.left.close()
    made.right.close()


async def send_all(sock: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(sock, data)
    sock.shutdown(socket.SHUT_WR)


async def read_all(sock: socket.socket, *, pause: float = 0.0) -> bytes:
    data = b""
    while more := await asyncio.get_running_loop().sock_recv(sock, MEBIBYTE):
        data += more
        await asyncio.sleep(pause)
    return data


async def test_bytes_arrive_unaltered_both_ways_under_back_pressure(joined: Joined) -> None:
    up, down = random.Random(1).randbytes(12 * MEBIBYTE + 3), random.Random(2).randbytes(8 * MEBIBYTE + 1)
    async with asyncio.timeout(60):
        _, _, got_up, got_down = await asyncio.gather(
            send_all(joined.left, up), send_all(joined.right, down), read_all(joined.right, pause=0.01), read_all(joined.left)
        )
    assert hashlib.sha256(got_up).digest() == hashlib.sha256(up).digest()
    assert hashlib.sha256(got_down).digest() == hashlib.sha256(down).digest()
    await joined.over()
    assert len(joined.ended) == 1


async def test_one_direction_may_end_long_before_the_other(joined: Joined) -> None:
    await send_all(joined.left, b"question")
    assert await read_all(joined.right) == b"question"
    await send_all(joined.right, b"the answer")
    assert await read_all(joined.left) == b"the answer"
    await joined.over()


@pytest.mark.parametrize("which", ["left", "right"])
async def test_a_reset_is_passed_on(joined: Joined, which: str) -> None:
    here, there = (joined.left, joined.right) if which == "left" else (joined.right, joined.left)
    await asyncio.get_running_loop().sock_sendall(here, b"x")
    assert await asyncio.get_running_loop().sock_recv(there, 1) == b"x"
    sockets.reset(here)
    async with asyncio.timeout(5):
        with pytest.raises(ConnectionResetError):
            await asyncio.get_running_loop().sock_recv(there, 1)
    await joined.over()


async def test_nothing_is_held_at_rest_and_nothing_is_left() -> None:
    # With bytes under way in both directions when it is reset.
    poll()  # holds a descriptor of its own, once per loop
    before = descriptors()
    joined = Joined()
    for sock in (joined.left, joined.right):
        with pytest.raises(BlockingIOError):
            while True:
                sock.send(bytes(MEBIBYTE))
                await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    joined.pair.reset()
    joined.left.close()
    joined.right.close()
    assert joined.ended == [joined.pair]
    joined.pair.reset()
    assert joined.ended == [joined.pair], "told once"
    for ends in joined.pipes._spare:
        joined.pipes.give_back(ends, empty=False)
    assert descriptors() == before


def test_a_pipe_with_bytes_in_it_is_never_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(splice, "MAX_SPARE_PIPES", 1)
    pipes = KernelPipes()
    before = descriptors()
    one, two, three = pipes.borrow(), pipes.borrow(), pipes.borrow()
    pipes.give_back(one, empty=False)
    pipes.give_back(two, empty=True)
    pipes.give_back(three, empty=True)  # one too many
    assert descriptors() == before + 2
    assert pipes.borrow() == two
    pipes.give_back(two, empty=False)
    assert descriptors() == before


@pytest.mark.parametrize("side", ["left", "right"])
async def test_a_reset_is_passed_on_at_the_next_look_though_the_other_side_reads_nothing(
    joined: Joined, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splice, "LOOK_SECONDS", 0.1)
    here, there = (joined.left, joined.right) if side == "left" else (joined.right, joined.left)
    sending = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(here, bytes(64 * MEBIBYTE)))
    await asyncio.sleep(0.3)
    assert not sending.done(), "every buffer on the way is full"
    assert not joined.ended, "nothing is wrong yet"
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    sockets.reset(here)
    await joined.over()
    assert joined.pair._looking is None
    with pytest.raises(ConnectionResetError):
        while await asyncio.get_running_loop().sock_recv(there, MEBIBYTE):
            pass


@pytest.mark.parametrize("side", ["left", "right"])
async def test_a_reset_after_its_half_close_is_passed_on_though_no_byte_moves(
    joined: Joined, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splice, "LOOK_SECONDS", 0.05)
    here, there = (joined.left, joined.right) if side == "left" else (joined.right, joined.left)
    here.shutdown(socket.SHUT_WR)
    assert await asyncio.get_running_loop().sock_recv(there, 1) == b""
    assert not joined.ended
    sockets.reset(here)
    await joined.over()
    assert sockets.was_reset(there)


async def test_an_urgent_byte_stays_in_the_stream_and_costs_no_turns(joined: Joined, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel splices up to an urgent byte and no further, and calls the socket readable for ever."""
    turns = 0
    move = Pair._move

    def counted(pair: Pair, half: splice._Half) -> None:
        nonlocal turns
        turns += 1
        move(pair, half)

    monkeypatch.setattr(Pair, "_move", counted)
    made = Joined()
    loop = asyncio.get_running_loop()
    for _ in range(3):
        await loop.sock_sendall(made.left, b"before")
        made.left.send(b"!", socket.MSG_OOB)
        await loop.sock_sendall(made.left, bytes(3 * splice.READ_BYTES))
        received = b""
        async with asyncio.timeout(20):
            while len(received) < 7 + 3 * splice.READ_BYTES:
                received += await loop.sock_recv(made.right, MEBIBYTE)
        assert received == b"before!" + bytes(3 * splice.READ_BYTES)
    await asyncio.sleep(0.1)
    assert turns < 60
    made.pair.reset()
    made.left.close()
    made.right.close()
