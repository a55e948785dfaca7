from __future__ import annotations

import asyncio

import pytest

from klinket.net.deadlines import After, within


async def test_a_body_that_ends_in_time_is_left_alone() -> None:
    with within(0.05):
        await asyncio.sleep(0)
    await asyncio.sleep(0.2)


async def test_a_body_that_takes_too_long_ends_with_timeout_error() -> None:
    begun = asyncio.get_running_loop().time()
    with pytest.raises(TimeoutError):
        with within(0.05):
            await asyncio.sleep(30)
    assert asyncio.get_running_loop().time() - begun >= 0.05
    task = asyncio.current_task()
    assert task is not None
    assert not task.cancelling()


async def test_a_cancelled_body_is_cancelled_and_no_timeout() -> None:
    async def body() -> None:
        with within(30):
            await asyncio.sleep(30)

    task = asyncio.create_task(body())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_inner_limit_ends_the_inner_body_only() -> None:
    with within(30):
        with pytest.raises(TimeoutError):
            with within(0.01):
                await asyncio.sleep(30)
        await asyncio.sleep(0)


async def test_a_body_without_a_limit_ends_when_it_is_told_to() -> None:
    with pytest.raises(TimeoutError):
        with within(None) as scope:
            asyncio.get_running_loop().call_soon(scope.end)
            await asyncio.sleep(30)
    scope.end()
    await asyncio.sleep(0)


async def test_limits_of_one_slot_end_each_for_itself() -> None:
    async def body(seconds: float) -> bool:
        try:
            with within(0.05):
                await asyncio.sleep(seconds)
        except TimeoutError:
            return False
        return True

    assert await asyncio.gather(body(0.0), body(30), body(0.0), body(30)) == [True, False, True, False]


async def test_what_was_cancelled_is_not_called_even_by_one_of_the_same_slot() -> None:
    called: list[str] = []
    one = After(0.05, lambda: (called.append("one"), other.cancel()))
    other = After(0.05, lambda: (called.append("other"), one.cancel()))
    await asyncio.sleep(0.3)
    assert len(called) == 1


def test_a_limit_of_a_loop_that_has_ended_hinders_no_other_loop() -> None:
    async def leave() -> None:
        After(0.05, lambda: None)

    async def wait() -> None:
        with within(0.05):
            await asyncio.sleep(30)

    asyncio.run(leave())
    with pytest.raises(TimeoutError):
        asyncio.run(wait())
