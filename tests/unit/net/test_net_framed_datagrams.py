"""Datagrams as frames of a pipe: a peer that sends thousands at once holds nobody else up, and loses none."""

from __future__ import annotations

import asyncio

from klinket.domain.flow import FlowFailure
from klinket.net import framed_datagrams
from klinket.net.framed_datagrams import FramedDatagrams
from klinket.wire.pipe import FrameType
from klinket.wire.pipe_messages import Failure
from tests.unit.net.conftest import pipe_ends

COUNT = 20 * framed_datagrams.MAX_FRAMES


async def test_others_have_their_turns_between_datagrams_that_come_at_once() -> None:
    ends = pipe_ends()
    came: list[bytes] = []
    over: list[Failure] = []
    framed = FramedDatagrams(ends.connector, came.append, over.append)
    framed.start()
    frames = [ends.client.sealer.seal(FrameType.DATAGRAM, number.to_bytes(4)) for number in range(COUNT)]
    data = b"".join(frames) + ends.client.sealer.seal(FrameType.FIN, b"")
    before, most = 0, 0
    async with asyncio.timeout(20):
        while not over:
            if data:
                data = data[ends.client.sock.send(data) :]
            await asyncio.sleep(0)
            most, before = max(most, len(came) - before), len(came)
    assert came == [number.to_bytes(4) for number in range(COUNT)]
    # One turn may hold what was left of the last one, and what the socket has brought since.
    assert most <= 2 * framed_datagrams.MAX_FRAMES
    ends.client.abort()


async def test_nothing_is_delivered_after_the_end_though_it_was_here() -> None:
    ends = pipe_ends()
    came: list[bytes] = []
    framed = FramedDatagrams(ends.connector, came.append, lambda _: None)
    frames = b"".join(ends.client.sealer.seal(FrameType.DATAGRAM, b"x") for _ in range(COUNT))
    ends.client.sock.send(frames)
    await asyncio.sleep(0.05)
    framed.start()
    async with asyncio.timeout(20):
        while not came:
            await asyncio.sleep(0)
    framed.close(Failure(FlowFailure.CUT))
    before = len(came)
    await asyncio.sleep(0.05)
    assert len(came) == before < COUNT
    ends.client.abort()
