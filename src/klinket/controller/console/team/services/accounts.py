"""Team > Services: the list, "Create Service Account", renaming and deleting."""

from __future__ import annotations

import uuid

from starlette.responses import Response

from klinket.controller.app import service_accounts
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import ServiceAccountRow
from klinket.controller.console.notices import Notice
from klinket.controller.console.page import Page
from klinket.controller.console.paging import Part, part_of
from klinket.controller.console.route import ConsoleRoute, changed, shown
from klinket.controller.console.team.services import service
from klinket.controller.console.team.services.listing import ListedService, listed
from klinket.controller.console.team.services.receipts import with_cut
from klinket.domain.errors import KlinketError
from klinket.domain.role import Permission

LIST = "/team/services"
#: Characters of a search.
MAX_SEARCH_CHARS = 100


async def _list(page: Page) -> Response:
    text = page.query("q")[:MAX_SEARCH_CHARS]

    def read(tx: Transaction) -> tuple[Part[ServiceAccountRow], list[ListedService]]:
        part = part_of(page, tx.service_accounts.matching(text, ["name"], order="name"))
        return part, listed(tx, part.rows)

    part, services = await page.read(read)
    return page.render("team/services/list.html", part=part, services=services, text=text)


async def _new(page: Page) -> Response:
    return page.render("team/services/new.html")


async def _create(page: Page) -> Response:
    account_uuid = str(uuid.UUID(bytes=page.console.services.entropy(16), version=4))
    try:
        row = await page.write(lambda tx: service_accounts.create(tx, page.actor, name=page.form.text("name"), uuid=account_uuid))
    except KlinketError as error:
        return page.refuse("team/services/new.html", error)
    told = f"Service account {row.name} created. Next: generate a key for it, and add resources."
    return page.redirect(f"{LIST}/{row.id}", told)


async def _rename(page: Page) -> Response:
    id, form = page.number(), page.form

    def change(tx: Transaction) -> ServiceAccountRow:
        row = service_accounts.get(tx, id, id)
        form.check_unchanged(row.updated_at_ms)
        return service_accounts.rename(tx, page.actor, row, form.text("name"))

    try:
        await page.write(change)
    except KlinketError as error:
        return await service.shown_service(page, error)
    return page.redirect(f"{LIST}/{id}", "Saved.")


async def _delete(page: Page) -> Response:
    id = page.number()

    def change(tx: Transaction) -> str:
        row = service_accounts.get(tx, id, id)
        service_accounts.delete(tx, page.actor, row)
        return row.name

    name, cut = await with_cut(page, change)
    return page.redirect(LIST, Notice(f"Service account {name} deleted. Its keys open nothing any more.", cut=cut))


ROUTES: tuple[ConsoleRoute, ...] = (
    shown(LIST, _list),
    shown(LIST + "/new", _new, Permission.ADMIN),
    changed(LIST + "/new", _create, Permission.ADMIN),
    shown(LIST + "/{id:int}", service.shown_service),
    changed(LIST + "/{id:int}/rename", _rename, Permission.ADMIN),
    changed(LIST + "/{id:int}/delete", _delete, Permission.ADMIN),
)
