"""Bandwidth of service accounts that have a limit of it: all their flows here share it, each direction by itself.

Flows of accounts without one have no lane, and may be carried by worker processes.
"""

from __future__ import annotations

from collections.abc import Callable

from klinket.connector.core import Flow
from klinket.connector.traffic import Carrier
from klinket.net.pacing import Lanes


class Bandwidth:
    """`limit_of`: gives the bytes a second of an account, 0: no limit."""

    def __init__(self, limit_of: Callable[[str], int]) -> None:
        self._limit_of = limit_of
        #: Of accounts that have flows: the limit that their lanes have, and the lanes of those that have one.
        self._limits: dict[str, int] = {}
        self._lanes: dict[str, Lanes] = {}
        self._flows: dict[str, dict[Flow, Carrier]] = {}
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
        if account not in self._flows:
            self._flows[account] = {}
            self._limit(account, self._limit_of(account))
        self._flows[account][flow] = carrier
        if (lanes := self._lanes.get(account)) is not None:
            carrier.pace(lanes)

    def over(self, flow: Flow) -> None:
        """Forget a flow that has ended, and with an account's last flow its lanes."""
        account = flow.principal.account
        flows = self._flows.get(account)
        if flows is not None and flows.pop(flow, None) is not None and not flows:
            self._limit(account, 0)
            del self._flows[account], self._limits[account]

    def limits_changed(self) -> None:
        """Look at the limits again. It costs the accounts that have flows, and the flows of those that get or lose a limit."""
        for account in list(self._flows):
            limit = self._limit_of(account)
            if limit != self._limits[account]:
                self._limit(account, limit)

    def _limit(self, account: str, limit: int) -> None:
        """Set, change or take away the limit of an account, for the flows it has."""
        self._limits[account] = limit
        lanes = self._lanes.get(account)
        if lanes is not None:
            for line in lanes:
                line.set_rate(limit or None)  # who waits goes on at the new rate
            if limit:
                return
            for line in self._lanes.pop(account):
                self._waits += line.waits
                self._dropped += line.dropped
        elif limit:
            lanes = self._lanes[account] = Lanes.of(limit)
        else:
            return
        for carrier in list(self._flows[account].values()):
            carrier.pace(lanes if limit else None)
