"""Resources of a service: "Add Resource", until when, taking one away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from klinket.controller.app import access, resources, service_accounts
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import AccessRow, ResourceRow, ServiceAccountRow
from klinket.controller.console.form import ChangedMeanwhile
from klinket.controller.console.notices import Notice, Undo
from klinket.controller.console.page import Page
from klinket.controller.console.paging import Part, part_of
from klinket.controller.console.route import ConsoleRoute, changed, shown
from klinket.controller.console.team.services.expiry import ACCESS_PRESETS, access_end, as_input
from klinket.controller.console.team.services.receipts import with_cut, with_receipt
from klinket.controller.console.team.services.service import Reached, reached
from klinket.domain.connector import check_services_allowed
from klinket.domain.errors import ConnectorTooOld, InvalidInput, KlinketError, NotFound
from klinket.domain.role import Permission

LIST = "/team/services"
#: Resources of one page of the search, and those that one form adds.
PAGE_RESOURCES = 25
MAX_ADDED = 100
MAX_SEARCH_CHARS = 100


@dataclass(frozen=True, slots=True)
class Offered:
    """A resource that can be added. `too_old`: why its remote network cannot serve services yet."""

    row: ResourceRow
    network: str
    is_granted: bool
    too_old: ConnectorTooOld | None


def _offered(tx: Transaction, account: int, rows: Sequence[ResourceRow]) -> list[Offered]:
    granted = {row.resource_id for row in tx.access.find(service_account_id=account, resource_id=[row.id for row in rows])}
    ids = {row.remote_network_id for row in rows}
    names = {row.id: row.name for row in tx.remote_networks.find(id=ids)}
    gates: dict[int, ConnectorTooOld | None] = {}
    for id in ids:
        try:
            check_services_allowed(access.versions_of(tx, id))
            gates[id] = None
        except ConnectorTooOld as error:
            gates[id] = error
    return [Offered(row, names[row.remote_network_id], row.id in granted, gates[row.remote_network_id]) for row in rows]


async def _form(page: Page, error: KlinketError | None = None) -> Response:
    id, text = page.number(), page.query("q")[:MAX_SEARCH_CHARS]

    def read(tx: Transaction) -> tuple[ServiceAccountRow, Part[ResourceRow], list[Offered]]:
        row = service_accounts.get(tx, id, id)
        part = part_of(page, tx.resources.matching(text, ["name", "address", "alias"], order="name"), PAGE_RESOURCES)
        return row, part, _offered(tx, id, part.rows)

    row, part, offered = await page.read(read)
    chosen = set(page.form.texts("resource"))
    values: dict[str, Any] = {
        "row": row, "part": part, "offered": offered, "text": text, "chosen": chosen, "ends": ACCESS_PRESETS,
    }  # fmt: skip
    if error is not None:
        return page.refuse("team/services/resource_add.html", error, **values)
    return page.render("team/services/resource_add.html", **values)


async def _add(page: Page) -> Response:
    id = page.number()

    def change(tx: Transaction) -> list[str]:
        wanted = page.form.numbers("resource")
        if not 1 <= len(wanted) <= MAX_ADDED:
            raise InvalidInput("resource", f"choose 1 to {MAX_ADDED} resources")
        account = service_accounts.get(tx, id, id)
        ends = access_end(page.form, tx.now_ms)
        rows = [resources.get(tx, number, number) for number in dict.fromkeys(wanted)]
        for row in rows:
            access.grant(tx, page.actor, row, account, ends)
        return [row.name for row in rows]

    try:
        names = await page.write(change)
    except KlinketError as error:
        return await _form(page, error)
    told = names[0] if len(names) == 1 else f"{len(names)} resources"
    return page.redirect(f"{LIST}/{id}", f"{told} added: any valid key of this service opens it now.")


def _access_of(tx: Transaction, account: int, resource: int) -> tuple[ServiceAccountRow, ResourceRow, AccessRow]:
    """Return account, resource, and the access of one to the other; raises NotFound."""
    owner, row = service_accounts.get(tx, account, account), resources.get(tx, resource, resource)
    found = tx.access.find(service_account_id=owner.id, resource_id=row.id)
    if not found:
        raise NotFound("Access to resource", resource)
    return owner, row, found[0]


async def _change_end(page: Page) -> Response:
    id, resource = page.number(), page.number("resource")

    def change(tx: Transaction) -> str:
        try:
            account, row, old = _access_of(tx, id, resource)
        except NotFound as error:
            raise ChangedMeanwhile("this access is not there any more") from error
        page.form.check_unchanged(old.updated_at_ms)
        access.grant(tx, page.actor, row, account, access_end(page.form, tx.now_ms))
        return row.name

    name = await page.write(change)
    return page.redirect(f"{LIST}/{id}", f"Saved until when {name} may be reached.")


async def _remove(page: Page) -> Response:
    id, resource = page.number(), page.number("resource")

    def change(tx: Transaction) -> tuple[str, AccessRow]:
        account, row, old = _access_of(tx, id, resource)
        access.revoke(tx, page.actor, row, account)
        return row.name, old

    (name, old), cut = await with_cut(page, change)
    ends = {"ends": ""} if old.expires_at_ms is None else {"ends": "other", "expiresAt": _exact(old.expires_at_ms)}
    undo = Undo(f"{LIST}/{id}/resources/new", {"resource": str(resource), **ends})
    notice = Notice(f"{name} removed: this service does not reach it any more.", undo=undo)
    return page.redirect(with_receipt(f"{LIST}/{id}", cut), notice)


def _exact(ms: int) -> str:
    return as_input(ms) + f":{ms // 1000 % 60:02d}.{ms % 1000:03d}"


async def _list(page: Page) -> Response:
    id = page.number()

    def read(tx: Transaction) -> tuple[ServiceAccountRow, Part[AccessRow], list[Reached]]:
        row = service_accounts.get(tx, id, id)
        part = part_of(page, tx.access.matching("", (), descending=True, service_account_id=id))
        return row, part, reached(tx, id, part.rows)

    row, part, lines = await page.read(read)
    values: dict[str, Any] = {"row": row, "part": part, "reached": lines, "ends": ACCESS_PRESETS, "as_input": as_input}
    return page.render("team/services/resources.html", **values)


_RESOURCES = LIST + "/{id:int}/resources"
ROUTES: tuple[ConsoleRoute, ...] = (
    shown(_RESOURCES, _list),
    shown(_RESOURCES + "/new", _form, Permission.ADMIN),
    changed(_RESOURCES + "/new", _add, Permission.ADMIN),
    changed(_RESOURCES + "/{resource:int}/end", _change_end, Permission.ADMIN),
    changed(_RESOURCES + "/{resource:int}/remove", _remove, Permission.ADMIN),
)
