"""Refused logins are counted by account and limit, for a bounded number of accounts."""

from __future__ import annotations

from klinket.controller.app import refused_logins
from klinket.controller.app.refused_logins import RefusedLogins
from klinket.domain.identifiers import ServiceAccountUuid


def test_refusals_are_told_by_limit() -> None:
    counts, one = RefusedLogins(), ServiceAccountUuid("one")
    assert (counts.total(one), counts.told(one)) == (0, "0")
    for limit in ("seats", "logins", "seats"):
        counts.add(one, limit)
    assert (counts.total(one), counts.told(one)) == (3, "3 (logins 1, seats 2)")
    assert counts.total("other") == 0


def test_no_more_accounts_are_counted_than_there_may_be() -> None:
    counts = RefusedLogins()
    for number in range(refused_logins.MAX_ACCOUNTS + 5):
        counts.add(ServiceAccountUuid(str(number)), "logins")
    assert (counts.total("4"), counts.total("5")) == (0, 1)
