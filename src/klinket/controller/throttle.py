"""Limits on logins (security.md 20): per service account, all keys together, and only after a proof; failures alone are slowed.

A proof is cheap to check, so it comes first: nobody's failures keep another out, from whatever address they come.
"""

from __future__ import annotations

from klinket.domain.account_limits import DEFAULTS, AccountLimits
from klinket.domain.errors import (
    AssertionReplayed,
    AssertionStale,
    AuthenticationFailed,
    KlinketError,
    ServiceKeyExpired,
    ServiceKeyRevoked,
    Throttled,
)
from klinket.domain.token_buckets import TokenBuckets
from klinket.net.sources import source_of

#: Logins without a proof from one address, for one key, that are told what was wrong, and how fast they are forgiven.
FAILURE_BURST = 20
FAILURES_PER_SECOND = 0.2
#: Those of one address for all keys together: so many at once; they are forgiven as fast.
ADDRESS_FAILURE_BURST = 60
#: Refusals of one key that are written to the audit at once, and a second after that.
RECORD_BURST = 20
RECORDS_PER_SECOND = 0.1
#: Raised after the key has signed: whoever gets them holds it.
_PROVEN = (ServiceKeyRevoked, ServiceKeyExpired, AssertionReplayed, AssertionStale)


class LoginThrottle:
    """What logins may do. `now` in seconds on a clock that does not go back."""

    def __init__(self) -> None:
        self._accounts = TokenBuckets(DEFAULTS.login_burst, DEFAULTS.logins_per_second)
        self._failures = TokenBuckets(FAILURE_BURST, FAILURES_PER_SECOND)
        self._addresses = TokenBuckets(ADDRESS_FAILURE_BURST, FAILURES_PER_SECOND)
        self._records = TokenBuckets(RECORD_BURST, RECORDS_PER_SECOND)

    def failed(self, error: KlinketError, address: str, kid: str, now: float) -> None:
        """Count a login that was refused; raises Throttled in its place when there were too many without a proof."""
        if not isinstance(error, AuthenticationFailed) or isinstance(error, _PROVEN):
            return
        # By the key id as sent, whether there is such a key or not: it must not show. One address makes no buckets without end.
        source = source_of(address)
        wait, allowed = self._addresses.take(source, now), ADDRESS_FAILURE_BURST
        if not wait:
            wait, allowed = self._failures.take(f"{source} {kid}", now), FAILURE_BURST
        if wait:
            raise Throttled.again_in(wait, f"too many failed logins from {address}: {allowed} are allowed") from error

    def may_record(self, kid: str, now: float) -> bool:
        """Return whether one more refusal of this key is written to the audit."""
        return not self._records.take(kid, now)

    def count_account(self, account: str, name: str, now: float, limits: AccountLimits = DEFAULTS) -> None:
        """Count a proven login of a service account; raises Throttled."""
        wait = self._accounts.take(account, now, size=(limits.login_burst, limits.logins_per_second))
        if wait:
            raise Throttled(
                f"service account {name!r} logs in too often: {limits.login_burst} at once and {limits.logins_per_second:g} a "
                f"second for all its keys together; again in {wait:.1f} s",
                retry_after=wait,
                limit="logins",
            )
