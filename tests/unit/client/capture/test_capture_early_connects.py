"""Connects that are accepted at once: opened then, reset when refused, bounded; and no source takes all the room."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator

import pytest

from klinket.client.capture import connects as module
from klinket.client.capture.connects import HeldConnects
from klinket.client.capture.doorway import Doorway
from klinket.client.capture.nfqueue import Verdict
from klinket.client.capture.synthetic import SyntheticAddresses
from klinket.domain.flow import FlowFailure
from tests.unit.client.conftest import FakeClient
from tests.unit.client.test_client_connects import Kernel, netlink_pair
from tests.unit.client.test_client_nfqueue import acknowledgement

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="netlink is Linux's")
GRANTED = "127.77.9.1"


@pytest.fixture
async def listener(client: FakeClient) -> AsyncIterator[tuple[str, int]]:
    client.grant(GRANTED)
    sock = socket.create_server((GRANTED, 0))
    doorway = Doorway(client, SyntheticAddresses(), lambda _: None, only_klinkets=True)
    connects = HeldConnects(None, [sock], doorway, is_fast=lambda address: address == GRANTED)
    connects.start()
    yield sock.getsockname()
    await connects.aclose()


async def exchange(address: tuple[str, int]) -> bytes:
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(b"ping")
        return await asyncio.wait_for(reader.read(10), 5)
    finally:
        writer.close()


async def test_without_a_queue_a_connection_is_opened_when_it_arrives(listener: tuple[str, int], client: FakeClient) -> None:
    assert await exchange(listener) == b"ping"
    assert [(one.host, one.port) for one in client.asked] == [listener]


async def test_a_refusal_is_a_reset(listener: tuple[str, int], client: FakeClient) -> None:
    client.refuse(GRANTED, FlowFailure.REFUSED)
    with pytest.raises(ConnectionResetError):
        await exchange(listener)


async def test_more_than_the_limit_at_a_time_are_reset(
    listener: tuple[str, int], client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_EARLY", 0)
    with pytest.raises(ConnectionResetError):
        await exchange(listener)
    assert client.asked == []


async def test_one_source_leaves_room_for_others(client: FakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_HELD_PER_SOURCE", 2)
    client.grant(GRANTED)
    client.refuse(GRANTED, FlowFailure.TIMED_OUT)  # each is kept for a while
    queue, theirs = netlink_pair()
    for _ in range(2):
        theirs.send(acknowledgement(0))
    with socket.create_server((GRANTED, 0)) as sock:
        connects = HeldConnects(queue, [sock], Doorway(client, SyntheticAddresses(), lambda _: None))
        connects.start()
        theirs.setblocking(False)
        for _ in range(2):
            theirs.recv(65_536)
        kernel = Kernel(theirs, connects, sock.getsockname())
        for port in (1, 2, 3, 4):
            kernel.syn(("10.0.0.9", port))
            assert (await kernel.verdict())[1] is Verdict.DROP
        assert (connects.dropped, len(client.asked)) == (2, 2)
        kernel.syn(("10.0.0.10", 1))
        await kernel.verdict()
        assert (connects.dropped, len(client.asked)) == (2, 3)
        await connects.aclose()
    theirs.close()
