"""Clocks and randomness of running parts; pure code gets them as arguments."""

from __future__ import annotations

import asyncio
import os
import time

#: Seconds by which the peer's time has to have moved against even time to count as a step.
STEP_SECONDS = 5.0


def wall() -> float:
    """Return seconds since the epoch."""
    return time.time()


def monotonic() -> float:
    """Return seconds that never go back."""
    return time.monotonic()


def entropy(count: int) -> bytes:
    """Return `count` random bytes from the operating system."""
    return os.urandom(count)


class PeerClock:
    """The controller's time as seen here: a monotonic offset, so that steps of this machine's clock do not matter."""

    def __init__(self) -> None:
        self._offset = wall() - monotonic()
        #: Set when the peer's clock was stepped: what it signed before that may be of the future, or over.
        self.stepped = asyncio.Event()

    def set(self, time_ms: int) -> None:
        """Take over the peer's time, in milliseconds since the epoch."""
        before, self._offset = self._offset, time_ms / 1000 - monotonic()
        if abs(self._offset - before) > STEP_SECONDS:
            self.stepped.set()

    async def until_stepped(self, seconds: float) -> None:
        """Wait for a step of the peer's clock, for so many seconds at the most."""
        try:
            async with asyncio.timeout(seconds):
                await self.stepped.wait()
        except TimeoutError:
            pass
        self.stepped.clear()

    def now(self) -> float:
        """Return the peer's time in seconds since the epoch."""
        return monotonic() + self._offset

    @property
    def difference(self) -> float:
        """Return by how many seconds this machine's clock is ahead of the peer's."""
        return wall() - self.now()
