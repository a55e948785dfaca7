"""Flow events as people look for them: by who, what, through which connector, how it went, and when; the newest first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from klinket.controller.app.flow_events import FINISHED
from klinket.controller.app.ports import Position, Transaction
from klinket.controller.app.rows import FlowEventRow, LiveFlowRow

#: Events one page looks through for those it shows; a filter that few meet gives a short page, and a place to go on from.
MAX_LOOKED_AT = 20_000


@dataclass(frozen=True, slots=True)
class FlowFilter:
    """None, or empty: any. `kinds`: of FINISHED; `begin_ms` is in the time range, `end_ms` is not."""

    service_account_id: int | None = None
    service_key_id: int | None = None
    resource_id: int | None = None
    connector_id: int | None = None
    kinds: tuple[str, ...] = FINISHED
    failure: str | None = None
    begin_ms: int | None = None
    end_ms: int | None = None

    @property
    def who_and_what(self) -> dict[str, Any]:
        """Return the conditions that hold for live flows as well."""
        names = ("service_key_id", "service_account_id", "resource_id", "connector_id")
        return {name: value for name in names if (value := getattr(self, name)) is not None}

    @property
    def conditions(self) -> dict[str, Any]:
        """Return all but the time range, as conditions of flow events."""
        failure = {} if self.failure is None else {"failure": self.failure}
        return {**self.who_and_what, **failure, "kind": self.kinds[0] if len(self.kinds) == 1 else self.kinds}


@dataclass(frozen=True, slots=True)
class FlowPage:
    """Finished flows, the newest first. `older`, `newer`: from where to go on; None: there are none.

    `is_partial`: the looking ended at MAX_LOOKED_AT events before the page was full.
    """

    rows: list[FlowEventRow]
    older: Position | None
    newer: Position | None
    is_partial: bool = False


#: What an index narrows by, the narrowest first.
_LEADING = ("service_key_id", "service_account_id", "resource_id", "failure", "connector_id", "kind")


def finished(
    tx: Transaction, wanted: FlowFilter, size: int, *, before: Position | None = None, after: Position | None = None
) -> FlowPage:
    """Return a page of finished flows: the newest, those `before` a position, or those just `after` one."""
    equal = wanted.conditions
    leading = next((name for name in _LEADING if isinstance(equal.get(name), int | str)), None)
    narrowed = {} if leading is None else {leading: equal.pop(leading)}
    rows, end = tx.flow_events.look_through(
        "time_ms",
        size + 1,
        at_most=MAX_LOOKED_AT,
        narrowed=narrowed,
        before=before,
        after=after,
        least={} if wanted.begin_ms is None else {"time_ms": wanted.begin_ms},
        below={} if wanted.end_ms is None else {"time_ms": wanted.end_ms},
        **equal,
    )
    more, rows = len(rows) > size, rows[:size]
    if after is not None:
        rows.reverse()
        newest = _position(rows[0]) if rows else after
        return FlowPage(rows, _position(rows[-1]) if rows else after, newest if more or end is not None else None)
    newer = before if before is None else (_position(rows[0]) if rows else before)
    if more:
        return FlowPage(rows, _position(rows[-1]), newer)
    return FlowPage(rows, end, newer, is_partial=end is not None)


def live(tx: Transaction, wanted: FlowFilter, size: int, *, below: int | None = None) -> list[LiveFlowRow]:
    """Return flows that live now, the one heard of last first; `below`: row ids."""
    bounds = {} if below is None else {"id": below}
    return tx.live_flows.select("id", size, below=bounds, descending=True, **wanted.who_and_what)


def of_flow(tx: Transaction, row: FlowEventRow) -> list[FlowEventRow]:
    """Return all events of the flow that an event belongs to, in their order."""
    found = tx.flow_events.find(flow=row.flow, connector_id=row.connector_id)
    return sorted(found, key=lambda event: (event.time_ms, event.id))


def _position(row: FlowEventRow) -> Position:
    return (row.time_ms, row.id)
