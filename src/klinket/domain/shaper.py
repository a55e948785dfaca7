"""A rate of bytes that many share: a token bucket, and turns for those who wait, one after the other.

In any time of `t` seconds no more than `rate * t + burst` bytes go; whoever waits has its turn after one of every other.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

#: Bytes of the largest thing that moves as a whole: a datagram.
MAX_WHOLE_BYTES = 65_536
#: Seconds of the rate that may go at once, and of one turn; both within bounds, in bytes.
BURST_SECONDS = 0.25
TURN_SECONDS = 0.02
MIN_TURN_BYTES, MAX_TURN_BYTES = 2_048, 65_536


def burst_of(rate: float) -> float:
    """Return how many bytes may go at once: BURST_SECONDS of the rate, and no less than the largest datagram."""
    return max(BURST_SECONDS * rate, float(MAX_WHOLE_BYTES))


def turn_of(rate: float) -> int:
    """Return the bytes of one turn."""
    return int(min(max(TURN_SECONDS * rate, MIN_TURN_BYTES), MAX_TURN_BYTES))


class Waiter(Protocol):
    """Who moves bytes. Compared as itself."""

    def turn(self) -> None:
        """Go on: what it takes before it returns is of its turn."""


class Shaper:
    """`rate`: bytes a second, None: as many as there are. `now`: seconds on a clock that does not go back."""

    def __init__(self, rate: float | None, now: float) -> None:
        self.rate = rate
        self._tokens = 0.0 if rate is None else burst_of(rate)
        self._at = now
        #: Who waits, in order, and how many bytes the first of its turn are.
        self._line: OrderedDict[Waiter, int] = OrderedDict()
        self._serving: Waiter | None = None
        self._left_of_turn = 0

    def set_rate(self, rate: float | None, now: float) -> None:
        """Change the rate; what is in the bucket stays, up to the new burst. Serve those who wait after that."""
        if self.rate is None:
            self._tokens = 0.0  # nothing was counted until now: begin without a burst
        else:
            self._fill(now)
        self._at, self.rate = now, rate
        if rate is not None:
            self._tokens = min(self._tokens, burst_of(rate))

    def take(self, waiter: Waiter, most: int, now: float, *, whole: bool = False) -> int:
        """Return how many of `most` bytes (at least 1) may go now. 0: `waiter` is in the line, and its turn() will be called.

        `whole`: all or none of them; `most` is MAX_WHOLE_BYTES or less then.
        """
        if self.rate is None:
            return most
        self._fill(now)
        turn = turn_of(self.rate)
        least = most if whole else min(most, turn)
        if self._serving is waiter:
            room = self._tokens if self._left_of_turn >= least else 0.0
            most = min(most, self._left_of_turn)
        else:
            room = 0.0 if self._line else self._tokens
        if room < least:
            # What moves as a whole has mostly more behind it: its turn is to be as large as others'.
            self._line.setdefault(waiter, max(least, turn) if whole else least)
            return 0
        taken = min(most, int(room))
        self._tokens -= taken
        if self._serving is waiter:
            self._left_of_turn -= taken
        return taken

    def give_back(self, waiter: Waiter, count: int) -> None:
        """Take back what was taken at this moment and not moved."""
        if self.rate is not None and count:
            self._tokens = min(self._tokens + count, burst_of(self.rate))
            if self._serving is waiter:
                self._left_of_turn += count

    def leave(self, waiter: Waiter) -> None:
        """Wait no more."""
        self._line.pop(waiter, None)

    def wait(self, now: float) -> float | None:
        """Return after how many seconds the next turn is due; None: nobody waits."""
        if not self._line:
            return None
        if self.rate is None:
            return 0.0
        self._fill(now)
        return max(0.0, (next(iter(self._line.values())) - self._tokens) / self.rate)

    def serve(self, now: float) -> None:
        """Give a turn to whoever waits, as far as the bytes go: each has one at the most."""
        for _ in range(len(self._line)):
            if self.rate is not None:
                self._fill(now)
                if not self._line or next(iter(self._line.values())) > self._tokens:
                    return
            if not self._line:
                return
            waiter, least = self._line.popitem(last=False)
            self._serving, self._left_of_turn = waiter, max(least, turn_of(self.rate or 0.0))
            try:
                waiter.turn()
            finally:
                self._serving = None

    @property
    def waiting(self) -> int:
        """Return how many wait."""
        return len(self._line)

    def _fill(self, now: float) -> None:
        assert self.rate is not None
        self._tokens = min(self._tokens + max(0.0, now - self._at) * self.rate, burst_of(self.rate))
        self._at = max(self._at, now)
