"""The first page: which machine may reach what, at a glance."""

from __future__ import annotations

from starlette.responses import Response

from klinket.controller.console.page import Page
from klinket.controller.console.route import ConsoleRoute, shown


async def _overview(page: Page) -> Response:
    counts = await page.read(
        lambda tx: {
            "services": tx.service_accounts.count(),
            "resources": tx.resources.count(),
            "remote_networks": tx.remote_networks.count(),
            "connectors": tx.connectors.count(),
            "live_flows": tx.live_flows.count(),
        }
    )
    return page.render("overview.html", counts=counts, online=len(page.console.peers.connectors))


ROUTES: tuple[ConsoleRoute, ...] = (shown("/", _overview),)
