"""A connector that floods a link's control pipe is read as fast as its answers may come, and no faster."""

from __future__ import annotations

import asyncio

import pytest

from klinket.client import link as client_link
from klinket.client.link import ConnectorLink
from klinket.domain.token_buckets import TokenBuckets
from klinket.wire import link_control
from klinket.wire.link_control import NameAnswer, Pong
from klinket.wire.pipe import FrameType
from tests.eventually import PATIENCE, eventually
from tests.unit.client.test_client_links import a_link
from tests.unit.net.conftest import Ends, ends

__all__ = ["ends"]


def counted(link: ConnectorLink, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    loads: list[int] = []
    monkeypatch.setattr(link._core.choice, "reports", lambda _, load: loads.append(load))
    return loads


async def test_what_nobody_asked_for_waits_unread_above_the_rate(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    link = a_link()
    link._rate = TokenBuckets(5, 1e-6)
    loads = counted(link, monkeypatch)
    listening = asyncio.ensure_future(link._listen(ends.client))
    for number in range(20):
        await ends.connector.send(FrameType.CONTROL, link_control.encode(Pong(load=number)))
    await eventually(lambda: len(loads) == 5)
    for _ in range(100):
        await asyncio.sleep(0)
    assert loads == list(range(5))
    assert link.usable
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def test_long_messages_count_by_their_size(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    link = a_link()
    link._rate = TokenBuckets(5, 1e-6)
    loads = counted(link, monkeypatch)
    listening = asyncio.ensure_future(link._listen(ends.client))
    long = NameAnswer(id=1, code=0, records=[bytes(client_link.MESSAGE_UNIT_BYTES)] * 3)
    for message in (Pong(load=1), long, Pong(load=2)):
        await ends.connector.send(FrameType.CONTROL, link_control.encode(message))
    await eventually(lambda: loads)
    for _ in range(100):
        await asyncio.sleep(0)
    assert loads == [1]
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


async def test_others_have_their_turns_between_messages_that_come_at_once(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    link = a_link()
    loads = counted(link, monkeypatch)
    for number in range(50):
        await ends.connector.send(FrameType.CONTROL, link_control.encode(Pong(load=number)))
    seen: set[int] = set()
    listening = asyncio.ensure_future(link._listen(ends.client))
    async with asyncio.timeout(PATIENCE):
        while len(loads) < 50:
            await asyncio.sleep(0)
            seen.add(len(loads))
    assert len(seen) > 25
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
