"""Lock-out of sign-ins, in the store: by address first, then by account, whether there is such an account or not.

A browser that has signed in to an account before is counted by itself: those who guess elsewhere cannot keep its owner out. Each
try counts as failed until it has succeeded, so tries made at the same time gain nothing.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import LockOutRow
from klinket.domain.audit import AuditAction, AuditEvent
from klinket.domain.errors import SignInLocked
from klinket.domain.lock_out import ACCOUNT, ADDRESS, FACTOR, FORGET_MS, MAX_KEYS, LockOut, LockOutRule

#: Keys removed in one round of housekeeping.
MAX_A_ROUND = 1_000


class Proof(Enum):
    """What is tried."""

    PASSWORD = "password"  # noqa: S105 - a word
    FACTOR = "second-factor"


_RULES = {Proof.PASSWORD: ACCOUNT, Proof.FACTOR: FACTOR}


@dataclass(frozen=True, slots=True)
class Counted:
    """What one try counts for. `source`: the address, IPv6 cut to its /64; `account`: the e-mail address as typed, or None.

    `device`: what a browser keeps from an earlier sign-in to this account, or None.
    """

    source: str
    account: str | None
    device: str | None = None
    proof: Proof = Proof.PASSWORD

    @property
    def keys(self) -> tuple[tuple[str, LockOutRule], ...]:
        """Return the keys with their rules, the address first. A known browser counts by itself alone."""
        if self.account is None:
            return ((_key("address", self.source), ADDRESS),)
        account = f"{self.proof.value} {self.account.casefold()}"
        if self.device is not None:
            return ((_key("device", f"{account} {self.device}"), _RULES[self.proof]),)
        return (_key("address", self.source), ADDRESS), (_key("account", account), _RULES[self.proof])


def _key(kind: str, what: str) -> str:
    return f"{kind} {hashlib.sha256(what.encode('utf-8', 'surrogatepass')).hexdigest()}"


def count_try(tx: Transaction, counted: Counted) -> None:
    """Count a try as failed until `succeeded` is called; raises SignInLocked, then without counting it."""
    found = [(key, rule, tx.lock_outs.get(key)) for key, rule in counted.keys]
    wait = max(row.state.wait_ms(tx.now_ms) if row else 0 for _, _, row in found)
    if wait:
        seconds = math.ceil(wait / 1000)
        raise SignInLocked(
            f"too many failed sign-ins: nothing is tried for the next {_spoken(seconds)}", retry_after=float(seconds)
        )
    for key, rule, row in found:
        _put(tx, key, row, (row.state if row else LockOut()).failed(rule, tx.now_ms))


def succeeded(tx: Transaction, counted: Counted) -> None:
    """Take back what a try counted. The account's earlier failures are forgotten, those of its address are not."""
    for key, rule in counted.keys:
        row = tx.lock_outs.get(key)
        if row is None:
            continue
        if rule is ADDRESS:
            _put(tx, key, row, row.state.taken_back(rule, tx.now_ms))
        else:
            tx.lock_outs.remove(key=key)


def take_back(tx: Transaction, counted: Counted) -> None:
    """Take back what a try counted that was not looked at after all: it says nothing, earlier failures stay."""
    for key, rule in counted.keys:
        row = tx.lock_outs.get(key)
        if row is not None:
            _put(tx, key, row, row.state.taken_back(rule, tx.now_ms))


def record_lock_outs(tx: Transaction, actor: Actor, counted: Counted, targets: tuple[dict[str, Any], ...]) -> None:
    """Write an audit event for each key that is locked now, after a try that failed."""
    for key, _ in counted.keys:
        row = tx.lock_outs.get(key)
        if row is not None and (wait := row.state.wait_ms(tx.now_ms)):
            detail = {"what": key.partition(" ")[0], "seconds": math.ceil(wait / 1000), "failures": int(row.failures)}
            tx.record(AuditEvent(AuditAction.LOCK_OUT, actor, targets, detail))


def forget(tx: Transaction) -> None:
    """Remove keys whose last failure was long ago, and those above MAX_KEYS: the oldest first."""
    tx.lock_outs.remove_below("last_failure_ms", tx.now_ms - FORGET_MS)
    if (over := tx.lock_outs.count() - MAX_KEYS) > 0:
        oldest = tx.lock_outs.select("last_failure_ms", min(over, MAX_A_ROUND))
        tx.lock_outs.remove(key=[row.key for row in oldest])


def _put(tx: Transaction, key: str, row: LockOutRow | None, state: LockOut) -> None:
    values = {
        "failures": state.failures, "last_failure_ms": state.last_failure_ms, "locked_until_ms": state.locked_until_ms,
    }  # fmt: skip
    if row is None:
        tx.lock_outs.add_all([{"key": key, **values}])
    else:
        tx.lock_outs.change(key, **values)


def _spoken(seconds: int) -> str:
    if seconds == 1:
        return "second"
    return f"{seconds} seconds" if seconds < 120 else f"{math.ceil(seconds / 60)} minutes"
