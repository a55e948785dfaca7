"""Programs at work: so many flows at a time, of random sizes, one after another until told to stop."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable

from chaos.exchange import Outcome, as_program, outcome
from chaos.threads import Threads
from chaos.world import World

#: Bytes of a direction: mostly small, some that take long enough to be struck.
SIZES = ((0, 2_000), (2_000, 200_000), (200_000, 4_000_000), (4_000_000, 24_000_000))
WEIGHTS = (40, 40, 17, 3)
#: Seconds a program waits between two flows: the machine has to have time left, or recoveries tell of the load alone.
PAUSE_SECONDS = (0.5, 2.5)


class Load(Threads):
    """`outcomes`: the programs' ends by number. `refused`: connections that were not made, each an honest error."""

    def __init__(self, world: World, flows: int, seed: int) -> None:
        super().__init__([self._work] * flows, patience=200.0)
        self._world = world
        self._seed = seed
        self._lock = threading.Lock()
        self._next = 0
        self.outcomes: dict[int, Outcome] = {}
        self.refused = 0

    @property
    def lost(self) -> int:
        """Return how many flows have ended with an error until now."""
        return sum(one.word == "error" for one in list(self.outcomes.values()))

    def _work(self) -> None:
        while not self._over.is_set():
            with self._lock:
                number = self._next = self._next + 1
            self._flow(number)

    def _flow(self, number: int) -> None:
        rng = random.Random(self._seed * 1_000_003 + number)
        size: Callable[[], int] = lambda: rng.randint(*rng.choices(SIZES, WEIGHTS)[0])  # noqa: E731
        up, down, half_close = size(), size(), rng.random() < 0.5
        try:
            connection = self._world.dial()
        except OSError:
            self.refused += 1
            self._over.wait(0.1)
            return
        found: Exception | None = None
        with connection:
            try:
                as_program(connection, number, self._seed + number, up, down, half_close)
            except Exception as error:
                found = error
        self.outcomes[number] = outcome(found)
        self._over.wait(rng.uniform(*PAUSE_SECONDS))
