"""Datagrams that wait for whoever asks for them one by one."""

from __future__ import annotations

import asyncio
from collections import deque

from klinket.domain.errors import FlowRefused
from klinket.net import segments

#: Datagrams kept; the oldest gives way.
MAX_KEPT = 256


class DatagramInbox:
    """Takes datagrams by callback, gives them to one coroutine."""

    def __init__(self) -> None:
        self._kept: deque[bytes] = deque(maxlen=MAX_KEPT)
        self._more = asyncio.Event()
        self._over: FlowRefused | None = None

    def put(self, datagrams: bytes | memoryview, size: int) -> None:
        """Keep datagrams of `size` bytes each, the last may be shorter."""
        self._kept.extend(segments.split(datagrams, size))
        self._more.set()

    def end(self, reason: FlowRefused) -> None:
        """Say that no more will come."""
        self._over = reason
        self._more.set()

    async def get(self) -> bytes:
        """Return the next; raises FlowRefused when there is none and none will come."""
        while not self._kept:
            if self._over is not None:
                raise self._over
            self._more.clear()
            await self._more.wait()
        return self._kept.popleft()
