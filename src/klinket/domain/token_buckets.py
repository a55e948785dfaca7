"""Token buckets, one per name: so many at once, and so many a second after that."""

from __future__ import annotations

from collections import OrderedDict

#: Buckets kept when nothing else is said; the least recently used go first.
MAX_BUCKETS = 100_000


class TokenBuckets:
    """Full buckets to begin with. `now` in seconds on one clock; a step back refills nothing."""

    def __init__(self, burst: int, per_second: float, max_buckets: int = MAX_BUCKETS) -> None:
        self._burst = float(burst)
        self._rate = per_second
        self._max_buckets = max_buckets
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._all_alike = True

    def wait(self, name: str, now: float) -> float:
        """Return after how many seconds there is a token; 0: now. Takes none."""
        return max(0.0, (1.0 - self._filled(name, now)) / self._rate)

    def take(self, name: str, now: float, count: int = 1, size: tuple[float, float] | None = None) -> float:
        """Take `count` tokens and return 0; where there is not one, take none and return after how many seconds there is one.

        A bucket that is not empty gives more than it holds: those who come later wait for it. `size`: burst and rate of this
        bucket, where they are not those of all; where they change, what is in the bucket stays, up to the burst.
        """
        burst, rate = (self._burst, self._rate) if size is None else size
        tokens, at = self._buckets.get(name, (burst, now))
        tokens = min(burst, tokens + max(0.0, now - at) * rate)
        wait = max(0.0, (1.0 - tokens) / rate)
        self._buckets[name] = (tokens if wait else tokens - count, now)
        self._buckets.move_to_end(name)
        self._all_alike = self._all_alike and size is None
        if len(self._buckets) > self._max_buckets:
            self._buckets.popitem(last=False)
        self._forget_full(now)
        return wait

    def give_back(self, name: str, now: float, count: int = 1) -> None:
        """Put back `count` tokens that were taken for what turned out not to count."""
        self._buckets[name] = (min(self._burst, self._filled(name, now) + count), now)

    def _forget_full(self, now: float) -> None:
        """Forget the oldest buckets that are full again, as those are that nobody has: two at most, so it never takes long."""
        for _ in range(2 if self._all_alike else 0):
            name = next(iter(self._buckets), None)
            if name is None or self._filled(name, now) < self._burst:
                return
            del self._buckets[name]

    def _filled(self, name: str, now: float) -> float:
        tokens, at = self._buckets.get(name, (self._burst, now))
        return min(self._burst, tokens + max(0.0, now - at) * self._rate)

    def __len__(self) -> int:
        return len(self._buckets)
