"""A second attempt beside a slow one: the first success counts, nothing is left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from klinket.net.hedged import hedged
from tests.eventually import eventually

SOON = 0.01


class Attempts:
    """Attempts that give their name, or fail, after some time; what was begun, cancelled and discarded."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.cancelled: list[str] = []
        self.discarded: list[str] = []

    def make(self, name: str, seconds: float, error: Exception | None = None, *, after: str = "") -> Callable[[], Awaitable[str]]:
        """`after`: it gives its name when this one has begun."""

        async def attempt() -> str:
            self.begun.append(name)
            try:
                await asyncio.sleep(seconds)
                await eventually(lambda: not after or after in self.begun)
            except asyncio.CancelledError:
                self.cancelled.append(name)
                raise
            if error is not None:
                raise error
            return name

        return attempt


@pytest.fixture
def attempts() -> Attempts:
    return Attempts()


async def test_a_quick_first_attempt_is_alone(attempts: Attempts) -> None:
    assert await hedged(attempts.make("a", 0), attempts.make("b", 0), 60, attempts.discarded.append) == "a"
    assert attempts.begun == ["a"]


async def test_a_slow_first_attempt_is_overtaken_and_cancelled(attempts: Attempts) -> None:
    assert await hedged(attempts.make("a", 60), attempts.make("b", 0), SOON, attempts.discarded.append) == "b"
    assert attempts.cancelled == ["a"]
    assert attempts.discarded == []


async def test_a_second_attempt_that_is_slower_is_cancelled(attempts: Attempts) -> None:
    first = attempts.make("a", 0, after="b")
    assert await hedged(first, attempts.make("b", 60), SOON, attempts.discarded.append) == "a"
    await asyncio.sleep(0)
    assert attempts.cancelled == ["b"]


async def test_a_result_that_comes_too_late_is_discarded(attempts: Attempts) -> None:
    async def stubborn() -> str:
        attempts.begun.append("stubborn")
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
        return "late"

    assert await hedged(attempts.make("a", 0, after="stubborn"), stubborn, SOON, attempts.discarded.append) == "a"
    await eventually(lambda: attempts.discarded == ["late"])


async def test_a_failure_brings_the_second_attempt_at_once(attempts: Attempts) -> None:
    first = attempts.make("a", 0, OSError("gone"))
    assert await hedged(first, attempts.make("b", 0), 60, attempts.discarded.append) == "b"
    assert attempts.begun == ["a", "b"]


async def test_a_first_failure_waits_for_a_second_attempt_under_way(attempts: Attempts) -> None:
    first = attempts.make("a", 0.05, OSError("gone"))
    assert await hedged(first, attempts.make("b", 0.1), SOON, attempts.discarded.append) == "b"


async def test_a_failing_second_attempt_does_not_end_the_first(attempts: Attempts) -> None:
    second = attempts.make("b", 0, OSError("gone"))
    assert await hedged(attempts.make("a", 0.1), second, SOON, attempts.discarded.append) == "a"


async def test_when_both_fail_the_first_error_is_told(attempts: Attempts) -> None:
    with pytest.raises(OSError, match="first"):
        await hedged(
            attempts.make("a", 0, OSError("first")), attempts.make("b", 0, OSError("second")), 60, attempts.discarded.append
        )


async def test_a_final_error_ends_everything(attempts: Attempts) -> None:
    def final(error: Exception) -> bool:
        return isinstance(error, ValueError)

    with pytest.raises(ValueError, match="no"):
        await hedged(attempts.make("a", 0, ValueError("no")), attempts.make("b", 0), 60, attempts.discarded.append, final)
    assert attempts.begun == ["a"]
    with pytest.raises(ValueError, match="no"):
        await hedged(attempts.make("a", 60), attempts.make("b", 0, ValueError("no")), SOON, attempts.discarded.append, final)
    assert attempts.cancelled == ["a"]


async def test_whoever_gives_up_takes_both_attempts_along(attempts: Attempts) -> None:
    waiting = asyncio.ensure_future(hedged(attempts.make("a", 60), attempts.make("b", 60), SOON, attempts.discarded.append))
    await eventually(lambda: attempts.begun == ["a", "b"])
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await asyncio.sleep(0)
    assert sorted(attempts.cancelled) == ["a", "b"]
