"""Lock-out with back-off: failures cost nothing at first, then each doubles the wait; time forgives them one by one."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LockOutRule:
    """`free` failures are without a wait; the next waits `first_ms`, each further one twice as long, `last_ms` at the most.

    One failure is forgiven in every `forgive_ms`.
    """

    free: int
    first_ms: int
    last_ms: int
    forgive_ms: int


@dataclass(frozen=True, slots=True)
class LockOut:
    """What is remembered of one key. `failures` as of `last_failure_ms`; nothing is tried before `locked_until_ms`."""

    failures: float = 0.0
    last_failure_ms: int = 0
    locked_until_ms: int = 0

    def wait_ms(self, now_ms: int) -> int:
        """Return after how many milliseconds something may be tried; 0: now."""
        return max(0, self.locked_until_ms - now_ms)

    def remaining(self, rule: LockOutRule, now_ms: int) -> float:
        """Return how many failures are not forgiven yet. A clock that is set back forgives nothing."""
        return max(0.0, self.failures - max(0, now_ms - self.last_failure_ms) / rule.forgive_ms)

    def failed(self, rule: LockOutRule, now_ms: int) -> LockOut:
        """Return what is remembered after one more failure."""
        failures = self.remaining(rule, now_ms) + 1.0
        beyond = math.ceil(failures - rule.free)
        wait = 0 if beyond <= 0 else min(rule.last_ms, rule.first_ms << min(beyond - 1, 40))
        return LockOut(failures, now_ms, now_ms + wait)

    def taken_back(self, rule: LockOutRule, now_ms: int) -> LockOut:
        """Return what is remembered when the last failure turns out to be none."""
        return LockOut(max(0.0, self.remaining(rule, now_ms) - 1.0), now_ms, min(self.locked_until_ms, now_ms))


#: Of an address (IPv6: a /64), and of an account that is tried from places that never signed in to it. The address comes first:
#: who guesses from one place waits long before the account does.
ADDRESS = LockOutRule(free=8, first_ms=2_000, last_ms=900_000, forgive_ms=120_000)
ACCOUNT = LockOutRule(free=16, first_ms=2_000, last_ms=300_000, forgive_ms=300_000)
#: Of second factors after a right password: six digits are few.
FACTOR = LockOutRule(free=5, first_ms=10_000, last_ms=3_600_000, forgive_ms=3_600_000)
#: Milliseconds after which a key is forgotten whole, and keys remembered; those that failed longest ago go first.
FORGET_MS = 86_400_000
MAX_KEYS = 100_000
