"""Totals of flow events by the hour: what charts are drawn from, whatever the number of events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import FlowHourRow, FlowTotalRow
from klinket.domain.flow import FlowFailure
from klinket.wire.control import FlowEvent

HOUR_MS = 3_600_000
WEEK_MS = 7 * 24 * HOUR_MS
#: In place of an account or resource that is not known.
NOBODY = 0
#: Rows read for one chart; a chart of more is drawn from the newest of them.
MAX_ROWS = 20_000

_Key = tuple[int, int, int, str, str]


def throttled(tx: Transaction, account: int) -> int:
    """Return how many flows of an account connectors refused within WEEK_MS because a limit was used up."""
    found = tx.flow_totals.totals(
        ("failure",),
        "flows",
        least={"hour_ms": tx.now_ms - WEEK_MS},
        service_account_id=account,
        failure=FlowFailure.THROTTLED.value,
    )
    return sum(flows for _, flows in found)


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
    _add_hours(tx, flows, sent, received)


def _add_hours(tx: Transaction, flows: Counter[_Key], sent: Counter[_Key], received: Counter[_Key]) -> None:
    """Count the same without regard to who and what: a chart of a month is a few thousand of these."""
    summed: dict[tuple[int, str, str], list[int]] = {}
    for key, count in flows.items():
        total = summed.setdefault((key[0], key[3], key[4]), [0, 0, 0])
        for place, more in enumerate((count, sent[key], received[key])):
            total[place] += more
    known = {(row.hour_ms, row.kind, row.failure): row for row in tx.flow_hours.find(hour_ms={hour for hour, _, _ in summed})}
    fresh: list[dict[str, Any]] = []
    for (hour, kind, failure), (count, from_client, to_client) in summed.items():
        row = known.get((hour, kind, failure))
        if row is not None:
            tx.flow_hours.change(
                row.id,
                flows=row.flows + count,
                bytes_from_client=row.bytes_from_client + from_client,
                bytes_to_client=row.bytes_to_client + to_client,
            )
        else:
            counts = {"flows": count, "bytes_from_client": from_client, "bytes_to_client": to_client}
            fresh.append({"hour_ms": hour, "kind": kind, "failure": failure, **counts})
    tx.flow_hours.add_all(fresh)


def since(tx: Transaction, begin_ms: int, **equal: Any) -> list[FlowTotalRow]:
    """Return up to MAX_ROWS totals of the hours from `begin_ms` on that meet the conditions, the newest first."""
    return tx.flow_totals.select("hour_ms", MAX_ROWS, least={"hour_ms": begin_ms - begin_ms % HOUR_MS}, descending=True, **equal)


def along(tx: Transaction, each: str, begin_ms: int, step_ms: int, **equal: Any) -> dict[int, list[int]]:
    """Return how many flows were established in each step from `begin_ms` until now, by the values of column `each`.

    `step_ms` is a multiple of HOUR_MS; steps are counted from the epoch, so the first one may begin before `begin_ms`.
    """
    first, last = begin_ms // step_ms, tx.now_ms // step_ms
    least = {"hour_ms": first * step_ms}
    sums = tx.flow_totals.sums("flows", each, "hour_ms", step_ms, least=least, kind="established", **equal)
    found: dict[int, list[int]] = {}
    for (value, step), flows in sums.items():
        if first <= step <= last:
            found.setdefault(value, [0] * (last - first + 1))[step - first] = flows
    return found


def hours(tx: Transaction, begin_ms: int) -> list[FlowHourRow]:
    """Return up to MAX_ROWS totals of all flows, of the hours from `begin_ms` on, the newest first."""
    return tx.flow_hours.select("hour_ms", MAX_ROWS, least={"hour_ms": begin_ms - begin_ms % HOUR_MS}, descending=True)
