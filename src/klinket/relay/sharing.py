"""Which pairs of a relay are moved by its workers: those that move much, and the oldest where it has very many.

Admissions, counters of hellos, shares and pairing stay with the one process: there is one truth about each.
"""

from __future__ import annotations

import asyncio
import os

from klinket.net import workers
from klinket.net.descriptors import raise_limit
from klinket.net.splice import Pair
from klinket.net.workers import LOOK_SECONDS, Program, WorkerPool, give_away
from klinket.relay import pair_worker
from klinket.relay.limits import RelayLimits

#: A pair takes two sockets. Each direction with bytes in flight borrows the two ends of a kernel pipe: where none is left, its
#: bytes wait where they are.
DESCRIPTORS_PER_PAIR = 3


class _Given:
    """A pair that a worker has. Implements workers.Item."""

    __slots__ = ("_ended", "_pair")

    def __init__(self, pair: Pair, sharing: PairSharing) -> None:
        self._pair = pair
        self._ended = sharing.ended

    def told(self, kind: int, content: bytes, files: list[int]) -> bool:
        for file in files:
            os.close(file)
        if received := pair_worker.decode_received(content):
            self._pair.received_elsewhere(received)
        if kind == pair_worker.MOVED:
            return False
        self.lost()
        return True

    def lost(self) -> None:
        self._ended()
        self._pair.ended()


class PairSharing:
    """The pairs of a relay and its workers. `processes`: how many share the work."""

    def __init__(self, processes: int, limits: RelayLimits) -> None:
        each = (raise_limit() - workers.SPARE_DESCRIPTORS) // DESCRIPTORS_PER_PAIR
        self.pool = WorkerPool(Program(pair_worker.__name__, str(limits.pair_idle_seconds)), processes, each)
        #: Pairs the relay's own process keeps before it gives the oldest away; the server sets it by its files.
        self.kept = each
        #: Pairs that workers have.
        self.given = 0
        self._here: dict[Pair, None] = {}
        self._timer: asyncio.TimerHandle | None = None

    @property
    def capacity(self) -> int:
        """Return how many pairs workers can have."""
        return self.pool.capacity

    def attend(self, pair: Pair) -> None:
        """Look at a pair from now on."""
        self._here[pair] = None
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._timer = None
        self._here = {pair: None for pair in self._here if not pair.over}
        give_away(
            self._here,
            lambda pair: pair.moved,
            self.kept,
            lambda pair, busy: self.give(pair, busy=busy),
            started=self.pool.started,
        )
        if self._here:
            self._timer = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def give(self, pair: Pair, *, busy: bool = True) -> bool:
        """Give a pair to a worker; False when none takes any now. One with bytes in flight stays for the next look."""
        state = pair.hand_over()
        if state is None:
            return True
        files, ended = state
        content = bytes((ended[0] | ended[1] << 1,))
        if self.pool.give(pair_worker.SPLICE, content, files, _Given(pair, self), busy=busy) is None:
            pair.stay()
            return False
        self._here.pop(pair, None)
        self.given += 1
        pair.moved_elsewhere()
        return True

    def ended(self) -> None:
        """Count a pair no more that a worker had."""
        self.given -= 1

    def close(self) -> None:
        """End the workers: their pairs are reset."""
        if self._timer is not None:
            self._timer.cancel()
        self.pool.kill_all()
