"""Settings > API tokens: what opens the Admin API. A token's text is in the answer that makes it, and nowhere else."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from klinket.controller.app import api_tokens
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import ApiTokenRow
from klinket.controller.console.notices import Notice, Undo
from klinket.controller.console.page import Page
from klinket.controller.console.paging import Part, part_of
from klinket.controller.console.route import ConsoleRoute, changed, shown
from klinket.domain.api_token import MAX_DAYS
from klinket.domain.errors import KlinketError
from klinket.domain.role import Permission

LIST = "/settings/api-tokens"
FORM, ONE = "settings/api_token_form.html", "settings/api_token.html"
#: The highest scope as people read it, with what it brings.
SCOPES = {
    "read": ("Read", "queries, and nothing else"),
    "write": ("Read & write", "changes networks, resources, access, groups; no secrets come out"),
    "provision": ("Read, write & provision", "also service keys, connector tokens, sinks and API tokens: what Terraform needs"),
}
#: Days a new token lives, as they are offered; "0": it never expires.
DAYS = {"30": "30 days", "90": "90 days", "365": "1 year", "0": "Never"}
DEFAULT_DAYS = "90"
_WORDS: dict[str, Any] = {"scopes": SCOPES, "days": DAYS, "default_days": DEFAULT_DAYS, "max_days": MAX_DAYS}


def state_of(row: ApiTokenRow, now_ms: int) -> tuple[str, str]:
    """Return kind of pill, and word."""
    if row.expires_at_ms is not None and row.expires_at_ms <= now_ms:
        return "bad", "Expired"
    return ("ok", "Active") if row.is_enabled else ("idle", "Disabled")


async def _list(page: Page) -> Response:
    text = page.query("q")[:100]

    def read(tx: Transaction) -> Part[ApiTokenRow]:
        return part_of(page, tx.api_tokens.matching(text, ("name",), order="name"))

    return page.render("settings/api_tokens.html", part=await page.read(read), state_of=state_of, **_WORDS)


async def _new(page: Page, error: KlinketError | None = None) -> Response:
    return page.render(FORM, **_WORDS) if error is None else page.refuse(FORM, error, **_WORDS)


def _ranges(page: Page) -> list[str]:
    return page.form.text("allowedRanges").replace(",", " ").split()


async def _create(page: Page) -> Response:
    form = page.form

    def change(tx: Transaction) -> tuple[ApiTokenRow, str]:
        return api_tokens.create(
            tx,
            page.actor,
            name=form.text("name"),
            scopes=[form.text("scope")],
            entropy=page.console.services.entropy,
            days=form.number("expirationTime"),
            allowed_ranges=_ranges(page),
        )

    try:
        row, token = await page.write(change)
    except KlinketError as error:
        return await _new(page, error)
    config = page.console.config
    own = page.console.services.facts.controller_ca is not None
    return page.render(
        "settings/api_token_shown.html", row=row, token=token, url=config.public_url.rstrip("/"), own=own, **_WORDS
    )


async def _one(page: Page, error: KlinketError | None = None) -> Response:
    id = page.number()
    row = await page.read(lambda tx: api_tokens.get(tx, id, id))
    values: dict[str, Any] = {"row": row, "state_of": state_of, **_WORDS}
    return page.render(ONE, **values) if error is None else page.refuse(ONE, error, **values)


async def _update(page: Page) -> Response:
    id, form = page.number(), page.form

    def change(tx: Transaction) -> None:
        row = api_tokens.get(tx, id, id)
        form.check_unchanged(row.updated_at_ms)
        api_tokens.update(tx, page.actor, row, name=form.text("name"), scopes=[form.text("scope")], allowed_ranges=_ranges(page))

    return await page.carry_out(change, _one, lambda _: page.redirect(f"{LIST}/{id}", "Saved."))


async def _enable(page: Page) -> Response:
    return await _switch(page, is_enabled=True)


async def _disable(page: Page) -> Response:
    return await _switch(page, is_enabled=False)


async def _switch(page: Page, *, is_enabled: bool) -> Response:
    id = page.number()
    try:
        row = await page.write(lambda tx: api_tokens.update(tx, page.actor, api_tokens.get(tx, id, id), is_enabled=is_enabled))
    except KlinketError as error:
        return await _one(page, error)
    if is_enabled:
        return page.redirect(f"{LIST}/{id}", f"{row.name} works again.")
    return page.redirect(f"{LIST}/{id}", Notice(f"{row.name} is refused from now on.", undo=Undo(f"{LIST}/{id}/enable")))


async def _delete(page: Page) -> Response:
    id = page.number()

    def change(tx: Transaction) -> ApiTokenRow:
        row = api_tokens.get(tx, id, id)
        api_tokens.delete(tx, page.actor, row)
        return row

    return await page.carry_out(change, _one, lambda row: page.redirect(LIST, f"API token {row.name} deleted."))


_ADMIN = Permission.ADMIN
ROUTES: tuple[ConsoleRoute, ...] = (
    shown(LIST, _list, _ADMIN),
    shown(LIST + "/new", _new, _ADMIN, secret=True),
    changed(LIST + "/new", _create, _ADMIN, secret=True),
    shown(LIST + "/{id:int}", _one, _ADMIN),
    changed(LIST + "/{id:int}", _update, _ADMIN, secret=True),
    changed(LIST + "/{id:int}/enable", _enable, _ADMIN, secret=True),
    changed(LIST + "/{id:int}/disable", _disable, _ADMIN),
    changed(LIST + "/{id:int}/delete", _delete, _ADMIN),
)
