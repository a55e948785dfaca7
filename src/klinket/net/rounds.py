"""How many datagrams to read from a socket in one turn of the loop."""

from __future__ import annotations

import time

#: Datagrams read in one turn of the loop, at the most.
BATCH = 64
#: Seconds within which the loop says again that a socket can be read, where another datagram was waiting in it already.
CLOSE_SECONDS = 0.00005


class Rounds:
    """Reads of one socket: one in a turn, so that a lone datagram costs no second read in vain; many while many are waiting.

    Whoever reads in the range of most() calls empty() when nothing was left, and all_read() when the range has ended before.
    """

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until = 0.0

    def most(self) -> int:
        """Return how many reads this turn may have."""
        return BATCH if time.monotonic() < self._until else 1

    def empty(self) -> None:
        """Note that there was nothing left to read."""
        self._until = 0.0

    def all_read(self) -> None:
        """Note that something may be left: the loop will say so at once."""
        self._until = time.monotonic() + CLOSE_SECONDS
