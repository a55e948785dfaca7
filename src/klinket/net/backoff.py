"""Waiting longer after each failure, with jitter, so that many peers do not come back at once."""

from __future__ import annotations

import math
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

    def next(self, at_most: float = math.inf) -> float:
        """Return how many seconds to wait before the next try; `at_most` bounds them, but never below `first`."""
        step = self._step
        self._step = min(self._cap, step * 2)
        longest = min(max(step, step / 2 + self.spread), max(self._first, at_most))
        return self._random.uniform(min(step, longest) / 2, longest)

    def reset(self) -> None:
        """Begin again at `first`: the last try has worked."""
        self._step = self._first
