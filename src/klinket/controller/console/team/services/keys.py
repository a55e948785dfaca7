"""Keys of a service: "Generate Key" with the text shown once, rotation, rename, revoke, delete."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.responses import Response

from klinket.controller.app import key_hygiene, service_accounts, service_keys
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import ServiceAccountRow, ServiceKeyRow
from klinket.controller.app.service_keys import KeyOrigin, KeyUse
from klinket.controller.console.form import Form
from klinket.controller.console.headers import PAGE_HEADERS
from klinket.controller.console.notices import Notice
from klinket.controller.console.page import Page
from klinket.controller.console.route import ConsoleRoute, changed, shown
from klinket.controller.console.sent_forms import FORM_FIELD, SentAlready
from klinket.controller.console.team.services.expiry import KEY_DEFAULT, KEY_PRESETS, NEVER, OTHER, key_days
from klinket.controller.console.team.services.receipts import with_cut, with_receipt
from klinket.controller.console.team.services.snippets import file_name, snippets
from klinket.controller.graphql.key_text import new_key
from klinket.domain.account_limits import MAX_SEATS, SeatsExceeded
from klinket.domain.errors import InvalidInput, KlinketError, NotFound
from klinket.domain.role import Permission
from klinket.domain.service_key import DEFAULT_DAYS, MAX_DAYS

LIST = "/team/services"
FORM = "team/services/key_new.html"
#: Active keys that a new one may take over from, the newest.
MAX_OFFERED = 100


def key_of(tx: Transaction, account: int, key: int) -> tuple[ServiceAccountRow, ServiceKeyRow]:
    """Return a key and its account; raises NotFound, also for a key of another account."""
    owner = service_accounts.get(tx, account, account)
    row = service_keys.get(tx, key, key)
    if row.service_account_id != owner.id:
        raise NotFound(service_keys.KIND, key)
    return owner, row


async def _form(page: Page, error: KlinketError | None = None) -> Response:
    id = page.number()

    def read(tx: Transaction) -> tuple[ServiceAccountRow, list[ServiceKeyRow]]:
        active = tx.service_keys.matching(
            "", (), order="id", descending=True, beyond={"expires_at_ms": tx.now_ms}, service_account_id=id, revoked_at_ms=None
        )
        return service_accounts.get(tx, id, id), list(active[:MAX_OFFERED])

    row, active = await page.read(read)
    given = page.form.text if page.request.method == "POST" else page.query
    values: dict[str, Any] = {
        "row": row,
        "active": active,
        "replaces": given("replaces", ""),
        "form_id": page.console.services.entropy(16).hex(),
        "presets": KEY_PRESETS,
        "default": KEY_DEFAULT,
        "never": NEVER,
        "other": OTHER,
        "default_days": DEFAULT_DAYS,
        "max_days": MAX_DAYS,
        "max_seats": MAX_SEATS,
        "default_hours": key_hygiene.DEFAULT_OVERLAP_HOURS,
        "max_hours": key_hygiene.MAX_OVERLAP_HOURS,
    }
    if error is not None:
        return page.refuse(FORM, error, **values)
    return page.render(FORM, **values)


def _use(form: Form) -> KeyUse:
    """Return how the key of a form may be used; raises InvalidInput."""
    seats = form.number("seats", 0) if form.text("kind") == "seats" else None
    try:
        exceeded = SeatsExceeded(form.text("seatsExceeded", SeatsExceeded.ALERT.value))
    except ValueError as error:
        raise InvalidInput("seatsExceeded", "choose what happens beyond the seats") from error
    use = KeyUse(seats, exceeded, form.text("kind") == "canary")
    use.check()
    return use


def _made(page: Page) -> tuple[str, Callable[[Transaction], tuple[ServiceAccountRow, ServiceKeyRow, str]]]:
    """Return the private half's PEM ("": the owner has it), and the change that stores a new key; raises InvalidInput."""
    id, form = page.number(), page.form
    days, name, replaces = key_days(form), form.optional("name"), form.optional("replaces")
    hours = form.number("overlapHours", key_hygiene.DEFAULT_OVERLAP_HOURS)
    public_key = form.text("publicKey") if form.text("pair") == "own" else None
    if public_key == "":
        raise InvalidInput("publicKey", "publicKey is missing", hint="paste the public key, or let klinket make the pair")
    if replaces is not None and not (replaces.isascii() and replaces.isdigit() and len(replaces) < 10):
        raise InvalidInput("replaces", "choose the key that is replaced from the list")
    new = new_key(page.console.services, public_key)
    more = {"days": days, "name": name, "kid": new.kid, "public_key": new.public_key}
    origin = KeyOrigin.CONTROLLER if public_key is None else KeyOrigin.OWNER
    use = _use(form)
    if use.is_canary and (replaces is not None or public_key is not None):
        raise InvalidInput(
            "kind", "a canary key replaces no key, and klinket makes it", hint="choose “No key”, and let klinket make it"
        )

    def change(tx: Transaction) -> tuple[ServiceAccountRow, ServiceKeyRow, str]:
        account = service_accounts.get(tx, id, id)
        if replaces is None:
            row = service_keys.create(tx, page.actor, account, origin=origin, use=use, **more)  # type: ignore[arg-type]
        else:
            _, old = key_of(tx, id, int(replaces))
            row = key_hygiene.rotate(tx, page.actor, old, overlap_hours=hours, origin=origin, **more)  # type: ignore[arg-type]
            if use.seats is not None:
                row = service_keys.set_seats(tx, page.actor, row, use.seats, use.exceeded)
        return account, row, new.file_text(page.console.services, account, row)

    return new.private_key, change


