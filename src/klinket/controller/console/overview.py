"""The first page: what needs attention, figures, and which machine may reach what, at a glance."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass

from starlette.responses import Response

from klinket.controller.app import inventory_map
from klinket.controller.app.flow_totals import HOUR_MS
from klinket.controller.app.inventory_map import InventoryMap
from klinket.controller.app.ports import Transaction
from klinket.controller.console import attention
from klinket.controller.console.attention import Attention
from klinket.controller.console.network import map_layout
from klinket.controller.console.page import Page
from klinket.controller.console.route import ConsoleRoute, shown

#: Hours of the charts.
CHART_HOURS = 24


@dataclass(frozen=True, slots=True)
class Step:
    """A step of setting up. `path`: where it is done, below the console's root."""

    title: str
    told: str
    path: str
    is_done: bool


@dataclass(frozen=True, slots=True)
class _Seen:
    counts: dict[str, int]
    flows: list[int]
    denials: list[int]
    items: list[Attention]
    map: InventoryMap
    steps: list[Step]


def _by_hour(tx: Transaction, kinds: set[str]) -> list[int]:
    """Return flow events of these kinds in each of the last CHART_HOURS, the newest last."""
    begin = tx.now_ms - tx.now_ms % HOUR_MS - (CHART_HOURS - 1) * HOUR_MS
    hours = [0] * CHART_HOURS
    for hour, flows in tx.flow_totals.totals(("hour_ms",), "flows", least={"hour_ms": begin}, kind=kinds):
        place = (hour - begin) // HOUR_MS
        if place < CHART_HOURS:
            hours[place] += flows
    return hours


def _steps(tx: Transaction, counts: dict[str, int]) -> list[Step]:
    network = tx.remote_networks.newest(1)
    beside = f"?network={network[0].id}" if network else ""
    account = tx.service_accounts.newest(1)
    service = f"/team/services/{account[0].id}" if account else "/team/services"
    started = tx.connectors.lowest("last_heartbeat_ms") is not None
    waiting = tx.connectors.newest(1) if not started else []
    connector = f"/network/connectors/{waiting[0].id}/tokens" if waiting else f"/network/connectors/new{beside}"
    return [
        Step("Add a remote network", "Where your resources are.", "/network/remote-networks/new", counts["remote_networks"] > 0),
        Step("Start a connector in it", "It dials out; no port is opened.", connector, started),
        Step(
            "Add a resource",
            "What is reached: a name, an address, a range.",
            f"/network/resources/new{beside}",
            counts["resources"] > 0,
        ),
        Step("Create a service account", "It stands for a machine or a job.", "/team/services/new", counts["services"] > 0),
        Step("Give it the resource", "Nothing is reached unless it is granted.", service, tx.access.count() > 0),
        Step("Generate a key", "With it the machine logs in.", service, tx.service_keys.count() > 0),
    ]


def _see(tx: Transaction, online: Container[int]) -> _Seen:
    counts = {
        "services": tx.service_accounts.count(),
        "resources": tx.resources.count(),
        "remote_networks": tx.remote_networks.count(),
        "connectors": tx.connectors.count(),
        "live_flows": tx.live_flows.count(),
    }
    return _Seen(
        counts,
        _by_hour(tx, {"established"}),
        _by_hour(tx, {"denied"}),
        attention.look(tx, online),
        inventory_map.take(tx),
        _steps(tx, counts),
    )


async def _overview(page: Page) -> Response:
    online = page.console.peers.online()
    seen = await page.read(lambda tx: _see(tx, online))
    return page.render(
        "overview.html",
        seen=seen,
        counts=seen.counts,
        online=len(online),
        map=map_layout.layout(seen.map, online, page.console.now_ms),
        layout=map_layout,
    )


ROUTES: tuple[ConsoleRoute, ...] = (shown("/", _overview),)
