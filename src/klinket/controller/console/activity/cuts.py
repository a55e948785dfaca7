"""Activity > Cuts: what was cut, by whom and why, and the receipts as they come in."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import Response

from klinket.controller.app import cut_views
from klinket.controller.app import cuts as cut_orders
from klinket.controller.app.cut_views import CutView
from klinket.controller.app.ports import Transaction
from klinket.controller.console.activity import asked
from klinket.controller.console.headers import PAGE_HEADERS
from klinket.controller.console.page import Page
from klinket.controller.console.route import ConsoleRoute, shown
from klinket.domain.errors import NotFound

LIST = "/activity/cuts"
PAGE_CUTS = 25
#: Flows that the page of one cut shows; the file of the receipt has them all.
MAX_FLOWS = 100
#: Where the page of an object is, by what a cut calls it.
PLACES = {"service": "/team/services/", "resource": "/network/resources/", "connector": "/network/connectors/"}


async def _list(page: Page) -> Response:
    before = asked.position(page, "before")

    def read(tx: Transaction) -> dict[str, Any]:
        rows = tx.cuts.select("id", PAGE_CUTS + 1, below={} if before is None else {"id": before[1]}, descending=True)
        timed = cut_views.took(tx)
        return {
            "cuts": cut_views.views(tx, rows[:PAGE_CUTS]),
            "older": asked.place(page, "before", (0, rows[PAGE_CUTS - 1].id)) if len(rows) > PAGE_CUTS else None,
            "newer": None if before is None else asked.address(page),
            "timed": timed,
            "median": cut_views.percentile((ms for _, ms in timed), 0.5),
            "slowest": cut_views.percentile((ms for _, ms in timed), 0.99),
        }

    return page.render("activity/cuts.html", places=PLACES, **await page.read(read))


def _cut(tx: Transaction, id: int) -> CutView:
    row = tx.cuts.get(id)
    if row is None:
        raise NotFound("Cut", id)
    return cut_views.views(tx, [row])[0]


async def _one(page: Page) -> Response:
    id = page.number()

    def read(tx: Transaction) -> dict[str, Any]:
        cut = _cut(tx, id)
        told = [(receipt.connector_name, flow) for receipt in cut.receipts for flow in receipt.flows]
        told.sort(key=lambda one: -float(one[1].get("stopped_after_ms") or 0))
        uuids = {flow.get("service_account") for _, flow in told[:MAX_FLOWS]}
        services = {row.uuid: row for row in tx.service_accounts.find(uuid=uuids)} if uuids else {}
        exists = {row.id for row in tx.connectors.find(id={receipt.connector_id for receipt in cut.receipts})}
        return {"cut": cut, "flows": told[:MAX_FLOWS], "services": services, "connectors": exists}

    return page.render("activity/cut.html", places=PLACES, online=set(page.console.peers.online()), **await page.read(read))


async def _receipt(page: Page) -> Response:
    id = page.number()
    found = await page.read(lambda tx: cut_orders.receipt(tx, id))
    headers = {**PAGE_HEADERS, "Content-Disposition": f'attachment; filename="cut-{id}.json"'}
    return Response(json.dumps(found, indent=2), 200, headers, "application/json")


ROUTES: tuple[ConsoleRoute, ...] = (
    shown(LIST, _list),
    shown(LIST + "/{id:int}", _one),
    shown(LIST + "/{id:int}/receipt", _receipt),
)
