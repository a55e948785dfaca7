"""Adding connectors, their tokens, renaming and deleting them."""

from __future__ import annotations

from starlette.responses import Response

from klinket.controller.app import connectors, remote_networks
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import ConnectorRow
from klinket.controller.console.network import deploy
from klinket.controller.console.network.connectors import LIST, network_names, one
from klinket.controller.console.network.health import health
from klinket.controller.console.network.made_cuts import cut_of
from klinket.controller.console.notices import Notice
from klinket.controller.console.page import Page
from klinket.controller.console.route import ConsoleRoute, changed, shown
from klinket.domain.errors import Forbidden, InvalidInput, KlinketError
from klinket.domain.role import Permission


async def _new(page: Page, error: KlinketError | None = None) -> Response:
    networks = await page.read(network_names)
    if error is not None:
        return page.refuse("network/connector_form.html", error, networks=networks)
    return page.render("network/connector_form.html", networks=networks)


async def _create(page: Page) -> Response:
    form, entropy = page.form, page.console.services.entropy

    def create(tx: Transaction) -> ConnectorRow:
        if not form.text("network"):
            raise InvalidInput("network", "a connector stands in a remote network: choose one")
        network = remote_networks.get(tx, form.number("network"), form.text("network"))
        name = form.text("name") or connectors.made_up_name(tx, entropy)
        return connectors.create(
            tx, page.actor, network, name=name, has_status_notifications=form.flag("has_status_notifications")
        )

    try:
        row = await page.write(create)
    except KlinketError as error:
        return await _new(page, error)
    return page.redirect(f"{LIST}/{row.id}/tokens", f"Connector {row.name} added. Next: generate its tokens and start it.")


async def _update(page: Page) -> Response:
    id, form = page.number(), page.form

    def change(tx: Transaction) -> ConnectorRow:
        row = connectors.get(tx, id, id)
        form.check_unchanged(row.updated_at_ms)
        notify = form.flag("has_status_notifications")
        return connectors.update(tx, page.actor, row, name=form.text("name"), has_status_notifications=notify)

    try:
        await page.write(change)
    except KlinketError as error:
        return await one(page, error)
    return page.redirect(f"{LIST}/{id}", "Saved.")


async def _delete(page: Page) -> Response:
    id = page.number()

    def delete(tx: Transaction) -> tuple[ConnectorRow, int | None]:
        row = connectors.get(tx, id, id)
        return row, cut_of(tx, lambda: connectors.delete(tx, page.actor, row))

    row, cut = await page.write(delete)
    return page.redirect(LIST, Notice(f"Connector {row.name} deleted. Its tokens are worthless now.", cut=cut))


async def _tokens(page: Page) -> Response:
    id = page.number()
    row, live = await page.read(lambda tx: (connectors.get(tx, id, id), tx.live_flows.count(connector_id=id)))
    return page.render("network/connector_tokens.html", row=row, live=live, health=_health(page, row), tokens=None)


async def _issue(page: Page) -> Response:
    id, console = page.number(), page.console

    def issue(tx: Transaction) -> tuple[ConnectorRow, str, str]:
        row = connectors.get(tx, id, id)
        if row.enrolled_jkt is not None and not page.may(Permission.ADMIN):
            raise Forbidden(
                f"connector {row.name} has a key: replacing it is an admin's to do",
                hint="ask somebody with the role ADMIN, or delete the connector and add another",
            )
        pair = connectors.issue_tokens(tx, page.actor, row, console.services.entropy)
        return connectors.get(tx, id, id), *pair

    row, access, refresh = await page.write(issue)
    url, authority = console.config.public_url, console.services.facts.controller_ca
    tokens = deploy.tokens_file(url=url, access_token=access, refresh_token=refresh, authority=authority)
    name = deploy.slug(row.name, row.id)
    return page.render(
        "network/connector_tokens.html",
        row=row,
        live=0,
        health=_health(page, row),
        tokens=tokens,
        file=f"{name}.json",
        snippets=deploy.snippets(name, tokens),
    )


def _health(page: Page, row: ConnectorRow) -> object:
    return health(row, page.console.peers.online(), page.console.now_ms)


ROUTES: tuple[ConsoleRoute, ...] = (
    shown(LIST + "/new", _new, Permission.NETWORK),
    changed(LIST + "/new", _create, Permission.NETWORK),
    changed(LIST + "/{id:int}", _update, Permission.NETWORK),
    changed(LIST + "/{id:int}/delete", _delete, Permission.NETWORK),
    shown(LIST + "/{id:int}/tokens", _tokens, Permission.NETWORK, secret=True),
    changed(LIST + "/{id:int}/tokens", _issue, Permission.NETWORK, secret=True),
)
