"""Waiting longer after each failure, with jitter, so that many peers do not come back at once."""

from __future__ import annotations

import random


class Backoff:
    """Delays that double from `first` to `cap` seconds; each is a random part (half to whole) of its step."""

    def __init__(self, first: float = 0.25, cap: float = 15.0) -> None:
        self._first = first
        self._cap = cap
        self._step = first
        self._random = random.SystemRandom()

    def next(self) -> float:
        """Return how many seconds to wait before the next try."""
        step = self._step
        self._step = min(self._cap, step * 2)
        return step * self._random.uniform(0.5, 1.0)

    def reset(self) -> None:
        """Begin again at `first`: the last try has worked."""
        self._step = self._first
