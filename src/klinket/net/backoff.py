"""Waiting longer after each failure, with jitter, so that many peers do not come back at once."""

from __future__ import annotations

import random


class Backoff:
    """Delays that double from `first` to `cap` seconds; each is a random part (half to whole) of its step.

    `spread`: seconds that the range of each delay has at least: many who lost the same peer at once come back over that time.
    """

    spread = 0.0

    def __init__(self, first: float = 0.25, cap: float = 15.0) -> None:
        self._first = first
        self._cap = cap
        self._step = first
        self._random = random.SystemRandom()

    def next(self) -> float:
        """Return how many seconds to wait before the next try."""
        step = self._step
        self._step = min(self._cap, step * 2)
        return self._random.uniform(step / 2, max(step, step / 2 + self.spread))

    def reset(self) -> None:
        """Begin again at `first`: the last try has worked."""
        self._step = self._first