async def _generate(page: Page) -> Response:
    session, form_id = page.session.id, page.form.text(FORM_FIELD)
    try:
        page.console.sent_forms.begin(session, form_id)
    except SentAlready as error:
        return page.redirect(f"{LIST}/{page.number()}", Notice(f"{error.message}. {error.hint}.", kind="warning"))
    except KlinketError as error:
        return await _form(page, error)
    try:
        private_key, change = _made(page)
        account, row, text = await page.write(change)
    except KlinketError as error:
        page.console.sent_forms.forget(session, form_id)
        return await _form(page, error)
    file = file_name(account.name)
    if page.form.flag("as_file"):
        # The only way to a file without a script: this answer is the file, and nobody can ask for it again.
        headers = {**PAGE_HEADERS, "Content-Disposition": f'attachment; filename="{file}"'}
        return Response(text + "\n", 200, headers, "application/json")
    return page.render(
        "team/services/key_shown.html",
        row=account,
        key=row,
        text=text,
        file=file,
        has_private_key=bool(private_key),
        snippets=snippets(account.name),
    )


async def _rename(page: Page) -> Response:
    id, number, form = page.number(), page.number("key"), page.form

    def change(tx: Transaction) -> ServiceKeyRow:
        _, row = key_of(tx, id, number)
        form.check_unchanged(row.updated_at_ms)
        return service_keys.rename(tx, page.actor, row, form.text("name"))

    row = await page.write(change)
    return page.redirect(f"{LIST}/{id}", f"Key renamed to {row.name}.")


async def _revoke(page: Page) -> Response:
    id, number = page.number(), page.number("key")

    def change(tx: Transaction) -> ServiceKeyRow:
        return service_keys.revoke(tx, page.actor, key_of(tx, id, number)[1])

    row, cut = await with_cut(page, change)
    return page.redirect(with_receipt(f"{LIST}/{id}", cut), f"Key {row.name} revoked: it opens nothing any more.")


async def _delete(page: Page) -> Response:
    id, number = page.number(), page.number("key")

    def change(tx: Transaction) -> str:
        _, row = key_of(tx, id, number)
        service_keys.delete(tx, page.actor, row)
        return row.name

    name, _ = await with_cut(page, change)
    return page.redirect(f"{LIST}/{id}", f"Key {name} deleted.")


_KEY = LIST + "/{id:int}/keys/{key:int}"
ROUTES: tuple[ConsoleRoute, ...] = (
    shown(LIST + "/{id:int}/keys/new", _form, Permission.ADMIN, secret=True),
    changed(LIST + "/{id:int}/keys/new", _generate, Permission.ADMIN, secret=True),
    changed(_KEY + "/rename", _rename, Permission.ADMIN),
    changed(_KEY + "/revoke", _revoke, Permission.ADMIN),
    changed(_KEY + "/delete", _delete, Permission.ADMIN),
)
