"""What a map of the network shows: remote networks with connectors and resources, and who reaches them.

Of many, those with the most traffic: a picture of everything would show nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from klinket.controller.app.flow_totals import HOUR_MS, NOBODY
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import ConnectorRow, GroupRow, RemoteNetworkRow, ResourceRow, ServiceAccountRow

#: Remote networks shown, and of each its connectors and resources.
MAX_NETWORKS, MAX_CONNECTORS, MAX_RESOURCES = 6, 6, 8
#: Resources of all networks together.
MAX_ALL_RESOURCES = 24
#: Services and groups shown.
MAX_SERVICES, MAX_GROUPS = 12, 6
#: Hours whose flows are told of a link, and those whose flows decide what is shown: for that all flows are summed.
TRAFFIC_HOURS, RANKING_HOURS = 24, 3


@dataclass(frozen=True, slots=True)
class MapNetwork:
    """A remote network; `connector_count` and `resource_count`: with those that are not shown."""

    row: RemoteNetworkRow
    connectors: tuple[ConnectorRow, ...]
    connector_count: int
    resources: tuple[ResourceRow, ...]
    resource_count: int


@dataclass(frozen=True, slots=True)
class MapLink:
    """A service (or a group) may reach a resource. `flows`: in the last TRAFFIC_HOURS; `live`: now."""

    holder: int
    resource: int
    is_group: bool = False
    flows: int = 0
    live: int = 0


@dataclass(frozen=True, slots=True)
class InventoryMap:
    """`more_services` and `more_groups`: others that reach what is shown; `more_networks`: others there are."""

    networks: tuple[MapNetwork, ...]
    more_networks: int
    services: tuple[ServiceAccountRow, ...]
    more_services: int
    groups: tuple[GroupRow, ...]
    more_groups: int
    links: tuple[MapLink, ...]


def busiest(tx: Transaction, network: int, limit: int, traffic: dict[int, int] | None = None) -> list[ResourceRow]:
    """Return up to `limit` resources of a remote network: those with the most flows lately first, then by id."""
    known = traffic_by_resource(tx) if traffic is None else traffic
    ids = [id for (id,) in tx.resources.pick(("id",), remote_network_id=network)]
    ids.sort(key=lambda id: (-known.get(id, 0), id))
    rows = {row.id: row for row in tx.resources.find(id=set(ids[:limit]))}
    return [rows[id] for id in ids[:limit]]


def traffic_by_resource(tx: Transaction) -> dict[int, int]:
    """Return the flows to each resource in the last RANKING_HOURS."""
    since = {"hour_ms": tx.now_ms - RANKING_HOURS * HOUR_MS}
    return dict(tx.flow_totals.totals(("resource_id",), "flows", least=since, kind="established"))


def take(tx: Transaction) -> InventoryMap:
    """Return the map of now; what is read does not grow with services and their access."""
    traffic = traffic_by_resource(tx)
    networks = _networks(tx, traffic)
    shown = {row.id for network in networks for row in network.resources}
    live = {
        (account, resource): flows
        for account, resource, flows in tx.live_flows.totals(("service_account_id", "resource_id"), resource_id=shown)
    }
    reaching = tx.access.counts("service_account_id", resource_id=shown)
    since = {"hour_ms": tx.now_ms - TRAFFIC_HOURS * HOUR_MS}
    used = tx.flow_totals.totals(
        ("service_account_id", "resource_id"), "flows", least=since, resource_id=shown, kind="established"
    )
    weight: dict[int, tuple[int, int]] = {}
    for account, _, flows in used:
        weight[account] = (0, weight.get(account, (0, 0))[1] + flows)
    for (account, _), flows in live.items():
        now, before = weight.get(account, (0, 0))
        weight[account] = (now + flows, before)
    order = sorted(reaching, key=lambda id: (*(-part for part in weight.get(id, (0, 0))), -reaching[id], id))
    services = {row.id: row for row in tx.service_accounts.find(id=set(order[:MAX_SERVICES]))}
    sharing = [id for id, _ in tx.group_access.totals(("group_id",), resource_id=shown)]
    groups = {row.id: row for row in tx.groups.find(id=set(sharing[:MAX_GROUPS]))}
    flows_of = {(account, resource): flows for account, resource, flows in used if account != NOBODY}
    links = [
        MapLink(account, resource, False, flows_of.get((account, resource), 0), live.get((account, resource), 0))
        for account, resource in tx.access.pick(
            ("service_account_id", "resource_id"), resource_id=shown, service_account_id=set(services)
        )
    ]
    links += [
        MapLink(group, resource, True)
        for group, resource in tx.group_access.pick(("group_id", "resource_id"), resource_id=shown, group_id=set(groups))
    ]
    return InventoryMap(
        tuple(networks),
        tx.remote_networks.count() - len(networks),
        tuple(services[id] for id in order if id in services),
        len(order) - len(services),
        tuple(groups[id] for id in sharing if id in groups),
        len(sharing) - len(groups),
        tuple(links),
    )


def _networks(tx: Transaction, traffic: dict[int, int]) -> list[MapNetwork]:
    """Return the networks with the most traffic, then with the most resources."""
    counts = tx.resources.counts("remote_network_id")
    busy: dict[int, int] = {}
    for id, network in tx.resources.pick(("id", "remote_network_id"), id=set(traffic) - {NOBODY}):
        busy[network] = busy.get(network, 0) + traffic[id]
    ids = [id for (id,) in tx.remote_networks.pick(("id",))]
    ids.sort(key=lambda id: (-busy.get(id, 0), -counts.get(id, 0), id))
    rows = {row.id: row for row in tx.remote_networks.find(id=set(ids[:MAX_NETWORKS]))}
    each = max(3, min(MAX_RESOURCES, MAX_ALL_RESOURCES // max(1, len(rows))))
    networks = []
    for id in ids[:MAX_NETWORKS]:
        connectors = tx.connectors.matching("", (), remote_network_id=id)
        networks.append(
            MapNetwork(
                rows[id],
                tuple(connectors[:MAX_CONNECTORS]),
                len(connectors),
                tuple(busiest(tx, id, each, traffic)),
                counts.get(id, 0),
            )
        )
    return networks
