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
        #: By how much the peer's wall clock is ahead of its uptime, and since which boot.
        self._set_by: tuple[str, float] = ("", 0.0)
        #: Set when the peer's clock was stepped: what it signed before that may be of the future, or over.
        self.stepped = asyncio.Event()

    def set(self, time_ms: int, uptime_ms: int = 0, boot: str = "") -> float:
        """Take over the peer's time, in milliseconds since the epoch; returns by how many seconds somebody has set its clock.

        `uptime_ms`, `boot`: as in Challenge; where they are not told, or of another boot, nothing shows that: 0.0.
        """
        before, self._offset = self._offset, time_ms / 1000 - monotonic()
        if abs(self._offset - before) > STEP_SECONDS:
            self.stepped.set()
        if not boot:
            return 0.0
        set_by, self._set_by = self._set_by, (boot, (time_ms - uptime_ms) / 1000)
        step = self._set_by[1] - set_by[1] if boot == set_by[0] else 0.0
        return step if abs(step) > STEP_SECONDS else 0.0

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
