"""Clocks and randomness of running parts; pure code gets them as arguments."""

from __future__ import annotations

import os
import time


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

    def set(self, time_ms: int) -> None:
        """Take over the peer's time, in milliseconds since the epoch."""
        self._offset = time_ms / 1000 - monotonic()

    def now(self) -> float:
        """Return the peer's time in seconds since the epoch."""
        return monotonic() + self._offset

    @property
    def difference(self) -> float:
        """Return by how many seconds this machine's clock is ahead of the peer's."""
        return wall() - self.now()
