"""A flow as one line: who reached what, how it went, how much and how long."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import FlowEventRow, LiveFlowRow
from klinket.controller.console.words import failure_in_words

#: Kind of a pill and its word, by the kind of the event.
_RESULTS = {
    "established": ("ok", "Established"),
    "closed": ("ok", "Completed"),
    "failed": ("bad", "Failed"),
    "denied": ("bad", "Denied"),
}


@dataclass(frozen=True, slots=True)
class FlowLine:
    """`event`: id of the event that tells it, None where that is gone. Sizes in bytes, None: not known."""

    event: int | None
    time_ms: int
    service: str
    service_id: int | None
    key: str
    resource: str | None
    resource_id: int | None
    host: str
    port: int
    protocol: str
    connector: str
    pill: str
    result: str
    why: str
    sent: int | None = None
    received: int | None = None
    duration_ms: int | None = None

    @property
    def target(self) -> str:
        """Return host and port; of ICMP, which has no ports, the host."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}" if self.port else self.host


def result_of(kind: str, failure: str | None) -> tuple[str, str]:
    """Return kind of pill and word of how a flow went."""
    return ("warn", "Ended") if kind == "closed" and failure else _RESULTS.get(kind, ("idle", kind))


def lines(tx: Transaction, rows: Collection[FlowEventRow]) -> list[FlowLine]:
    """Return events as lines."""
    resources = _resources(tx, rows)
    return [
        _line(row.event, row, row.id, row.time_ms, resources, *result_of(row.kind, row.failure), failure_in_words(row.failure))
        for row in rows
    ]


def live_lines(tx: Transaction, rows: Collection[LiveFlowRow]) -> list[FlowLine]:
    """Return live flows as lines."""
    resources = _resources(tx, rows)
    begun = tx.flow_events.find(flow={row.flow for row in rows}, kind="established") if rows else []
    events = {(row.connector_id, row.flow): row.id for row in begun}
    return [
        _line(row.event, row, events.get((row.connector_id, row.flow)), row.established_at_ms, resources, "ok", "Live", "")
        for row in rows
    ]


def _resources(tx: Transaction, rows: Iterable[FlowEventRow | LiveFlowRow]) -> dict[int, str]:
    ids = {row.resource_id for row in rows if row.resource_id is not None}
    return {row.id: row.name for row in tx.resources.find(id=ids)} if ids else {}


def _line(
    event: dict[str, Any],
    row: FlowEventRow | LiveFlowRow,
    id: int | None,
    time_ms: int,
    resources: dict[int, str],
    pill: str,
    result: str,
    why: str,
) -> FlowLine:
    link, account = event["connection"], event["service_account"]
    return FlowLine(
        id,
        time_ms,
        account["name"] or account["id"],
        row.service_account_id,
        account["key"] or account["key_id"],
        None if row.resource_id is None else resources.get(row.resource_id, f"resource {row.resource_id} (deleted)"),
        row.resource_id if row.resource_id in resources else None,
        event["resource"]["address"],
        link["resource_port"],
        link["protocol"],
        event["connector"]["name"] or f"connector {row.connector_id}",
        pill,
        result,
        why,
        link.get("tx"),
        link.get("rx"),
        link.get("duration"),
    )
