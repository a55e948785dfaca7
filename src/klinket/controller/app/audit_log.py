"""Reading the audit: events as exported."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from klinket.controller.app.audit import iso
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import AuditRow
from klinket.domain.audit_chain import BEGINNING, VERSION


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
    return found[0].digest if found else BEGINNING


def with_previous(tx: Transaction, rows: list[AuditRow]) -> Iterator[tuple[AuditRow, str]]:
    """Yield rows that follow each other by number, each with the digest of the event before it."""
    previous, number = BEGINNING, 0
    for row in rows:
        if row.number != number + 1:
            previous = digest_at(tx, row.number - 1)
        yield row, previous
        previous, number = row.digest, row.number
