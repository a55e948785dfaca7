"""Frames that are sent at the same time: whole, one after the other, whatever the socket takes."""

from __future__ import annotations

import asyncio
import socket

from klinket.wire.pipe import FrameType
from tests.unit.net.conftest import Ends

BIG = 200_000


async def test_frames_sent_at_once_arrive_whole_and_in_order_when_the_socket_is_full(ends: Ends) -> None:
    ends.client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    contents = [bytes([number]) * (BIG if number % 3 == 0 else 5) for number in range(12)]
    sending = [asyncio.ensure_future(ends.client.send(FrameType.DATA, content)) for content in contents]
    await asyncio.sleep(0.05)
    assert not sending[-1].done(), "nobody reads: those behind the first wait for their turn"
    assert not ends.client.send_now(FrameType.FAIL), "nothing goes between the parts of a frame"
    async with asyncio.timeout(30):
        for content in contents:
            frame = await ends.connector.receive()
            assert (frame.type, frame.content) == (FrameType.DATA, content)
        await asyncio.gather(*sending)
        await ends.client.send(FrameType.DATA, b"afterwards")
        assert (await ends.connector.receive()).content == b"afterwards"


async def test_who_waits_for_a_turn_hears_that_the_pipe_was_closed(ends: Ends) -> None:
    ends.client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    sending = [asyncio.ensure_future(ends.client.send(FrameType.DATA, bytes(BIG))) for _ in range(30)]
    await asyncio.sleep(0.05)
    ends.client.abort()
    ends_of = await asyncio.gather(*sending, return_exceptions=True)
    assert all(one is None or isinstance(one, OSError) for one in ends_of)
    assert isinstance(ends_of[-1], ConnectionResetError)


async def test_frames_that_come_together_or_in_pieces_are_the_same_frames(ends: Ends) -> None:
    contents = [bytes([number]) * number for number in range(40)]
    frames = b"".join(ends.client.sealer.seal(FrameType.DATA, content) for content in contents)
    received = []

    async def receive() -> None:
        for _ in contents:
            received.append((await ends.connector.receive()).content)

    async with asyncio.timeout(30):
        reading = asyncio.ensure_future(receive())
        for start in range(0, len(frames), 61):
            ends.client.sock.sendall(frames[start : start + 61])
            await asyncio.sleep(0)
        await reading
    assert received == contents
