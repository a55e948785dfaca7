"""Bandwidth of service accounts that have a limit of it: all their flows here share it, each direction by itself.

Accounts without one cost nothing: their flows have no lane, and may be carried by worker processes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from klinket.connector.core import Flow
from klinket.connector.traffic import Carrier
from klinket.net.pacing import Lanes


class Bandwidth:
    """`limit_of`: gives the bytes a second of an account, 0: no limit."""

    def __init__(self, limit_of: Callable[[str], int]) -> None:
        self._limit_of = limit_of
        self._lanes: dict[str, Lanes] = {}
        self._flows: Counter[str] = Counter()
        self._waits = 0
        self._dropped = 0

    @property
    def accounts(self) -> int:
        """Return how many accounts with flows have a limit."""
        return len(self._lanes)

    @property
    def waits(self) -> int:
        """Return how often a flow has waited for its turn."""
        return self._waits + sum(line.waits for lanes in self._lanes.values() for line in lanes)

    @property
    def dropped(self) -> int:
        """Return how many datagrams were dropped because too many waited."""
        return self._dropped + sum(line.dropped for lanes in self._lanes.values() for line in lanes)

    def begins(self, flow: Flow, carrier: Carrier) -> None:
        """Have a flow that is about to be carried share its account's bandwidth."""
        account = flow.principal.account
        limit = self._limit_of(account)
        if limit:
            lanes = self._lanes.get(account)
            if lanes is None:
                lanes = self._lanes[account] = Lanes.of(limit)
            self._flows[account] += 1
            carrier.pace(lanes)

    def over(self, flow: Flow) -> None:
        """Forget a flow that has ended, and with an account's last flow its lanes."""
        account = flow.principal.account
        if account in self._lanes:
            self._flows[account] -= 1
            if not self._flows[account]:
                self._forget(account)

    def limits_changed(self, live: Sequence[tuple[Flow, Carrier]]) -> None:
        """Look at the limits again, for the flows that live as well."""
        for account, lanes in list(self._lanes.items()):
            limit = self._limit_of(account)
            for line in lanes:
                line.set_rate(limit or None)  # who waits goes on at the new rate
            if not limit:
                self._forget(account)
                for flow, carrier in live:
                    if flow.principal.account == account:
                        carrier.pace(None)
        for account in {flow.principal.account for flow, _ in live} - self._lanes.keys():
            if self._limit_of(account):
                for flow, carrier in live:
                    if flow.principal.account == account:
                        self.begins(flow, carrier)

    def _forget(self, account: str) -> None:
        for line in self._lanes.pop(account):
            self._waits += line.waits
            self._dropped += line.dropped
        del self._flows[account]
