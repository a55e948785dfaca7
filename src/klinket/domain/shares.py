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


class NestedShares:
    """Fair shares of groups, and of the members within their group: many members get their group no more than one would.

    A member may hold no more than its group has left of what it may hold: alone in the pool it gets a third, one of `n` of a
    group that is alone gets 1/(2n+1). A member that is its own group has the group's share, half of the pool.
    """

    def __init__(self, capacity: int) -> None:
        self._groups: FairShares[str] = FairShares(capacity)
        self._members: Counter[tuple[str, str]] = Counter()

    @property
    def capacity(self) -> int:
        """Return how many seats there are."""
        return self._groups.capacity

    @capacity.setter
    def capacity(self, seats: int) -> None:
        self._groups.capacity = seats

    @property
    def total(self) -> int:
        """Return how many seats are taken."""
        return self._groups.total

    def of(self, group: str) -> int:
        """Return how many seats a group has."""
        return self._groups.of(group)

    def take(self, group: str, member: str) -> bool:
        """Take a seat; False when the group or the member has its share already."""
        left = self._groups.capacity - self._groups.total - self._groups.of(group)
        if member != group and self._members[group, member] >= left:
            return False
        if not self._groups.take(group):
            return False
        self._members[group, member] += 1
        return True

    def give_back(self, group: str, member: str) -> None:
        """Free one seat of a member."""
        self._groups.give_back(group)
        self._members[group, member] -= 1
        if not self._members[group, member]:
            del self._members[group, member]
