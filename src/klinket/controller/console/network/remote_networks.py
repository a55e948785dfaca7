"""Network > Remote networks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from klinket.controller.app import inventory_map, remote_networks
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import ConnectorRow, RemoteNetworkRow
from klinket.controller.console.form import Form
from klinket.controller.console.network.connectors import Listed, listed
from klinket.controller.console.network.health import MIN_VERSION, too_old
from klinket.controller.console.network.made_cuts import cut_of
from klinket.controller.console.network.resource_rows import ListedResource, listed_resources
from klinket.controller.console.notices import Notice, Undo
from klinket.controller.console.page import Page
from klinket.controller.console.paging import Part, part_of
from klinket.controller.console.route import ConsoleRoute, changed, shown
from klinket.domain.errors import InvalidInput, KlinketError
from klinket.domain.role import Permission

LIST = "/network/remote-networks"
#: Connectors, and resources, shown on a remote network's page; their own lists have them all.
SHOWN = 12
#: Values of the Admin API's RemoteNetworkLocation, as people read them.
LOCATIONS = {"ON_PREMISE": "On premise", "AWS": "AWS", "AZURE": "Azure", "GOOGLE_CLOUD": "Google Cloud", "OTHER": "Other"}


@dataclass(frozen=True, slots=True)
class _Listed:
    row: RemoteNetworkRow
    connectors: int
    online: int
    resources: int
    live: int


def _listed(page: Page, tx: Transaction, rows: Sequence[RemoteNetworkRow]) -> list[_Listed]:
    ids = {row.id for row in rows}
    standing = tx.connectors.pick(("id", "remote_network_id"), remote_network_id=ids)
    connectors = Counter(network for _, network in standing)
    online = Counter(network for id, network in standing if id in page.console.peers.connectors)
    resources = tx.resources.counts("remote_network_id", remote_network_id=ids)
    carried = tx.live_flows.counts("connector_id", connector_id={id for id, _ in standing})
    live: Counter[int] = Counter()
    for id, network in standing:
        live[network] += carried.get(id, 0)
    return [_Listed(row, connectors[row.id], online[row.id], resources.get(row.id, 0), live[row.id]) for row in rows]


async def _list(page: Page) -> Response:
    def read(tx: Transaction) -> tuple[Part[RemoteNetworkRow], list[_Listed]]:
        part = part_of(page, tx.remote_networks.matching(page.query("q"), ("name",), order="name"))
        return part, _listed(page, tx, part.rows)

    part, networks = await page.read(read)
    return page.render("network/remote_networks.html", part=part, networks=networks, locations=LOCATIONS)


def _location(form: Form) -> str:
    """Return the location a form gives; raises InvalidInput."""
    location = form.text("location")
    if location not in LOCATIONS:
        raise InvalidInput("location", f"there is no location {location[:40]!r}")
    return location


async def _new(page: Page, error: KlinketError | None = None) -> Response:
    if error is None:
        return page.render("network/remote_network_form.html", row=None, locations=LOCATIONS)
    return page.refuse("network/remote_network_form.html", error, row=None, locations=LOCATIONS)


async def _create(page: Page) -> Response:
    form = page.form
    try:
        row = await page.write(
            lambda tx: remote_networks.create(
                tx, page.actor, name=form.text("name"), location=_location(form), network_type="REGULAR", is_active=True
            )
        )
    except KlinketError as error:
        return await _new(page, error)
    return page.redirect(f"{LIST}/{row.id}", f"Remote network {row.name} created. Next: add a connector to it.")


@dataclass(frozen=True, slots=True)
class _Shown:
    """A remote network with what is in it: its first connectors, and the resources that were reached most."""

    listed: _Listed
    connectors: list[Listed]
    resources: list[ListedResource]
    old: list[ConnectorRow]


def _shown(page: Page, tx: Transaction, row: RemoteNetworkRow) -> _Shown:
    standing = tx.connectors.matching("", (), order="name", remote_network_id=row.id)[:]
    return _Shown(
        _listed(page, tx, [row])[0],
        listed(page, tx, standing[:SHOWN]),
        listed_resources(tx, inventory_map.busiest(tx, row.id, SHOWN)),
        [one for one in standing if too_old(one)],
    )


async def _one(page: Page, error: KlinketError | None = None) -> Response:
    id = page.number()
    found = await page.read(lambda tx: _shown(page, tx, remote_networks.get(tx, id, id)))
    values: dict[str, Any] = {
        "shown": found,
        "listed": found.listed,
        "row": found.listed.row,
        "locations": LOCATIONS,
        "min_version": MIN_VERSION,
    }
    if error is not None:
        return page.refuse("network/remote_network.html", error, **values)
    return page.render("network/remote_network.html", **values)


async def _update(page: Page) -> Response:
    id, form = page.number(), page.form

    def change(tx: Transaction) -> None:
        row = remote_networks.get(tx, id, id)
        form.check_unchanged(row.updated_at_ms)
        remote_networks.update(tx, page.actor, row, name=form.text("name"), location=_location(form), is_active=None)

    return await page.carry_out(change, _one, lambda _: page.redirect(f"{LIST}/{id}", "Saved."))


def _switch(is_active: bool) -> Callable[[Page], Awaitable[Response]]:
    async def switch(page: Page) -> Response:
        id = page.number()

        def change(tx: Transaction) -> tuple[RemoteNetworkRow, int | None]:
            row = remote_networks.get(tx, id, id)
            cut = cut_of(tx, lambda: remote_networks.update(tx, page.actor, row, name=None, location=None, is_active=is_active))
            return row, cut

        row, cut = await page.write(change)
        if is_active:
            return page.redirect(f"{LIST}/{id}", f"Remote network {row.name} enabled.")
        undo = Undo(f"{LIST}/{id}/enable", label="Enable it again")
        told = f"Remote network {row.name} disabled: nothing in it is reached."
        return page.redirect(f"{LIST}/{id}", Notice(told, undo=undo, cut=cut))

    return switch


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
    changed(LIST + "/{id:int}/disable", _switch(False), Permission.NETWORK),
    changed(LIST + "/{id:int}/enable", _switch(True), Permission.NETWORK),
    changed(LIST + "/{id:int}/delete", _delete, Permission.NETWORK),
)
