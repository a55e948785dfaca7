"""Settings > Relays: what joins clients with connectors, and cannot read what it joins."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from klinket.controller.app import relays
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import RelayRow
from klinket.controller.console.page import Page
from klinket.controller.console.paging import Part, part_of
from klinket.controller.console.route import ConsoleRoute, changed, shown
from klinket.controller.relay_process import NAME as OWN_RELAY
from klinket.domain.errors import KlinketError
from klinket.domain.role import Permission

LIST = "/settings/relays"
FORM, ONE = "settings/relay_form.html", "settings/relay.html"


def _kept(page: Page) -> tuple[str, ...]:
    return () if page.console.config.relay is None else (OWN_RELAY,)


def _state(page: Page, row: RelayRow) -> tuple[str, str]:
    if row.id in page.console.peers.relays:
        return "ok", "Attached"
    return ("idle", "Never seen") if row.address is None else ("bad", "Not attached")


def _words(page: Page) -> dict[str, Any]:
    return {"state": lambda row: _state(page, row), "own_relay": OWN_RELAY, "kept": _kept(page)}


async def _list(page: Page) -> Response:
    def read(tx: Transaction) -> tuple[Part[RelayRow], int]:
        return part_of(page, tx.relays.matching("", ("name",), order="name")), tx.relays.count()

    part, _ = await page.read(read)
    return page.render("settings/relays.html", part=part, **_words(page))


async def _new(page: Page, error: KlinketError | None = None) -> Response:
    return page.render(FORM) if error is None else page.refuse(FORM, error)


async def _create(page: Page) -> Response:
    entropy = page.console.services.entropy
    try:
        row, token = await page.write(lambda tx: relays.create(tx, page.actor, name=page.form.text("name"), entropy=entropy))
    except KlinketError as error:
        return await _new(page, error)
    return _shown(page, row, token, is_new=True)


def _shown(page: Page, row: RelayRow, token: str, *, is_new: bool) -> Response:
    url = page.console.config.public_url.rstrip("/")
    own = page.console.services.facts.controller_ca is not None
    address = row.address or "relay1.example.com:8444"
    return page.render("settings/relay_token.html", row=row, token=token, url=url, own=own, address=address, is_new=is_new)


async def _one(page: Page, error: KlinketError | None = None) -> Response:
    id = page.number()

    def read(tx: Transaction) -> tuple[RelayRow, int]:
        row = relays.get(tx, id, id)
        others = sum(1 for one in tx.relays.find() if one.id != id and one.id in page.console.peers.relays)
        return row, others

    row, others = await page.read(read)
    connectors = sum(id in attached for attached in page.console.peers.online().values())
    values = {"row": row, "others": others, "connectors": connectors, **_words(page)}
    return page.render(ONE, **values) if error is None else page.refuse(ONE, error, **values)


async def _replace(page: Page) -> Response:
    id, entropy = page.number(), page.console.services.entropy

    def change(tx: Transaction) -> tuple[RelayRow, str]:
        row = relays.get(tx, id, id)
        page.form.check_unchanged(row.updated_at_ms)  # also when the answer is loaded again: the token shown stays alive
        return relays.replace_token(tx, page.actor, row, entropy=entropy, kept=_kept(page))

    try:
        row, token = await page.write(change)
    except KlinketError as error:
        return await _one(page, error)
    return _shown(page, row, token, is_new=False)


async def _remove(page: Page) -> Response:
    id = page.number()

    def change(tx: Transaction) -> RelayRow:
        row = relays.get(tx, id, id)
        relays.delete(tx, page.actor, row, kept=_kept(page))
        return row

    return await page.carry_out(
        change, _one, lambda row: page.redirect(LIST, f"Relay {row.name} removed. Clients and connectors are told now.")
    )


ROUTES: tuple[ConsoleRoute, ...] = (
    shown(LIST, _list),
    shown(LIST + "/new", _new, Permission.ADMIN, secret=True),
    changed(LIST + "/new", _create, Permission.ADMIN, secret=True),
    shown(LIST + "/{id:int}", _one),
    changed(LIST + "/{id:int}/token", _replace, Permission.ADMIN, secret=True),
    changed(LIST + "/{id:int}/delete", _remove, Permission.ADMIN),
)
