"""What a program sends before the resource has answered: in order and once, or a reset; and never without a bound."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from typing import Any

import pytest

from klinket.client import flow as client_flow
from klinket.client.client import Client
from klinket.client.flow import ClientStream
from klinket.connector import dial
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import Destination, FlowFailure, TransportProtocol
from klinket.net.pipe import READ_BYTES
from klinket.wire.pipe_messages import Failure
from tests.eventually import eventually
from tests.unit.connector.test_connector_dial import closed_port
from tests.unit.net.conftest import tcp_pair
from tests.unit.whole import Whole

MEBIBYTE = 1 << 20


@pytest.fixture
async def client(whole: Whole) -> Client:
    return await whole.client()


class Program:
    """A program whose connection was accepted at once."""

    def __init__(self, stream: ClientStream) -> None:
        self.stream = stream
        self.sock, local = tcp_pair()
        self.carrying = asyncio.ensure_future(stream.carry(local))

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def receive(self, count: int) -> bytes:
        data = b""
        async with asyncio.timeout(20):
            while len(data) < count:
                more = await asyncio.get_running_loop().sock_recv(self.sock, count - len(data))
                assert more, "the stream has ended"
                data += more
        return data

    async def is_reset(self) -> bool:
        async with asyncio.timeout(10):
            await asyncio.wait([self.carrying])
        try:
            await asyncio.get_running_loop().sock_recv(self.sock, 1)
            return False
        except ConnectionResetError:
            return True


async def begin(client: Client, destination: Destination, told: list[FlowRefused]) -> Program:
    return Program(await client.open_early(destination, told.append))


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Connectors dial only when this is set."""
    event, reach = asyncio.Event(), dial.reach

    async def wait_and_reach(*args: Any) -> socket.socket:
        await event.wait()
        return await reach(*args)

    monkeypatch.setattr(dial, "reach", wait_and_reach)
    return event


async def test_what_is_sent_before_the_answer_arrives_in_order(whole: Whole, client: Client, held: asyncio.Event) -> None:
    told: list[FlowRefused] = []
    program = await begin(client, whole.resource.destination, told)
    early, late = os.urandom(30_000), os.urandom(30_000)
    await program.send(early)
    await eventually(lambda: program.stream._pump is not None and program.stream._pump.bytes_sent == len(early))
    assert program.stream._pump is not None
    assert program.stream._pump.opening
    held.set()
    await program.send(late)
    assert await program.receive(60_000) == early + late
    program.sock.close()
    await program.carrying
    assert program.stream.failure is None
    assert not told
    await whole.flow(client)  # the pipe's keys are still the same on both sides


async def test_one_early_byte_that_nothing_follows_is_delivered(whole: Whole, client: Client, held: asyncio.Event) -> None:
    program = await begin(client, whole.resource.destination, [])
    await program.send(b"x")
    await eventually(lambda: program.stream._pump is not None and program.stream._pump.bytes_sent)
    await asyncio.sleep(0.05)
    held.set()
    assert await program.receive(1) == b"x"
    program.sock.close()
    await program.carrying


async def test_a_refusal_after_early_data_is_a_reset_and_is_told(client: Client) -> None:
    told: list[FlowRefused] = []
    program = await begin(client, Destination("127.0.0.1", closed_port(), TransportProtocol.TCP), told)
    await program.send(bytes(MEBIBYTE // 4))
    assert await program.is_reset()
    assert [one.failure for one in told] == [FlowFailure.REFUSED]
    program.sock.close()


async def test_a_connector_that_ends_before_its_answer_is_a_reset_and_is_told(
    whole: Whole, client: Client, held: asyncio.Event
) -> None:
    told: list[FlowRefused] = []
    program = await begin(client, whole.resource.destination, told)
    await program.send(b"early")
    await whole.end_connector()
    assert await program.is_reset()
    assert len(told) == 1
    assert whole.resource.resets == [], "nothing reached the resource"
    program.sock.close()


async def test_a_cut_before_the_answer_resets_the_program_and_nothing_is_delivered(
    whole: Whole, client: Client, held: asyncio.Event
) -> None:
    told: list[FlowRefused] = []
    program = await begin(client, whole.resource.destination, told)
    await program.send(b"early")
    await eventually(lambda: program.stream._pump is not None and program.stream._pump.bytes_sent)
    program.stream.cut(Failure(FlowFailure.CUT, "access has ended"))
    assert await program.is_reset()
    assert [one.failure for one in told] == [FlowFailure.CUT]
    held.set()
    await (await whole.flow(client)).echo()
    assert all(whole.resource.resets), "what was dialled for it was reset before a byte"
    program.sock.close()


async def test_early_data_without_an_end_is_held_back_not_kept_and_not_lost(
    whole: Whole, client: Client, held: asyncio.Event
) -> None:
    program = await begin(client, whole.resource.destination, [])
    total = 64 * MEBIBYTE
    block = os.urandom(MEBIBYTE)
    sent, seen = hashlib.sha256(), hashlib.sha256()

    async def send() -> None:
        for _ in range(total // MEBIBYTE):
            sent.update(block)
            await program.send(block)

    async def receive() -> None:
        for _ in range(total // MEBIBYTE):
            seen.update(await program.receive(MEBIBYTE))

    sending = asyncio.ensure_future(send())
    moved = -1
    while moved != (now := program.stream._pump.bytes_sent if program.stream._pump else 0) or not now:
        moved = now
        await asyncio.sleep(0.5)
    assert not sending.done()
    assert moved < total
    (pipe,) = [pipe for pipe in whole.connector._flows._pipes._held if not whole.connector._flows._pipes._held[pipe].rests
               and pipe.purpose.name == "FLOW"]  # fmt: skip
    assert len(pipe.receiver._part) + pipe.receiver._end - pipe.receiver._start <= READ_BYTES
    assert pipe.receiver._buffer is None, "no receive buffer is held while it is dialled"
    held.set()
    await asyncio.gather(sending, receive())
    assert sent.digest() == seen.digest()
    program.sock.close()
    await program.carrying


async def test_a_connector_that_never_answers_is_a_reset(
    whole: Whole, client: Client, held: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_flow, "OPEN_SECONDS", 0.3)
    told: list[FlowRefused] = []
    program = await begin(client, whole.resource.destination, told)
    assert await program.is_reset()
    assert [one.failure for one in told] == [FlowFailure.TIMED_OUT]
    program.sock.close()
