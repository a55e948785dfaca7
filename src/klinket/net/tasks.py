"""Background tasks with an owner: none is lost, none outlives it, failures are logged by name."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Coroutine
from typing import Any

from klinket.domain.errors import KlinketError

logger = logging.getLogger(__name__)


async def first_of(*events: asyncio.Event, timeout: float | None = None) -> None:
    """Return when one of the events is set, or after `timeout` seconds; which it was, the events tell."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()


class TaskSet:
    """Owns tasks until `aclose()`, which cancels and awaits them."""

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._when_done = self._done  # made once: each mention of a method makes an object, which a task keeps

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        """Run `work` in the background; after aclose() it is cancelled at once."""
        # Thousands of tasks have the same name: it is there once.
        task = asyncio.get_running_loop().create_task(work, name=sys.intern(f"{self._owner}: {name}"))
        self._tasks.add(task)
        task.add_done_callback(self._when_done)
        if self._closed:
            task.cancel()
        return task

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, KlinketError):
            logger.info("%s: %s", task.get_name(), error)  # expected, and told to whoever waits for it
        else:
            logger.error("%s failed", task.get_name(), exc_info=error)

    def __len__(self) -> int:
        return len(self._tasks)

    async def aclose(self) -> None:
        """Cancel all tasks and wait until they have ended."""
        self._closed = True
        current = asyncio.current_task()
        tasks = [task for task in self._tasks if task is not current]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
