"""Flows that live now, as their connectors tell: what an end of access would cut."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import LiveFlowRow
from klinket.wire.control import FlowEvent

#: Flows kept as live of one connector; those beyond it are carried as well, but not shown.
MAX_PER_CONNECTOR = 50_000
#: Milliseconds after which a flow that nobody has ended is not believed to live: no certificate of a client is older.
MAX_UNHEARD_MS = 24 * 3_600_000


def follow(
    tx: Transaction,
    connector_id: int,
    live: Mapping[str, int],
    events: Sequence[FlowEvent],
    stored: Sequence[Mapping[str, Any]],
) -> None:
    """Add what was established, remove what has ended. A flow that has done both since is no affair of the table's.

    `live`: the rows of the events' flows that are in the table. `stored`: the events' rows of flow_events, in their order.
    """
    begun: dict[str, dict[str, Any]] = {}
    over: set[str] = set()
    for event, row in zip(events, stored, strict=True):
        if event.event == "established":
            begun[event.flow] = {
                "connector_id": connector_id,
                "flow": event.flow,
                "established_at_ms": event.time_ms,
                "session": event.session,
                "service_account_id": row["service_account_id"],
                "service_key_id": row["service_key_id"],
                "resource_id": row["resource_id"],
                "event": row["event"],
            }
        elif event.event == "closed":
            begun.pop(event.flow, None)
            over.add(event.flow)
    if gone := [live[flow] for flow in over if flow in live]:
        tx.live_flows.remove(id=gone)
    if fresh := [row for flow, row in begun.items() if flow not in live or flow in over]:
        room = max(0, MAX_PER_CONNECTOR - tx.live_flows.count(connector_id=connector_id))
        tx.live_flows.add_all(fresh[:room])


def restarted(tx: Transaction, connector_id: int, started_ms: int) -> int:
    """Forget the flows of a connector from before its process began: they ended with the former one. Returns how many."""
    old = tx.live_flows.select(
        "established_at_ms", MAX_PER_CONNECTOR, below={"established_at_ms": started_ms}, connector_id=connector_id
    )
    return tx.live_flows.remove(id=[row.id for row in old]) if old else 0


def forget_unheard(tx: Transaction) -> int:
    """Forget flows that nobody has heard of for too long, and those of connectors that were deleted; returns how many."""
    removed = tx.live_flows.remove_below("established_at_ms", tx.now_ms - MAX_UNHEARD_MS)
    return removed + sum(tx.live_flows.remove(connector_id=id) for id in _connectors(tx) if tx.connectors.get(id) is None)


def _connectors(tx: Transaction) -> Collection[int]:
    """Return the connectors that have live flows."""
    found: list[int] = []
    after = -1
    while rows := tx.live_flows.after("connector_id", after, 1):
        after = rows[0].connector_id
        found.append(after)
    return found


def count(tx: Transaction, **equal: Any) -> int:
    """Return how many flows that meet the conditions live now."""
    return tx.live_flows.count(**equal)


def newest(tx: Transaction, limit: int, **equal: Any) -> list[LiveFlowRow]:
    """Return up to `limit` live flows that meet the conditions, the one established last first."""
    return tx.live_flows.newest(limit, "established_at_ms", **equal)
