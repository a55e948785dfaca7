"""Network > Connectors: the list, and each one's page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from klinket.controller.app import connectors, live_flows
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import ConnectorRow, LiveFlowRow, RelayRow, RemoteNetworkRow
from klinket.controller.console.network.health import MIN_VERSION, Health, health
from klinket.controller.console.page import Page
from klinket.controller.console.paging import Part, part_of
from klinket.controller.console.route import ConsoleRoute, shown
from klinket.domain.errors import KlinketError

LIST = "/network/connectors"
#: Live flows shown of one connector or resource; the rest is counted.
SHOWN_FLOWS = 10


@dataclass(frozen=True, slots=True)
class Listed:
    """A connector as lists show it."""

    row: ConnectorRow
    network: RemoteNetworkRow
    health: Health
    live: int


def listed(page: Page, tx: Transaction, rows: Sequence[ConnectorRow]) -> list[Listed]:
    """Return connectors as lists show them."""
    online = page.console.peers.online()
    networks = {row.id: row for row in tx.remote_networks.find(id={row.remote_network_id for row in rows})}
    live = tx.live_flows.counts("connector_id", connector_id={row.id for row in rows})
    return [
        Listed(
            row,
            networks[row.remote_network_id],
            health(row, online, tx.now_ms),
            live.get(row.id, 0),
        )
        for row in rows
    ]


async def _list(page: Page) -> Response:
    text, network = page.query("q"), page.query("network")

    def read(tx: Transaction) -> tuple[Part[ConnectorRow], list[Listed], int, list[tuple[int, str]]]:
        narrowed: dict[str, Any] = {"remote_network_id": int(network)} if network.isascii() and network.isdigit() else {}
        part = part_of(page, tx.connectors.matching(text, ("name", "hostname", "public_ip"), order="name", **narrowed))
        return part, listed(page, tx, part.rows), tx.connectors.count(), network_names(tx)

    part, found, total, networks = await page.read(read)
    return page.render(
        "network/connectors.html", part=part, connectors=found, total=total, networks=networks, min_version=MIN_VERSION
    )


def network_names(tx: Transaction) -> list[tuple[int, str]]:
    """Return (id, name) of the remote networks, by name."""
    return sorted(tx.remote_networks.pick(("id", "name")), key=lambda one: str(one[1]).casefold())


@dataclass(frozen=True, slots=True)
class _Shown:
    listed: Listed
    relays: list[RelayRow]
    flows: list[LiveFlowRow]


def _shown(page: Page, tx: Transaction, row: ConnectorRow) -> _Shown:
    at = page.console.peers.online().get(row.id, ())
    flows = live_flows.newest(tx, SHOWN_FLOWS, connector_id=row.id)
    return _Shown(listed(page, tx, [row])[0], tx.relays.find(id=set(at)), flows)


async def one(page: Page, error: KlinketError | None = None) -> Response:
    """Show a connector, or what was wrong with a change of it."""
    id = page.number()
    found = await page.read(lambda tx: _shown(page, tx, connectors.get(tx, id, id)))
    values: dict[str, Any] = {
        "row": found.listed.row,
        "remote_network": found.listed.network,
        "health": found.listed.health,
        "live": found.listed.live,
        "relays": found.relays,
        "flows": found.flows,
        "punches": id in page.console.peers.punching(),
        "direct": page.console.peers.direct().get(id, ()),
        "min_version": MIN_VERSION,
    }
    if error is not None:
        return page.refuse("network/connector.html", error, **values)
    return page.render("network/connector.html", **values)


ROUTES: tuple[ConsoleRoute, ...] = (shown(LIST, _list), shown(LIST + "/{id:int}", one))
