"""Notices steps of the controller's own clock, and tells everybody the time at once, with grants and tickets signed by it.

Peers go by the controller's time. What it signed while its clock was ahead is of the future when it is right again, and nobody
would take it; what it signs now, peers do not believe before they know the new time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)

#: Seconds between looks, and by how many the clock has to move against even time meanwhile to count as stepped.
LOOK_SECONDS = 1.0
STEP_SECONDS = 2.0
#: Seconds by which a steady clock may have moved against even time since it began to be steady, however slowly.
UNSTEADY_SECONDS = 5.0


class ClockWatch:
    """`wall`: seconds since the epoch; `even`: seconds of a clock that nobody sets; `tell`: tells everybody."""

    def __init__(self, wall: Callable[[], float], even: Callable[[], float], tell: Callable[[], Awaitable[None]]) -> None:
        self._wall, self._even = wall, even
        self._tell = tell
        self._ahead = self._steady_at = wall() - even()
        self._steady_since = even()

    async def run(self) -> None:
        """Look, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Tell everybody the time if the clock was stepped since the last look."""
        self.steady_seconds()
        before, self._ahead = self._ahead, self._wall() - self._even()
        step = self._ahead - before
        if abs(step) < STEP_SECONDS:
            return
        logger.warning("this machine's clock was stepped by %+.0f s: everybody is told the time, with fresh grants", step)
        try:
            await self._tell()
        except Exception:
            logger.exception("not everybody could be told the time after a step of the clock; trying again")
            self._ahead = before

    def steady_seconds(self) -> float:
        """Return for how many seconds the clock has gone on evenly."""
        ahead, even = self._wall() - self._even(), self._even()
        if abs(ahead - self._steady_at) > UNSTEADY_SECONDS:
            self._steady_at, self._steady_since = ahead, even
        return even - self._steady_since
