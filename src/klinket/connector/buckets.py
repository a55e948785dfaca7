"""Token buckets per service account, with rate and burst given at each use."""

from __future__ import annotations

from collections import OrderedDict

from klinket.connector.limits import MAX_BUCKETS


class TokenBuckets:
    """Tokens by name; `now` in seconds on one clock."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str, now: float, *, rate: float, burst: int) -> float:
        """Take one token; returns 0, or after how many seconds there is one (and takes none)."""
        tokens, at = self._buckets.get(name, (float(burst), now))
        tokens = min(float(burst), tokens + max(0.0, now - at) * rate)
        wait = 0.0 if tokens >= 1 else (1 - tokens) / rate
        self._buckets[name] = (tokens - 1 if not wait else tokens, now)
        self._buckets.move_to_end(name)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        return wait
