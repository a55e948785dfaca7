"""Reading the audit: events as exported, the signatures under them, and what an export of a time range holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import AuditRow
from klinket.domain.audit_chain import BEGINNING, VERSION, SignedBlock, SignedRange
from klinket.domain.moments import iso
from klinket.wire.audit_signature import MAX_EVENTS

#: A signature is made when this many events wait for one, or ...
SIGN_EVENTS = MAX_EVENTS
#: ... when the oldest of them is this many milliseconds old.
SIGN_AFTER_MS = 5 * 60_000
#: Events read at a time.
PAGE_EVENTS = 500


def exported_event(row: AuditRow, previous: str) -> dict[str, Any]:
    """Return an event as exported, with its digest. `previous`: the digest of the event before it."""
    actor = dict(row.actor)
    source = actor.pop("source", None)
    return {
        "version": VERSION,
        "number": row.number,
        "time": iso(row.time_ms),
        "actor": actor,
        "action": row.action,
        "targets": row.targets,
        "source": source,
        "request": row.request,
        "detail": row.detail,
        "previous": previous,
        "digest": row.digest,
    }


def digest_at(tx: Transaction, number: int) -> str:
    """Return the digest of the event with this number; BEGINNING where there is none."""
    found = tx.audit.find(number=number) if number > 0 else []
    if found:
        return found[0].digest
    anchor = tx.audit_anchor.get(1)
    return anchor.digest if anchor is not None and anchor.number == number else BEGINNING


def pruned(tx: Transaction) -> int:
    """Return the number of the last event that retention removed; 0: none was."""
    anchor = tx.audit_anchor.get(1)
    return 0 if anchor is None else anchor.number


def signed(tx: Transaction) -> int:
    """Return the number of the last event under a signature; one that was removed is under the anchor's."""
    newest = tx.audit_signatures.newest(1, order="number")
    return max(newest[0].number if newest else 0, pruned(tx))


def with_previous(tx: Transaction, rows: list[AuditRow]) -> Iterator[tuple[AuditRow, str]]:
    """Yield rows that follow each other by number, each with the digest of the event before it."""
    previous, number = BEGINNING, 0
    for row in rows:
        if row.number != number + 1:
            previous = digest_at(tx, row.number - 1)
        yield row, previous
        previous, number = row.digest, row.number


# ---- signatures


def sign_next(tx: Transaction, network: str, sign: Callable[[SignedBlock], str], *, now: bool = False) -> bool:
    """Sign the oldest events that wait for it, if it is time (or `now`); returns whether that was done."""
    head, before = tx.audit_head.get(1), signed(tx)
    if head is None or head.number <= before:
        return False
    last = min(head.number, before + SIGN_EVENTS)
    rows = tx.audit.select("number", SIGN_EVENTS, least={"number": before + 1}, below={"number": last + 1})
    # One of the future was recorded while the clock was ahead: it waits for nothing.
    young = not rows or tx.now_ms - SIGN_AFTER_MS < rows[0].time_ms <= tx.now_ms
    if last - before < SIGN_EVENTS and young and not now:
        return False
    digests = {row.number: row.digest for row in rows}
    # An event that is gone from the table has no digest any more; its place stays, and verification says that it is missing.
    listed = tuple(digests.get(number, BEGINNING) for number in range(before + 1, last + 1))
    block = SignedBlock(network, before + 1, digest_at(tx, before), listed, tx.now_ms // 1000)
    tx.audit_signatures.add(number=last, token=sign(block))
    return True


# ---- exports


@dataclass(frozen=True, slots=True)
class Exported:
    """What one step of an export gives: events as exported, and the token of a signature after the event it ends with."""

    events: list[dict[str, Any]]
    signatures: dict[int, str]


def range_of(tx: Transaction, network: str, begin_ms: int | None, end_ms: int | None) -> SignedRange:
    """Return what an export of a time range holds: all events from the first in it to the last in it, by number.

    A clock that was wrong for a moment must hide nothing: the range begins at the lowest number whose time is not too early, and
    ends at the highest whose time is not too late, so it may hold events of other times, and never lacks one of its own. Where
    the event before is not there, and retention did not remove it, the range begins with what is missing: verification says so.
    """
    head = tx.audit_head.get(1)
    assert head is not None  # the database was made with one
    beginning = pruned(tx) + 1
    first, last = beginning, head.number
    if begin_ms is not None:
        found = tx.audit.select("number", 1, least={"time_ms": begin_ms})
        first = found[0].number if found else last + 1
        earlier = tx.audit.select("number", 1, below={"number": first}, descending=True)
        first = earlier[0].number + 1 if earlier else beginning
    if end_ms is not None:
        found = tx.audit.select("number", 1, below={"time_ms": end_ms}, descending=True)
        last = found[0].number if found else first - 1
    last = max(last, first - 1)
    return SignedRange(network, first, last, digest_at(tx, first - 1), digest_at(tx, last), begin_ms, end_ms, tx.now_ms // 1000)


def anchor_of(tx: Transaction, first: int) -> str | None:
    """Return the signed anchor, if event `first` is the first one that retention left."""
    anchor = tx.audit_anchor.get(1)
    return anchor.token if anchor is not None and anchor.number == first - 1 else None


def export_step(tx: Transaction, whole: SignedRange, after: int) -> Exported:
    """Return the events of an export that follow event `after`, at most PAGE_EVENTS of them, with the signatures under them."""
    begin = max(after + 1, whole.first)
    rows = tx.audit.select("number", PAGE_EVENTS, least={"number": begin}, below={"number": whole.last + 1})
    if not rows:
        return Exported([], {})
    end = rows[-1].number
    signatures = {
        row.number: row.token
        for row in tx.audit_signatures.select("number", PAGE_EVENTS, least={"number": begin}, below={"number": end + 1})
    }
    if end == whole.last and end not in signatures:
        # The block that the last event is in goes on beyond it.
        for row in tx.audit_signatures.select("number", 1, least={"number": end}):
            signatures[end] = row.token
    return Exported([exported_event(row, previous) for row, previous in with_previous(tx, rows)], signatures)
