"""Network > Resources: the list, and each one's page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from klinket.controller.app import live_flows, precedence, resources, security_policies
from klinket.controller.app.ports import Transaction
from klinket.controller.app.resources import BYPASS
from klinket.controller.app.rows import (
    AccessRow,
    ConnectorRow,
    FlowEventRow,
    GroupAccessRow,
    GroupRow,
    LiveFlowRow,
    ResourceRow,
    SecurityPolicyRow,
    ServiceAccountRow,
)
from klinket.controller.console.network.connectors import SHOWN_FLOWS, network_names
from klinket.controller.console.network.health import MIN_VERSION, too_old
from klinket.controller.console.network.resource_rows import OPENED, ListedResource, by_hour, listed_resources
from klinket.controller.console.page import Page
from klinket.controller.console.paging import Part, part_of
from klinket.controller.console.route import ConsoleRoute, shown

LIST = "/network/resources"
#: Events shown of a resource; Activity has them all.
SHOWN_EVENTS = 8
#: Hours of a resource's own chart.
PAGE_HOURS = 7 * 24


async def _list(page: Page) -> Response:
    text, network, state, tag = (page.query(name) for name in ("q", "network", "state", "tag"))

    def read(tx: Transaction) -> tuple[Part[ResourceRow], list[ListedResource], int, list[tuple[int, str]]]:
        narrowed: dict[str, Any] = {"remote_network_id": int(network)} if network.isascii() and network.isdigit() else {}
        if state in ("enabled", "disabled"):
            narrowed["is_active"] = state == "enabled"
        holding = {"tags": _stored_tag(tag)} if tag else None
        found = tx.resources.matching(text, ("name", "address", "alias"), order="name", holding=holding, **narrowed)
        part = part_of(page, found)
        return part, listed_resources(tx, part.rows), tx.resources.count(), network_names(tx)

    part, rows, total, networks = await page.read(read)
    return page.render("network/resources.html", part=part, resources=rows, total=total, networks=networks)


def _stored_tag(text: str) -> str:
    """Return what the stored text of a resource's tags holds where it has this tag, "key" or "key=value"."""
    key, equals, value = (part.strip() for part in text.partition("="))
    if equals:
        return json.dumps({"key": key, "value": value})
    return json.dumps({"key": key}).removesuffix("}") + ", "


@dataclass(frozen=True, slots=True)
class _Service:
    access: AccessRow
    account: ServiceAccountRow
    live: int


@dataclass(frozen=True, slots=True)
class _Group:
    access: GroupAccessRow
    group: GroupRow
    policy: SecurityPolicyRow | None


@dataclass(frozen=True, slots=True)
class _Shown:
    """All that a resource's page tells. `dial`: the event of the last attempt to reach it, `told`: the last ones of any kind."""

    listed: ListedResource
    services: list[_Service]
    part: Part[AccessRow]
    groups: list[_Group]
    old: list[ConnectorRow]
    policy: SecurityPolicyRow | None
    overlaps: precedence.Overlaps
    hours: list[int]
    failures: int
    flows: list[LiveFlowRow]
    told: list[FlowEventRow]
    dial: FlowEventRow | None


def _shown(page: Page, tx: Transaction, row: ResourceRow) -> _Shown:
    part = part_of(page, tx.access.matching("", (), resource_id=row.id))
    accounts = {one.id: one for one in tx.service_accounts.find(id={one.service_account_id for one in part.rows})}
    live = tx.live_flows.counts("service_account_id", resource_id=row.id, service_account_id=set(accounts))
    held = tx.group_access.find(resource_id=row.id)
    groups = {one.id: one for one in tx.groups.find(id={one.group_id for one in held})}
    policies = {one.id: one for one in tx.security_policies.find()}
    default = next((one for one in policies.values() if one.name == security_policies.DEFAULT_NAME), None)
    told = tx.flow_events.select("id", SHOWN_EVENTS, descending=True, resource_id=row.id)
    dials = [one for one in told if one.kind in OPENED] or tx.flow_events.select(
        "id", 1, descending=True, resource_id=row.id, kind=set(OPENED)
    )
    since = {"hour_ms": tx.now_ms - PAGE_HOURS * 3_600_000}
    failures = tx.flow_totals.totals(("resource_id",), "flows", least=since, resource_id=row.id, kind="failed")
    return _Shown(
        listed_resources(tx, [row])[0],
        [_Service(one, accounts[one.service_account_id], live.get(one.service_account_id, 0)) for one in part.rows],
        part,
        [_Group(one, groups[one.group_id], policies.get(one.security_policy_id or 0)) for one in held],
        [one for one in tx.connectors.find(remote_network_id=row.remote_network_id) if too_old(one)],
        policies.get(row.security_policy_id or 0, default),
        precedence.overlaps(tx, row),
        by_hour(tx, {row.id}, PAGE_HOURS).get(row.id, [0] * PAGE_HOURS),
        failures[0][1] if failures else 0,
        live_flows.newest(tx, SHOWN_FLOWS, resource_id=row.id),
        told,
        dials[0] if dials else None,
    )


async def _one(page: Page) -> Response:
    id = page.number()
    found = await page.read(lambda tx: _shown(page, tx, resources.get(tx, id, id)))
    values: dict[str, Any] = {
        "shown": found,
        "row": found.listed.row,
        "remote_network": found.listed.network,
        "min_version": MIN_VERSION,
        "bypass": BYPASS,
    }
    return page.render("network/resource.html", **values)


ROUTES: tuple[ConsoleRoute, ...] = (shown(LIST, _list), shown(LIST + "/{id:int}", _one))
