"""Forgetting what is older than the audit is kept: its events, from the first on, and cuts with their receipts.

What is removed of the audit stays provable to have been there: a signed anchor says how many events there were, and the digest of
the last. Nothing is removed that a sink has not got, that is not signed, or that is not as it was signed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from klinket.controller.app import audit_check, audit_log
from klinket.controller.app.audit import TARGET_VERSION
from klinket.controller.app.ports import Transaction
from klinket.domain.audit import SYSTEM, AuditAction, AuditEvent
from klinket.domain.audit_chain import SignedAnchor, SignedBlock
from klinket.domain.moments import iso
from klinket.domain.sink import Stream

DAY_MS = 24 * 3_600_000
#: Days for which the audit is kept, unless set otherwise, and what can be set.
DEFAULT_DAYS = 365
MIN_DAYS = 30
MAX_DAYS = 36_500
#: Days after which what is too old is removed together: each removal is an audit event itself.
TOGETHER_DAYS = 1
#: Cuts removed at a time; of audit events audit_check.PART_EVENTS.
STEP_CUTS = 100


@dataclass(frozen=True, slots=True)
class AuditKeys:
    """How signatures under the audit are made and verified; `open_...` raise InvalidToken."""

    network: str
    open_block: Callable[[str], SignedBlock]
    open_anchor: Callable[[str], SignedAnchor]
    sign_anchor: Callable[[SignedAnchor], str]


def _bound_ms(tx: Transaction, days: int) -> int:
    return tx.now_ms - days * DAY_MS


def _is_overdue(time_ms: int, bound_ms: int) -> bool:
    return time_ms < bound_ms - TOGETHER_DAYS * DAY_MS


def _oldest_is_overdue(tx: Transaction, bound_ms: int) -> bool:
    """Return whether the first event that is left is."""
    first = tx.audit.find(number=audit_log.pruned(tx) + 1)
    return bool(first) and _is_overdue(first[0].time_ms, bound_ms)


def _cuts_are_overdue(tx: Transaction, bound_ms: int) -> bool:
    oldest = tx.cuts.select("created_at_ms", 1)
    return bool(oldest) and _is_overdue(oldest[0].created_at_ms, bound_ms)


def _delivered(tx: Transaction) -> dict[str, int]:
    """Return the number of the last audit event that each sink has got; those of no audit events are left out."""
    wanted = {Stream.AUDIT.value, Stream.WARNINGS.value}
    return {row.name: row.audit_position for row in tx.sinks.find() if wanted & set(row.streams)}


def held_by(tx: Transaction, days: int) -> list[str]:
    """Return the names of the sinks that events too old are kept for: they have not got them yet."""
    if not _oldest_is_overdue(tx, _bound_ms(tx, days)):
        return []
    signatures = tx.audit_signatures.select("number", 1)
    first = signatures[0].number if signatures else 0  # what is under one signature goes together
    return sorted(name for name, position in _delivered(tx).items() if position < first)


def is_due(tx: Transaction, days: int) -> bool:
    """Return whether there is something to remove; held back by a sink, there is not."""
    bound = _bound_ms(tx, days)
    return _cuts_are_overdue(tx, bound) or (_oldest_is_overdue(tx, bound) and not held_by(tx, days))


def prune(tx: Transaction, days: int, keys: AuditKeys) -> bool:
    """Remove a bounded number of what is older than `days`, and record that; returns whether there was something.

    Raises AuditNotIntact when what would be removed is not what was signed: then it stays, and shows.
    """
    bound = _bound_ms(tx, days)
    detail: dict[str, Any] = {"days": days}
    if _oldest_is_overdue(tx, bound):
        detail |= _prune_audit(tx, bound, keys)
    if _cuts_are_overdue(tx, bound):
        detail |= _prune_cuts(tx, bound)
    if len(detail) == 1:
        return False
    target = {"version": TARGET_VERSION, "type": "audit", "id": "1", "name": "audit"}
    tx.record(AuditEvent(AuditAction.PRUNE, SYSTEM, (target,), detail))
    return True


def _prune_audit(tx: Transaction, bound_ms: int, keys: AuditKeys) -> dict[str, Any]:
    """Remove events up to a signature, put the anchor in their place, and return what was removed: nothing, if nothing may be."""
    before = audit_log.pruned(tx)
    signatures = tx.audit_signatures.select(
        "number",
        audit_check.PART_SIGNATURES,
        least={"number": before + 1},
        below={"number": before + audit_check.PART_EVENTS + 1},
    )
    numbers = [row.number for row in signatures]
    ends = {row.number: row for row in tx.audit.find(number=set(numbers))} if numbers else {}
    may_go = min(_delivered(tx).values(), default=numbers[-1] if numbers else 0)
    last = None
    for number in numbers:
        if number > may_go or number not in ends or ends[number].time_ms >= bound_ms:
            break
        last = ends[number]
    if last is None:
        return {}
    # Also its time is in the digest: events that somebody made older than they are must not go.
    checked = audit_check.part(tx, keys.network, keys.open_block, before, keys.open_anchor)
    if checked.wrong is not None:
        raise checked.wrong
    token = keys.sign_anchor(SignedAnchor(keys.network, last.number, last.digest, last.time_ms, tx.now_ms // 1000))
    tx.audit.remove_below("number", last.number + 1)
    tx.audit_signatures.remove_below("number", last.number + 1)
    anchor = {
        "number": last.number, "digest": last.digest, "until_ms": last.time_ms, "created_at_ms": tx.now_ms, "token": token,
    }  # fmt: skip
    if tx.audit_anchor.get(1) is None:
        tx.audit_anchor.add(id=1, **anchor)
    else:
        tx.audit_anchor.change(1, **anchor)
    return {"first": before + 1, "last": last.number, "digest": last.digest, "until": iso(last.time_ms)}


def _prune_cuts(tx: Transaction, bound_ms: int) -> dict[str, Any]:
    """Remove cuts with their receipts, whether answered or not: every grant they were about ended long ago."""
    ids = [row.id for row in tx.cuts.select("created_at_ms", STEP_CUTS, below={"created_at_ms": bound_ms})]
    receipts = tx.cut_receipts.remove(cut_id=ids)
    return {"cuts": tx.cuts.remove(id=ids), "receipts": receipts}


def state(tx: Transaction, days: int) -> dict[str, Any]:
    """Return what is kept and what was removed: times in milliseconds, None while nothing was."""
    anchor, head = tx.audit_anchor.get(1), tx.audit_head.get(1)
    newest = head.number if head is not None else 0
    return {
        "days": days,
        "events": newest - (anchor.number if anchor is not None else 0),
        "pruned": anchor.number if anchor is not None else 0,
        "digest": anchor.digest if anchor is not None else None,
        "until_ms": anchor.until_ms if anchor is not None else None,
        "pruned_at_ms": anchor.created_at_ms if anchor is not None else None,
        "held_by": held_by(tx, days),
    }
