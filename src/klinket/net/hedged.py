"""A second attempt beside one that takes long; the first success counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from klinket.net.deadlines import After, within

T = TypeVar("T")


async def hedged(
    first: Callable[[], Awaitable[T]],
    second: Callable[[], Awaitable[T]],
    after: float,
    discard: Callable[[T], None],
    final: Callable[[Exception], bool] = lambda _: False,
) -> T:
    """Return what `first` gives, or `second`, which begins after `after` seconds, or at once when `first` has failed.

    As long as `first` is quick there is no task and nothing to clean up. The one that loses is cancelled; what it gives
    nevertheless is discarded. `final`: an error after which nothing else is tried. Raises the error of `first` when both fail.
    """
    beside: asyncio.Task[T] | None = None
    scope = within(None)
    inside = taken = False

    def begin() -> None:
        nonlocal beside
        beside = asyncio.get_running_loop().create_task(_run(second))
        beside.add_done_callback(over)

    def over(task: asyncio.Task[T]) -> None:
        if inside and _decides(task, final):
            scope.end()

    timer = After(after, begin)
    try:
        try:
            with scope:
                inside = True
                try:
                    result = await first()
                finally:
                    inside = False
        except Exception as error:
            timer.cancel()
            if beside is None:
                if final(error):
                    raise
                begin()
                assert beside is not None
            if not final(error) and not beside.done():
                await asyncio.wait([beside])
            if not _decides(beside, final):
                raise
            taken = True
            return beside.result()
        return result
    finally:
        timer.cancel()
        if beside is not None and not taken:
            _drop(beside, discard)


async def _run(work: Callable[[], Awaitable[T]]) -> T:
    return await work()


def _decides(task: asyncio.Task[T], final: Callable[[Exception], bool]) -> bool:
    """Return whether an attempt has succeeded, or failed for good."""
    if not task.done() or task.cancelled():
        return False
    error = task.exception()
    return error is None or (isinstance(error, Exception) and final(error))


def _drop(task: asyncio.Task[T], discard: Callable[[T], None]) -> None:
    """End an attempt that lost, and discard what it has given, or gives nevertheless."""

    def over(done: asyncio.Task[T]) -> None:
        if not done.cancelled() and done.exception() is None:
            discard(done.result())

    task.cancel()
    task.add_done_callback(over)
