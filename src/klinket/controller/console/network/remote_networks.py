"""Network > Remote networks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from klinket.controller.app import remote_networks
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import RemoteNetworkRow
from klinket.controller.console.page import Page
from klinket.controller.console.paging import Part, part_of
from klinket.controller.console.route import ConsoleRoute, changed, shown
from klinket.domain.errors import KlinketError
from klinket.domain.role import Permission

LIST = "/network/remote-networks"
#: Values of the Admin API's RemoteNetworkLocation, as people read them.
LOCATIONS = {"ON_PREMISE": "On premise", "AWS": "AWS", "AZURE": "Azure", "GOOGLE_CLOUD": "Google Cloud", "OTHER": "Other"}


@dataclass(frozen=True, slots=True)
class _Listed:
    row: RemoteNetworkRow
    connectors: int
    online: int
    resources: int


def _listed(page: Page, tx: Transaction, row: RemoteNetworkRow) -> _Listed:
    connectors = tx.connectors.find(remote_network_id=row.id)
    online = sum(connector.id in page.console.peers.connectors for connector in connectors)
    return _Listed(row, len(connectors), online, tx.resources.count(remote_network_id=row.id))


async def _list(page: Page) -> Response:
    def read(tx: Transaction) -> tuple[Part[RemoteNetworkRow], list[_Listed]]:
        part = part_of(page, tx.remote_networks.all())
        return part, [_listed(page, tx, row) for row in part.rows]

    part, networks = await page.read(read)
    return page.render("network/remote_networks.html", part=part, networks=networks)


async def _new(page: Page, error: KlinketError | None = None) -> Response:
    if error is None:
        return page.render("network/remote_network_form.html", row=None, locations=LOCATIONS)
    return page.refuse("network/remote_network_form.html", error, row=None, locations=LOCATIONS)


async def _create(page: Page) -> Response:
    form = page.form
    try:
        row = await page.write(
            lambda tx: remote_networks.create(
                tx, page.actor, name=form.text("name"), location=form.text("location"), network_type="REGULAR", is_active=True
            )
        )
    except KlinketError as error:
        return await _new(page, error)
    return page.redirect(f"{LIST}/{row.id}", f"Remote network {row.name} created. Next: add a connector to it.")


async def _one(page: Page, error: KlinketError | None = None) -> Response:
    id = page.number()
    listed = await page.read(lambda tx: _listed(page, tx, remote_networks.get(tx, id, id)))
    values: dict[str, Any] = {"listed": listed, "row": listed.row, "locations": LOCATIONS}
    if error is not None:
        return page.refuse("network/remote_network.html", error, **values)
    return page.render("network/remote_network.html", **values)


async def _update(page: Page) -> Response:
    id, form = page.number(), page.form

    def change(tx: Transaction) -> RemoteNetworkRow:
        row = remote_networks.get(tx, id, id)
        form.check_unchanged(row.updated_at_ms)
        return remote_networks.update(
            tx, page.actor, row, name=form.text("name"), location=form.text("location"), is_active=form.flag("is_active")
        )

    try:
        row = await page.write(change)
    except KlinketError as error:
        return await _one(page, error)
    return page.redirect(f"{LIST}/{row.id}", "Saved.")


async def _delete(page: Page) -> Response:
    id = page.number()
    try:
        await page.write(lambda tx: remote_networks.delete(tx, page.actor, remote_networks.get(tx, id, id)))
    except KlinketError as error:
        return await _one(page, error)
    return page.redirect(LIST, "Remote network deleted.")


ROUTES: tuple[ConsoleRoute, ...] = (
    shown(LIST, _list),
    shown(LIST + "/new", _new, Permission.NETWORK),
    changed(LIST + "/new", _create, Permission.NETWORK),
    shown(LIST + "/{id:int}", _one),
    changed(LIST + "/{id:int}", _update, Permission.NETWORK),
    changed(LIST + "/{id:int}/delete", _delete, Permission.NETWORK),
)
