"""Limits on logins: per service account, all keys together, and a back-off for addresses that fail (security.md 20)."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from klinket.domain.errors import Throttled

#: Logins of one service account: so many at once, and so many per second after that.
LOGIN_BURST = 60
LOGINS_PER_SECOND = 2.0
#: Failed logins of one address before it has to wait, and how fast they are forgiven.
FAILURE_BURST = 20
FAILURES_PER_SECOND = 0.2
#: Buckets kept; the least recently used go first.
MAX_BUCKETS = 100_000


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class TokenBuckets:
    """One token bucket per name. `now` in seconds on any clock that does not go back."""

    def __init__(self, burst: int, per_second: float) -> None:
        self._burst = float(burst)
        self._rate = per_second
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def wait(self, name: str, now: float) -> float:
        """Return after how many seconds there is a token; 0: now."""
        return max(0.0, (1.0 - self._filled(name, now).tokens) / self._rate)

    def take(self, name: str, now: float, count: int = 1) -> None:
        """Take tokens of which `wait` said that there is one (or go below zero)."""
        self._filled(name, now).tokens -= count

    def _filled(self, name: str, now: float) -> _Bucket:
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = _Bucket(self._burst, now)
            if len(self._buckets) > MAX_BUCKETS:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(name)
            bucket.tokens = min(self._burst, bucket.tokens + (now - bucket.at) * self._rate)
            bucket.at = now
        return bucket


class LoginThrottle:
    """What logins may do. Limits of an account count only after the key has proved itself."""

    def __init__(self) -> None:
        self._accounts = TokenBuckets(LOGIN_BURST, LOGINS_PER_SECOND)
        self._failures = TokenBuckets(FAILURE_BURST, FAILURES_PER_SECOND)

    def check_address(self, address: str, now: float) -> None:
        """Raise Throttled for an address with too many failed logins."""
        wait = self._failures.wait(address, now)
        if wait:
            raise Throttled(
                f"too many failed logins from {address}: {FAILURE_BURST} are allowed",
                hint=f"try again in {wait:.0f} s",
                retry_after=wait,
            )

    def failed(self, address: str, now: float) -> None:
        """Count a failed login."""
        self._failures.take(address, now)

    def count_account(self, account: str, name: str, now: float) -> None:
        """Count a proven login of a service account; raises Throttled."""
        wait = self._accounts.wait(account, now)
        if wait:
            raise Throttled(
                f"service account {name!r} logs in too often: {LOGIN_BURST} at once and {LOGINS_PER_SECOND:g} a second "
                "for all its keys together",
                retry_after=wait,
            )
        self._accounts.take(account, now)
