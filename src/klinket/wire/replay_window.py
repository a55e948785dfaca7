"""Which counters of a datagram path were seen: each is taken once, in any order, within a window (as RFC 4303 §3.4.3 does)."""

from __future__ import annotations

#: Counters at and below the highest one seen that are told apart; older ones are refused, seen or not.
WINDOW = 2048
_MASK = (1 << WINDOW) - 1


class ReplayWindow:
    """Moved by `mark` alone, which is for counters of datagrams that have verified. `highest`: -1 before the first."""

    __slots__ = ("_seen", "highest")

    def __init__(self) -> None:
        self.highest = -1
        self._seen = 0  # bit n: the counter n below the highest

    def fresh(self, counter: int) -> bool:
        """Return whether a counter was not seen and is not too old to know."""
        behind = self.highest - counter
        return behind < 0 or (behind < WINDOW and not self._seen >> behind & 1)

    def mark_run(self, count: int) -> None:
        """Take so many counters, at least one, which follow the highest."""
        self.highest += count
        self._seen = (self._seen << count | (1 << count) - 1) & _MASK

    def mark(self, counter: int) -> None:
        """Take a counter that is fresh."""
        ahead = counter - self.highest
        if ahead <= 0:
            self._seen |= 1 << -ahead
        else:
            self._seen = 1 if ahead >= WINDOW else (self._seen << ahead & _MASK) | 1
            self.highest = counter
