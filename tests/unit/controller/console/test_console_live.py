"""Live updates: a new listener hears of everything once, and then of what has changed, late answers to old cuts among it."""

from __future__ import annotations

import asyncio

import pytest

from klinket.controller.app import cuts
from klinket.controller.console import live
from klinket.controller.console.live import CUTS, INVENTORY, TOPICS, LiveTopics
from klinket.domain.errors import Throttled
from tests.unit.controller.running import Running

pytestmark = pytest.mark.sqlite_only


async def heard(stream: live.Stream, topic: str) -> bool:
    """Return whether a topic is told within a few looks."""
    for _ in range(6):
        if topic in await stream.next(live.LOOK_SECONDS):
            return True
    return False


async def test_whoever_begins_to_listen_fetches_everything_once(controller: Running) -> None:
    topics = LiveTopics(controller.store, controller.peers)
    async with topics.listening(1) as stream:
        assert set(await stream.next(1)) == set(TOPICS)
        await asyncio.sleep(0.1)
        await stream.next(2 * live.LOOK_SECONDS)  # the first look
        assert await stream.next(2 * live.LOOK_SECONDS) == []


async def test_a_change_is_told_at_once(controller: Running) -> None:
    topics = LiveTopics(controller.store, controller.peers)
    async with topics.listening(1) as stream:
        await stream.next(1)
        await controller.add_network()
        assert INVENTORY in await stream.next(live.LOOK_SECONDS)


async def test_a_late_answer_to_an_earlier_cut_is_told(controller: Running) -> None:
    network = await controller.add_network()
    await controller.add_connector(network)
    account = await controller.add_account("ci", [await controller.add_resource(network)])
    for name in ("one", "two"):
        await controller.revoke_key((await controller.add_key(account, name=name))[0])
    topics = LiveTopics(controller.store, controller.peers)
    async with topics.listening(1) as stream:
        await stream.next(1)
        await asyncio.sleep(1.5 * live.LOOK_SECONDS)
        await stream.next(0.1)
        older = (await controller.read(lambda tx: tx.cut_receipts.find()))[0]
        await controller.write(
            lambda tx: cuts.answer(tx, older.cut_id, older.connector_id, stopped_at_ms=tx.now_ms, took_ms=1.0, flows=[])
        )
        assert await heard(stream, CUTS)


async def test_nobody_holds_streams_without_end(controller: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_STREAMS_PER_USER", 1)
    topics = LiveTopics(controller.store, controller.peers)
    async with topics.listening(1), topics.listening(2):
        with pytest.raises(Throttled):
            async with topics.listening(1):
                pass
    async with topics.listening(1):
        pass
