"""Warm pipes: made as they are used, handed to whoever waits first, kept for reuse, and closed when nobody needs them."""

from __future__ import annotations

import asyncio

import pytest

from klinket.client import warm_pipes
from klinket.client.warm_pipes import WarmPipes
from klinket.domain.errors import FlowRefused
from klinket.domain.flow import FlowFailure
from klinket.net.pipe import SealedPipe
from klinket.net.tasks import TaskSet
from tests.eventually import eventually
from tests.unit.net.conftest import Ends, pipe_ends


class Maker:
    """Makes pipes when `may` is set; `refuse`: fails instead."""

    def __init__(self) -> None:
        self.made: list[Ends] = []
        self.begun = 0
        self.may = asyncio.Event()
        self.may.set()
        self.refuse = False
        self.pool = WarmPipes(self.make, TaskSet("test"))

    async def make(self) -> SealedPipe:
        self.begun += 1
        await self.may.wait()
        if self.refuse:
            raise FlowRefused(FlowFailure.NO_CONNECTOR, "nobody there")
        self.made.append(pipe_ends())
        return self.made[-1].client


async def test_nothing_is_made_before_the_first_flow_and_more_ahead_the_more_are_missed() -> None:
    maker = Maker()
    await asyncio.sleep(0)
    assert maker.begun == 0
    await maker.pool.next()
    await eventually(lambda: len(maker.pool) == 1)
    await asyncio.gather(*(maker.pool.next() for _ in range(16)))
    await eventually(lambda: len(maker.pool) >= 4)
    assert len(maker.made) <= 17 + warm_pipes.MAX_AHEAD + 1


async def test_a_pipe_that_is_given_back_goes_to_whoever_waits_first() -> None:
    maker = Maker()
    pipe = await maker.pool.next()
    await eventually(lambda: len(maker.pool) == 1)
    maker.may.clear()
    maker.pool.take()
    first = asyncio.ensure_future(maker.pool.next())
    second = asyncio.ensure_future(maker.pool.next())
    await asyncio.sleep(0)
    maker.pool.give_back(pipe)
    assert await first is pipe
    assert not second.done()
    maker.may.set()
    assert await second is not pipe


async def test_who_gave_up_waiting_takes_no_pipe_with_it() -> None:
    maker = Maker()
    maker.may.clear()
    waiting = asyncio.ensure_future(maker.pool.next())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    maker.may.set()
    await eventually(lambda: len(maker.pool) == len(maker.made) > 0)


async def test_each_that_waits_hears_of_a_failure_of_its_own() -> None:
    maker = Maker()
    maker.refuse = True
    outcomes = await asyncio.gather(*(maker.pool.next() for _ in range(5)), return_exceptions=True)
    assert [getattr(one, "failure", None) for one in outcomes] == [FlowFailure.NO_CONNECTOR] * 5
    maker.refuse = False
    assert not (await maker.pool.next()).closed


async def test_no_more_are_kept_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_pipes, "MAX_WARM", 2)
    maker = Maker()
    ends = [pipe_ends() for _ in range(3)]
    for one in ends:
        maker.pool.give_back(one.client)
    assert len(maker.pool) == 2
    assert [one.client.closed for one in ends] == [False, False, True]


async def test_what_nobody_needs_is_closed_step_by_step_the_oldest_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_pipes, "TRIM_SECONDS", 0.05)
    maker = Maker()
    ends = [pipe_ends() for _ in range(8)]
    for one in ends:
        maker.pool.give_back(one.client)
    await eventually(lambda: len(maker.pool) <= 4)
    assert ends[0].client.closed
    await eventually(lambda: len(maker.pool) == 0)
    assert maker.pool._trimming is None, "an empty pool costs nothing"


async def test_a_pipe_whose_peer_has_gone_is_closed_while_it_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_pipes, "TRIM_SECONDS", 0.05)
    maker = Maker()
    ends = pipe_ends()
    maker.pool.give_back(ends.client)
    ends.connector.close()
    await eventually(lambda: ends.client.closed)


async def test_a_closed_pool_keeps_nothing() -> None:
    maker = Maker()
    kept, late = pipe_ends(), pipe_ends()
    maker.pool.give_back(kept.client)
    maker.pool.close()
    maker.pool.give_back(late.client)
    assert kept.client.closed
    assert late.client.closed


async def test_who_waits_when_the_pool_closes_is_told_and_so_is_who_comes_later() -> None:
    maker = Maker()
    maker.may.clear()
    waiting = asyncio.ensure_future(maker.pool.next())
    await asyncio.sleep(0)
    maker.pool.close()
    for asked in (waiting, maker.pool.next()):
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(asked, 5)
