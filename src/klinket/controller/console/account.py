"""The own account of somebody who is signed in: password, second factors, passkeys, recovery codes, sessions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.responses import Response

from klinket.controller.app import (
    console_sessions,
    oidc_identities,
    passkeys,
    passwords,
    recovery_codes,
    sign_in,
    totp_secrets,
)
from klinket.controller.app.console_sessions import Stage
from klinket.controller.app.ports import Transaction
from klinket.controller.console.page import Page
from klinket.controller.console.route import ConsoleRoute, changed, shown
from klinket.controller.console.sign_in import proofs, set_up_page, totp
from klinket.controller.console.sign_in.user_agent import in_words
from klinket.controller.console.sign_in.visit import SignIn, Visit
from klinket.domain.errors import InvalidInput, KlinketError
from klinket.domain.password import check_password
from klinket.domain.role import Permission

ACCOUNT = "/account"


class AccountPages:
    """Pages that need a whole session; what changes credentials needs a fresh proof as well, or the present password."""

    def __init__(self, service: SignIn) -> None:
        self._service = service

    def routes(self) -> tuple[ConsoleRoute, ...]:
        """Return the routes."""
        read = Permission.READ
        return (
            shown(ACCOUNT, self._show),
            changed(ACCOUNT + "/password", self._password, read),
            shown(ACCOUNT + "/app", self._app, secret=True),
            changed(ACCOUNT + "/app", self._confirm_app, read, secret=True),
            changed(ACCOUNT + "/app/remove", self._remove_app, read, secret=True),
            shown(ACCOUNT + "/passkeys/new", self._new_passkey, secret=True),
            changed(ACCOUNT + "/passkeys/new", self._add_passkey, read, secret=True),
            changed(ACCOUNT + "/passkeys/{id:int}/rename", self._rename_passkey, read),
            changed(ACCOUNT + "/passkeys/{id:int}/remove", self._remove_passkey, read, secret=True),
            changed(ACCOUNT + "/recovery-codes", self._new_codes, read, secret=True),
            changed(ACCOUNT + "/sessions/{id:int}/end", self._end_session, read),
            changed(ACCOUNT + "/sessions/end-others", self._end_others, read),
            changed(ACCOUNT + "/identities/{id:int}/unlink", self._unlink, read, secret=True),
        )

    def _visit(self, page: Page) -> Visit:
        return Visit(self._service, page.request, page.form, page.session, page.user)

    async def _show(self, page: Page, error: KlinketError | None = None, place: str = "") -> Response:
        def read(tx: Transaction) -> dict[str, Any]:
            sessions = [row for row in tx.console_sessions.find(user_id=page.user.id) if row.stage == Stage.FULL.value]
            live = [row for row in sessions if console_sessions.is_live(row, tx.now_ms)]
            return {
                "has_password": passwords.of_user(tx, page.user.id) is not None,
                "app": totp_secrets.confirmed(tx, page.user.id),
                "passkeys": passkeys.of_user(tx, page.user.id),
                "codes": recovery_codes.remaining(tx, page.user.id),
                "identities": oidc_identities.of_user(tx, page.user.id),
                "sessions": sorted(live, key=lambda row: (row.id != page.session.id, -row.last_seen_ms)),
            }

        values = await page.read(read)
        values |= {"in_words": in_words, "can_have_passkeys": self._service.passkeys.are_possible, "place": place}
        template = "account/account.html"
        return page.render(template, **values) if error is None else page.refuse(template, error, **values)

    # ---- password

    async def _password(self, page: Page) -> Response:
        visit, form, user = self._visit(page), page.form, page.user
        network = self._service.console.config.network
        try:
            names = (user.email, user.email.partition("@")[0], user.first_name, user.last_name, network)
            password = check_password(form.raw("password"), tuple(name for name in names if name))
            if form.raw("again") != password:
                raise InvalidInput("again", "the passwords are not the same")
            phc = await self._service.hasher.hashed(password)

            def change(tx: Transaction) -> None:
                passwords.put(tx, page.actor, user, phc)
                sign_in.end_sessions(tx, page.actor, user, but=page.session.id)

            await proofs.with_password(visit, change, "current")
        except KlinketError as error:
            return await self._show(page, error, "password")
        return page.redirect(ACCOUNT, "Password changed. Your other sessions have ended.")

    # ---- authenticator app

    async def _app(self, page: Page, error: KlinketError | None = None) -> Response:
        _, secret = await set_up_page.offered_secret(self._visit(page))
        template, text = "account/app.html", totp.as_text(secret)
        return page.render(template, secret=text) if error is None else page.refuse(template, error, secret=text)

    async def _confirm_app(self, page: Page) -> Response:
        try:
            await page.write(await set_up_page.prepared_app(self._visit(page)))
        except KlinketError as error:
            return await self._app(page, error)
        return page.redirect(ACCOUNT, "Authenticator app set up.")

    async def _remove_app(self, page: Page) -> Response:
        return await self._done(
            page, lambda tx: totp_secrets.remove(tx, page.actor, page.user), "Authenticator app removed.", "factors"
        )

    # ---- passkeys

    async def _new_passkey(self, page: Page, error: KlinketError | None = None) -> Response:
        service = self._service
        known = await page.read(lambda tx: passkeys.of_user(tx, page.user.id))
        can = service.passkeys.are_possible
        asked = service.passkeys.ask_for_new(page.user, known, page.session.id, service.now_ms) if can else None
        template = "account/passkey.html"
        return page.render(template, asked=asked) if error is None else page.refuse(template, error, asked=asked)

    async def _add_passkey(self, page: Page) -> Response:
        try:
            await page.write(set_up_page.prepared_passkey(self._visit(page)))
        except KlinketError as error:
            return await self._new_passkey(page, error)
        return page.redirect(ACCOUNT, "Passkey added.")

    async def _rename_passkey(self, page: Page) -> Response:
        id, name = page.number(), page.form.text("name")
        return await self._done(
            page, lambda tx: passkeys.rename(tx, page.actor, page.user, id, name), "Passkey renamed.", "passkeys"
        )

    async def _remove_passkey(self, page: Page) -> Response:
        id = page.number()
        return await self._done(page, lambda tx: passkeys.remove(tx, page.actor, page.user, id), "Passkey removed.", "passkeys")

    # ---- recovery codes

    async def _new_codes(self, page: Page) -> Response:
        codes = await page.write(lambda tx: recovery_codes.replace(tx, page.actor, page.user, self._service.entropy))
        return page.render("account/codes.html", codes=codes)

    # ---- sessions and identities

    async def _end_session(self, page: Page) -> Response:
        id = page.number()
        if id == page.session.id:
            return page.redirect(ACCOUNT, "This is the session you are in: sign out to end it.")
        await page.write(lambda tx: sign_in.end_session(tx, page.actor, page.user, id))
        return page.redirect(ACCOUNT, "Session ended.")

    async def _end_others(self, page: Page) -> Response:
        ended = await page.write(lambda tx: sign_in.end_sessions(tx, page.actor, page.user, but=page.session.id))
        return page.redirect(ACCOUNT, "One other session ended." if ended == 1 else f"{ended} other sessions ended.")

    async def _unlink(self, page: Page) -> Response:
        id = page.number()
        return await self._done(
            page, lambda tx: oidc_identities.unlink(tx, page.actor, page.user, id), "Account unlinked.", "identities"
        )

    async def _done(self, page: Page, change: Callable[[Transaction], object], told: str, place: str) -> Response:
        try:
            await page.write(change)
        except KlinketError as error:
            return await self._show(page, error, place)
        return page.redirect(ACCOUNT, told)
