"""Turns: in the order in which they were asked for, and seen by whoever needs none."""

from __future__ import annotations

import asyncio

from klinket.net.turns import Turns


async def test_turns_come_in_order_and_none_is_counted_afterwards() -> None:
    turns, seen = Turns(), list[int]()

    async def take(number: int) -> None:
        async with turns:
            seen.append(number)
            await asyncio.sleep(0)
            seen.append(number)

    tasks = [asyncio.ensure_future(take(number)) for number in range(3)]
    await asyncio.sleep(0)
    assert turns.taken == 3
    await asyncio.gather(*tasks)
    assert seen == [0, 0, 1, 1, 2, 2]
    assert turns.taken == 0


async def test_who_gives_up_waiting_holds_up_nobody() -> None:
    turns = Turns()
    async with turns:
        waiting = asyncio.ensure_future(turns.__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert turns.taken == 1
    async with asyncio.timeout(10), turns:
        assert turns.taken == 1
