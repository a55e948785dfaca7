"""Flow events of connectors: kept once each, also when a batch is sent again."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from klinket.controller.app.ports import Transaction
from klinket.wire.control import FlowEvent

#: Events kept; the oldest go first.
MAX_EVENTS = 200_000
#: Batches between looks at the bound.
_LOOK_EVERY = 64


def keep(tx: Transaction, connector_id: int, batch: int, events: Sequence[FlowEvent]) -> int:
    """Store a batch; one that was stored before is not stored again. Returns how many events were new."""
    if tx.flow_events.find(connector_id=connector_id, batch=batch, number=0):
        return 0
    last = None
    for number, event in enumerate(events):
        last = tx.flow_events.add(
            connector_id=connector_id,
            batch=batch,
            number=number,
            time_ms=event.time_ms,
            kind=event.event,
            flow=event.flow,
            resource_id=event.resource,
            failure=event.failure,
            event=msgspec.to_builtins(event),
        )
    if last is not None and batch % _LOOK_EVERY == 0:
        tx.flow_events.remove_below("id", last.id - MAX_EVENTS)
    return len(events)
