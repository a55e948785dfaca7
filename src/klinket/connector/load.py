"""How busy this connector's process is: what it tells clients, which choose by it."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Seconds over which the load is measured, at least.
WINDOW_SECONDS = 1.0


class ProcessLoad:
    """`monotonic`, `used`: seconds that have gone by, and that this process has computed."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic, used: Callable[[], float] = time.process_time) -> None:
        self._monotonic = monotonic
        self._used = used
        self._since = monotonic(), used()
        self._percent = 0

    def percent(self) -> int:
        """Return the share of one processor that was used of late, 0 to 100."""
        now, used = self._monotonic(), self._used()
        gone = now - self._since[0]
        if gone >= WINDOW_SECONDS:
            self._percent = max(0, min(100, round(100 * (used - self._since[1]) / gone)))
            self._since = now, used
        return self._percent
