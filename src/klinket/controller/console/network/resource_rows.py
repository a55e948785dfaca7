"""Resources as lists show them: what is beside each is read for all of a page at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from klinket.controller.app.flow_totals import HOUR_MS
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import RemoteNetworkRow, ResourceRow
from klinket.controller.console.network import ports_text

#: Hours of a small chart.
CHART_HOURS = 24
#: Kinds of flow events that say that somebody wanted to reach a resource.
OPENED = ("established", "failed")


@dataclass(frozen=True, slots=True)
class ListedResource:
    """`hours`: flows opened in each of the last CHART_HOURS, the newest last; `live`: flows that live now."""

    row: ResourceRow
    network: RemoteNetworkRow
    ports: str
    services: int
    groups: int
    live: int
    hours: list[int]


def listed_resources(tx: Transaction, rows: Sequence[ResourceRow]) -> list[ListedResource]:
    """Return resources as lists show them."""
    ids = {row.id for row in rows}
    networks = {row.id: row for row in tx.remote_networks.find(id={row.remote_network_id for row in rows})}
    services = tx.access.counts("resource_id", resource_id=ids)
    groups = tx.group_access.counts("resource_id", resource_id=ids)
    live = tx.live_flows.counts("resource_id", resource_id=ids)
    hours = by_hour(tx, ids, CHART_HOURS)
    return [
        ListedResource(
            row,
            networks[row.remote_network_id],
            ports_text.in_words(row.protocols),
            services.get(row.id, 0),
            groups.get(row.id, 0),
            live.get(row.id, 0),
            hours.get(row.id, [0] * CHART_HOURS),
        )
        for row in rows
    ]


def by_hour(tx: Transaction, ids: set[int], count: int) -> dict[int, list[int]]:
    """Return flows opened to each resource in each of the last `count` hours, the newest last."""
    this_hour = tx.now_ms - tx.now_ms % HOUR_MS
    begin = this_hour - (count - 1) * HOUR_MS
    found: dict[int, list[int]] = {}
    for id, hour, flows in tx.flow_totals.totals(
        ("resource_id", "hour_ms"), "flows", least={"hour_ms": begin}, resource_id=ids, kind=set(OPENED)
    ):
        place = (hour - begin) // HOUR_MS
        if place < count:
            found.setdefault(id, [0] * count)[place] += flows
    return found
