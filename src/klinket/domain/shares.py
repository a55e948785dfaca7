"""Fair shares of a pool: whoever is in stays in, and there is always room for whoever comes."""

from __future__ import annotations

from collections import Counter
from typing import Generic, TypeVar

H = TypeVar("H")


class FairShares(Generic[H]):
    """Seats taken by holders. Nobody may hold more seats than are free (dynamic thresholds; Choudhury, Hahne 1998).

    One greedy holder gets half of the pool, two a third each, `n` of them 1/(n+1) each; 1/(n+1) stays free for others.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._taken: Counter[H] = Counter()
        self.total = 0

    def of(self, holder: H) -> int:
        """Return how many seats a holder has."""
        return self._taken[holder]

    def take(self, holder: H) -> bool:
        """Take a seat; False when the holder has its share already."""
        if self._taken[holder] >= self.capacity - self.total:
            return False
        self._taken[holder] += 1
        self.total += 1
        return True

    def give_back(self, holder: H) -> None:
        """Free one seat of a holder."""
        self.total -= 1
        self._taken[holder] -= 1
        if not self._taken[holder]:
            del self._taken[holder]
