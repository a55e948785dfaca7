"""The page of one service: its keys, the resources it reaches, who is logged in with it, what flows now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from klinket.controller.app import account_limits, flow_totals, live_flows, service_accounts
from klinket.controller.app.account_limits import as_json
from klinket.controller.app.key_seats import SEAT_MS
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import AccessRow, ResourceRow, ServiceAccountRow, ServiceKeyRow, SessionRow
from klinket.controller.console.page import Page
from klinket.controller.console.team.services.expiry import ACCESS_PRESETS, as_input
from klinket.controller.console.team.services.limit_words import WORDS
from klinket.controller.console.team.services.listing import CHART_MS, ListedKey, ListedService, listed, listed_keys
from klinket.controller.console.team.services.receipts import shown_receipt
from klinket.domain.account_limits import BOUNDS
from klinket.domain.errors import KlinketError

TEMPLATE = "team/services/service.html"
#: Rows of each part of the page; a link leads to all of them.
SHOWN_KEYS = 10
SHOWN_RESOURCES = 10
SHOWN_SESSIONS = 10
SHOWN_FLOWS = 10


@dataclass(frozen=True, slots=True)
class Reached:
    """A resource that a service may reach."""

    access: AccessRow
    resource: ResourceRow
    network: str
    live_flows: int


@dataclass(frozen=True, slots=True)
class ListedSession:
    """A session that has not ended. `is_attached`: its client has a live channel now."""

    row: SessionRow
    key: str
    is_attached: bool
    is_new: bool
    live_flows: int


@dataclass(frozen=True, slots=True)
class LiveFlow:
    """A flow that lives now, with names; those of what was deleted are as the event says."""

    established_at_ms: int
    resource: ResourceRow | None
    address: str
    connector: str
    key: str
    client: str


def reached(tx: Transaction, account: int, rows: Sequence[AccessRow]) -> list[Reached]:
    """Return what some accesses of a service lead to, in their order."""
    resources = {row.id: row for row in tx.resources.find(id={row.resource_id for row in rows})}
    networks = {row.id: row.name for row in tx.remote_networks.find(id={one.remote_network_id for one in resources.values()})}
    living = tx.live_flows.counts("resource_id", service_account_id=account, resource_id=list(resources))
    return [
        Reached(
            row,
            resources[row.resource_id],
            networks[resources[row.resource_id].remote_network_id],
            living.get(row.resource_id, 0),
        )
        for row in rows
    ]


def listed_sessions(page: Page, tx: Transaction, rows: Sequence[SessionRow]) -> list[ListedSession]:
    """Return sessions with the names of their keys."""
    keys = {row.id: row.name for row in tx.service_keys.find(id={row.service_key_id for row in rows})}
    living = tx.live_flows.counts("session", session=[row.id for row in rows])
    attached = page.console.peers.clients
    return [
        ListedSession(
            row,
            keys.get(row.service_key_id, ""),
            row.id in attached,
            row.created_at_ms > tx.now_ms - SEAT_MS,
            living.get(row.id, 0),
        )
        for row in rows
    ]


def _flows(tx: Transaction, account: int) -> list[LiveFlow]:
    rows = live_flows.newest(tx, SHOWN_FLOWS, service_account_id=account)
    resources = {row.id: row for row in tx.resources.find(id={row.resource_id for row in rows if row.resource_id is not None})}

    return [
        LiveFlow(
            row.established_at_ms,
            resources.get(row.resource_id or 0),
            f"{row.event['resource']['address']}:{row.event['connection']['resource_port']}",
            row.event["connector"]["name"] or row.event["connector"]["id"],
            row.event["service_account"]["key"] or row.event["service_account"]["key_id"],
            row.event["connection"]["client_ip"] or "",
        )
        for row in rows
    ]


def _keys(tx: Transaction, account: int) -> list[ListedKey]:
    """Return the newest keys, those that open something first."""
    usable = tx.service_keys.matching(
        "", (), order="id", descending=True, beyond={"expires_at_ms": tx.now_ms}, service_account_id=account, revoked_at_ms=None
    )[:SHOWN_KEYS]
    known = {row.id for row in usable}
    others: list[ServiceKeyRow] = [
        row for row in tx.service_keys.newest(2 * SHOWN_KEYS, service_account_id=account) if row.id not in known
    ]
    return listed_keys(tx, [*usable, *others][:SHOWN_KEYS])


def one(page: Page, tx: Transaction, id: int) -> tuple[ServiceAccountRow, ListedService]:
    """Return a service with its line of the list; raises NotFound."""
    row = service_accounts.get(tx, id, id)
    return row, listed(tx, [row])[0]


async def shown_service(page: Page, error: KlinketError | None = None) -> Response:
    """Return the page of the service that the path names."""
    id = page.number()

    def read(tx: Transaction) -> dict[str, Any]:
        row, line = one(page, tx, id)
        begin = {"hour_ms": tx.now_ms - CHART_MS}
        week = dict(tx.flow_totals.totals(("kind",), "flows", least=begin, service_account_id=id))
        accesses = tx.access.newest(SHOWN_RESOURCES, service_account_id=id)
        sessions = tx.sessions.newest(SHOWN_SESSIONS, order="created_at_ms", service_account_id=id, ended_at_ms=None)
        return {
            "row": row,
            "line": line,
            "week": week,
            "throttled": flow_totals.throttled(tx, id),
            "refused_logins": page.console.services.refused_logins.told(row.uuid),
            "keys": _keys(tx, id),
            "reached": reached(tx, id, accesses),
            "sessions": listed_sessions(page, tx, sessions),
            "sessions_total": tx.sessions.count(service_account_id=id, ended_at_ms=None),
            "flows": _flows(tx, id),
            "receipt": shown_receipt(page, tx),
            "own": account_limits.own(tx, id),
            "limits_seen": account_limits.changed_at(tx, id),
            "limits": as_json(account_limits.of(tx, id, page.console.config.account_defaults)),
        }

    values = await page.read(read)
    values |= {
        "ends": ACCESS_PRESETS,
        "as_input": as_input,
        "limit_words": WORDS,
        "bounds": BOUNDS,
        "defaults": as_json(page.console.config.account_defaults),
    }
    if error is not None:
        return page.refuse(TEMPLATE, error, **values)
    return page.render(TEMPLATE, **values)
