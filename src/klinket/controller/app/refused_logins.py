"""How many logins of each service account limits have refused since this controller began, whatever the audit kept of them."""

from __future__ import annotations

from collections import Counter

from klinket.domain.identifiers import ServiceAccountUuid

#: Accounts that are counted; the one whose first refusal is longest ago goes first.
MAX_ACCOUNTS = 10_000


class RefusedLogins:
    """By account and limit: `logins`, `sessions`, `seats`. Only proven logins are counted, so only accounts that exist."""

    def __init__(self) -> None:
        self._counts: dict[ServiceAccountUuid, Counter[str]] = {}

    def add(self, account: ServiceAccountUuid, limit: str) -> None:
        """Count one."""
        self._counts.setdefault(account, Counter())[limit] += 1
        if len(self._counts) > MAX_ACCOUNTS:
            del self._counts[next(iter(self._counts))]

    def total(self, account: str) -> int:
        """Return how many of an account were refused."""
        return sum(self._counts.get(ServiceAccountUuid(account), Counter()).values())

    def told(self, account: str) -> str:
        """Return how many, and for which limits, in words."""
        counts = self._counts.get(ServiceAccountUuid(account), Counter())
        which = ", ".join(f"{limit} {count}" for limit, count in sorted(counts.items()))
        return f"{self.total(account)} ({which})" if which else "0"
