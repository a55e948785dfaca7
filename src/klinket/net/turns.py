"""Turns that are taken one after the other. Whoever sees that nobody has one or waits for one needs none."""

from __future__ import annotations

import asyncio
from types import TracebackType


class Turns:
    """`async with turns:` waits until those who came before have had theirs. `taken`: how many have one or wait."""

    __slots__ = ("_lock", "taken")

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self.taken = 0

    async def __aenter__(self) -> None:
        self.taken += 1
        try:
            await self._lock.acquire()
        except BaseException:
            self.taken -= 1
            raise

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.taken -= 1
        self._lock.release()
