"""So many at a time, counted by what really runs: a caller that gives up does not make room for the next."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

_T = TypeVar("_T")


class Lane:
    """Runs up to `width` jobs at a time; others wait, in order."""

    def __init__(self, width: int) -> None:
        self._places = asyncio.Semaphore(width)

    async def run(self, job: Callable[[], Awaitable[_T]]) -> _T:
        """Return the job's result. When the caller is cancelled the job runs on, and keeps its place until it ends."""
        await self._places.acquire()
        running = asyncio.ensure_future(job())
        running.add_done_callback(self._over)
        return await asyncio.shield(running)

    def _over(self, running: asyncio.Future[Any]) -> None:
        self._places.release()
        if not running.cancelled():
            running.exception()  # a caller that is gone does not ask
