"""Totals of flow events by the hour: what charts are drawn from, whatever the number of events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import FlowTotalRow
from klinket.wire.control import FlowEvent

HOUR_MS = 3_600_000
#: In place of an account or resource that is not known.
NOBODY = 0
#: Rows read for one chart; a chart of more is drawn from the newest of them.
MAX_ROWS = 20_000

_Key = tuple[int, int, int, str, str]


def add(tx: Transaction, events: Sequence[FlowEvent], stored: Sequence[Mapping[str, Any]]) -> None:
    """Count events. `stored`: their rows of flow_events, in the same order."""
    flows: Counter[_Key] = Counter()
    sent: Counter[_Key] = Counter()
    received: Counter[_Key] = Counter()
    for event, row in zip(events, stored, strict=True):
        key = (
            event.time_ms - event.time_ms % HOUR_MS,
            row["service_account_id"] or NOBODY,
            row["resource_id"] or NOBODY,
            event.event,
            event.failure or "",
        )
        flows[key] += 1
        sent[key] += event.bytes_from_client
        received[key] += event.bytes_to_client
    hours = {key[0] for key in flows}
    known = {
        (row.hour_ms, row.service_account_id, row.resource_id, row.kind, row.failure): row
        for row in tx.flow_totals.find(hour_ms=hours, service_account_id={key[1] for key in flows})
    }
    fresh: list[dict[str, Any]] = []
    for key, count in flows.items():
        hour, account, resource, kind, failure = key
        total = known.get(key)
        if total is not None:
            tx.flow_totals.change(
                total.id,
                flows=total.flows + count,
                bytes_from_client=total.bytes_from_client + sent[key],
                bytes_to_client=total.bytes_to_client + received[key],
            )
        else:
            fresh.append(
                {
                    "hour_ms": hour,
                    "service_account_id": account,
                    "resource_id": resource,
                    "kind": kind,
                    "failure": failure,
                    "flows": count,
                    "bytes_from_client": sent[key],
                    "bytes_to_client": received[key],
                }
            )
    tx.flow_totals.add_all(fresh)


def since(tx: Transaction, begin_ms: int, **equal: Any) -> list[FlowTotalRow]:
    """Return up to MAX_ROWS totals of the hours from `begin_ms` on that meet the conditions, the newest first."""
    return tx.flow_totals.select("hour_ms", MAX_ROWS, least={"hour_ms": begin_ms - begin_ms % HOUR_MS}, descending=True, **equal)
