"""Creating, editing, disabling and deleting resources."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.responses import Response

from klinket.controller.app import remote_networks, resources, security_policies
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rehearsal import would_cut
from klinket.controller.app.resources import BYPASS
from klinket.controller.app.rows import ResourceRow
from klinket.controller.console.form import Form
from klinket.controller.console.network import ports_text
from klinket.controller.console.network.connectors import network_names
from klinket.controller.console.network.made_cuts import cut_of
from klinket.controller.console.network.resources import LIST
from klinket.controller.console.notices import Notice, Undo
from klinket.controller.console.page import Page
from klinket.controller.console.route import ConsoleRoute, changed, shown
from klinket.domain.errors import Conflict, InvalidInput, KlinketError
from klinket.domain.role import Permission

THROUGH = "THROUGH_TWINGATE"
#: Where a resource's traffic goes, in words; the values are the Admin API's.
ROUTING = {THROUGH: "Through a connector", BYPASS: "Not through klinket: clients leave the address to their system"}


def _tags(form: Form) -> list[dict[str, str]]:
    tags = []
    for line in form.text("tags").splitlines():
        key, equals, value = line.partition("=")
        if line.strip():
            if not equals:
                raise InvalidInput("tags", f"not a tag: {line[:40]!r}", hint="one tag a line: key=value")
            tags.append({"key": key, "value": value})
    return tags


def _columns(page: Page, tx: Transaction) -> dict[str, Any]:
    """Return a resource's columns as a form gives them; raises InvalidInput, NotFound."""
    form = page.form
    if not form.text("network"):
        raise InvalidInput("network", "a resource is in a remote network: choose one")
    columns: dict[str, Any] = {
        "name": form.text("name"),
        "address": form.text("address"),
        "alias": form.optional("alias"),
        "remote_network_id": remote_networks.get(tx, form.number("network"), form.text("network")).id,
        "protocols": ports_text.from_form(form),
        "tags": _tags(form),
        "is_visible": form.flag("is_visible"),
        "is_browser_shortcut_enabled": form.flag("is_browser_shortcut_enabled"),
        "routing_mode": form.text("routing_mode", THROUGH),
    }
    if columns["routing_mode"] not in ROUTING:
        raise InvalidInput("routing_mode", "there is no such way for its traffic")
    if page.may(Permission.ADMIN) and form.text("policy"):
        columns["security_policy_id"] = security_policies.get(tx, form.number("policy"), form.text("policy")).id
    return columns


async def _form(page: Page, row: ResourceRow | None, error: KlinketError | None = None, would_end: int = 0) -> Response:
    """`would_end`: live flows that saving ends, which has to be said once more."""

    def read(tx: Transaction) -> dict[str, Any]:
        return {
            "networks": network_names(tx),
            "policies": tx.security_policies.find(),
            "live": tx.live_flows.count(resource_id=row.id) if row is not None else 0,
        }

    ports = {name: ports_text.chosen(row.protocols if row is not None else None, name) for name in ("tcp", "udp")}
    values = {
        "row": row,
        "would_end": would_end,
        "ports": ports,
        "port_choices": ports_text.CHOICES,
        "routing": ROUTING,
        **await page.read(read),
    }
    if error is not None:
        return page.refuse("network/resource_form.html", error, **values)
    return page.render("network/resource_form.html", **values)


async def _new(page: Page) -> Response:
    return await _form(page, None)


async def _create(page: Page) -> Response:
    try:
        row = await page.write(lambda tx: resources.create(tx, page.actor, **_columns(page, tx)))
    except KlinketError as error:
        return await _form(page, None, error)
    return page.redirect(f"{LIST}/{row.id}", f"Resource {row.name} added. Next: say who may reach it.")


async def _edit(page: Page) -> Response:
    id = page.number()
    return await _form(page, await page.read(lambda tx: resources.get(tx, id, id)))


async def _update(page: Page) -> Response:
    id = page.number()

    def change(tx: Transaction) -> int | None:
        row = resources.get(tx, id, id)
        page.form.check_unchanged(row.updated_at_ms)
        columns = _columns(page, tx)
        return cut_of(tx, lambda: resources.update(tx, page.actor, row, columns))

    row = await page.read(lambda tx: resources.get(tx, id, id))
    try:
        _, foreseen = await would_cut(page.console.store, change)
        if foreseen.flows > page.form.number("confirmed", 0):
            ends = "1 live flow" if foreseen.flows == 1 else f"{foreseen.flows} live flows"
            return await _form(page, row, Conflict(f"saving this ends {ends} at once", hint="save once more"), foreseen.flows)
        cut = await page.write(change)
    except KlinketError as error:
        return await _form(page, row, error)
    return page.redirect(f"{LIST}/{id}", Notice("Saved. Flows that it no longer allows end." if cut else "Saved.", cut=cut))


def _switch(is_active: bool) -> Callable[[Page], Any]:
    async def switch(page: Page) -> Response:
        id = page.number()

        def change(tx: Transaction) -> tuple[ResourceRow, int | None]:
            row = resources.get(tx, id, id)
            return row, cut_of(tx, lambda: resources.update(tx, page.actor, row, {"is_active": is_active}))

        row, cut = await page.write(change)
        if is_active:
            return page.redirect(f"{LIST}/{id}", f"Resource {row.name} enabled.")
        notice = Notice(
            f"Resource {row.name} disabled: nobody reaches it.",
            undo=Undo(f"{LIST}/{id}/enable", label="Enable it again"),
            cut=cut,
        )
        return page.redirect(f"{LIST}/{id}", notice)

    return switch


async def _delete(page: Page) -> Response:
    id = page.number()

    def delete(tx: Transaction) -> tuple[ResourceRow, int | None]:
        row = resources.get(tx, id, id)
        return row, cut_of(tx, lambda: resources.delete(tx, page.actor, row))

    row, cut = await page.write(delete)
    return page.redirect(LIST, Notice(f"Resource {row.name} deleted, with all access to it.", cut=cut))


ROUTES: tuple[ConsoleRoute, ...] = (
    shown(LIST + "/new", _new, Permission.NETWORK),
    changed(LIST + "/new", _create, Permission.NETWORK),
    shown(LIST + "/{id:int}/edit", _edit, Permission.NETWORK),
    changed(LIST + "/{id:int}/edit", _update, Permission.NETWORK),
    changed(LIST + "/{id:int}/disable", _switch(False), Permission.NETWORK),
    changed(LIST + "/{id:int}/enable", _switch(True), Permission.NETWORK),
    changed(LIST + "/{id:int}/delete", _delete, Permission.NETWORK),
)
