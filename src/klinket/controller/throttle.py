"""Limits on logins: per service account, all keys together, and a back-off for addresses that fail (security.md 20)."""

from __future__ import annotations

from klinket.domain.errors import Throttled
from klinket.domain.token_buckets import TokenBuckets

#: Logins of one service account: so many at once, and so many per second after that.
LOGIN_BURST = 60
LOGINS_PER_SECOND = 2.0
#: Failed logins of one address before it has to wait, and how fast they are forgiven.
FAILURE_BURST = 20
FAILURES_PER_SECOND = 0.2


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
        wait = self._accounts.take(account, now)
        if wait:
            raise Throttled(
                f"service account {name!r} logs in too often: {LOGIN_BURST} at once and {LOGINS_PER_SECOND:g} a second "
                "for all its keys together",
                retry_after=wait,
            )
