"""Settings > Console access: who may sign in here, with what, and since when; invitations, links, ended sessions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.responses import Response

from klinket.controller.app import console_sessions, sign_in, sign_in_links, users
from klinket.controller.app.console_sessions import Stage
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import UserRow
from klinket.controller.console.page import Page
from klinket.controller.console.route import ConsoleRoute, changed, shown
from klinket.controller.console.sign_in.user_agent import in_words
from klinket.controller.console.sign_in.visit import SignIn
from klinket.domain.errors import Conflict, InvalidInput, KlinketError
from klinket.domain.role import PERMISSIONS, Permission

CONSOLE_ACCESS = "/settings/console-access"
#: The roles that have a console, as people read them.
ROLES = {
    "ADMIN": "Admin: everything",
    "DEVOPS": "DevOps: remote networks, connectors, resources",
    "SUPPORT": "Support: read only",
}


@dataclass(frozen=True, slots=True)
class _Listed:
    """Somebody who may sign in. `ways`: what they sign in with."""

    row: UserRow
    ways: Sequence[str]
    sessions: int
    last_seen_ms: int | None
    has_link: bool


class ConsoleAccessPages:
    """Pages for admins."""

    def __init__(self, service: SignIn) -> None:
        self._service = service

    def routes(self) -> tuple[ConsoleRoute, ...]:
        """Return the routes."""
        admin = Permission.ADMIN
        return (
            shown(CONSOLE_ACCESS, self._list, admin),
            shown(CONSOLE_ACCESS + "/invite", self._invitation, admin, secret=True),
            changed(CONSOLE_ACCESS + "/invite", self._invite, admin, secret=True),
            shown(CONSOLE_ACCESS + "/{id:int}", self._one, admin),
            changed(CONSOLE_ACCESS + "/{id:int}/link", self._link, admin, secret=True),
            changed(CONSOLE_ACCESS + "/{id:int}/end-sessions", self._end_sessions, admin),
            changed(CONSOLE_ACCESS + "/{id:int}/sessions/{session:int}/end", self._end_session, admin),
        )

    async def _list(self, page: Page) -> Response:
        def read(tx: Transaction) -> list[_Listed]:
            return [_listed(tx, row) for row in tx.users.find(role=list(PERMISSIONS))]

        people = sorted(await page.read(read), key=lambda one: one.row.email)
        return page.render("access/list.html", people=people, roles=ROLES)

    async def _invitation(self, page: Page, error: KlinketError | None = None) -> Response:
        if error is None:
            return page.render("access/invite.html", roles=ROLES)
        return page.refuse("access/invite.html", error, roles=ROLES)

    async def _invite(self, page: Page) -> Response:
        form = page.form

        def invite(tx: Transaction) -> tuple[UserRow, str]:
            if form.text("role") not in ROLES:
                raise InvalidInput("role", "choose a role that has a console")
            names = {"first_name": form.optional("firstName"), "last_name": form.optional("lastName")}
            row = users.create(tx, page.actor, email=form.text("email"), role=form.text("role"), **names)
            return row, sign_in_links.create(tx, page.actor, row, self._service.entropy)

        try:
            row, text = await page.write(invite)
        except KlinketError as error:
            return await self._invitation(page, error)
        return self._shown(page, row, text)

    def _shown(self, page: Page, row: UserRow, text: str) -> Response:
        address = sign_in_links.address_of(self._service.console.config.public_url, text)
        return page.render("access/link.html", row=row, address=address)

    async def _one(self, page: Page, error: KlinketError | None = None) -> Response:
        id = page.number()

        def read(tx: Transaction) -> dict[str, object]:
            row = users.get(tx, id, id)
            rows = [one for one in tx.console_sessions.find(user_id=row.id) if one.stage == Stage.FULL.value]
            live = [one for one in rows if console_sessions.is_live(one, tx.now_ms)]
            sessions = sorted(live, key=lambda one: -one.last_seen_ms)
            return {"listed": _listed(tx, row), "row": row, "sessions": sessions, "roles": ROLES, "in_words": in_words}

        values = await page.read(read)
        if error is None:
            return page.render("access/one.html", values=values)
        return page.refuse("access/one.html", error, values=values)

    async def _link(self, page: Page) -> Response:
        id = page.number()

        def make(tx: Transaction) -> tuple[UserRow, str]:
            row = users.get(tx, id, id)
            if row.state == users.DISABLED:
                raise Conflict("this user is disabled", hint="enable the user first")
            if row.role not in PERMISSIONS:
                raise Conflict(f"the role {row.role} has no console", hint="give the user another role first")
            return row, sign_in_links.create(tx, page.actor, row, self._service.entropy)

        try:
            row, text = await page.write(make)
        except Conflict as error:
            return await self._one(page, error)
        return self._shown(page, row, text)

    async def _end_sessions(self, page: Page) -> Response:
        id = page.number()

        def end(tx: Transaction) -> int:
            return sign_in.end_sessions(tx, page.actor, users.get(tx, id, id), but=page.session.id)

        ended = await page.write(end)
        told = "One session ended." if ended == 1 else f"{ended} sessions ended."
        return page.redirect(f"{CONSOLE_ACCESS}/{id}", told)

    async def _end_session(self, page: Page) -> Response:
        id, session = page.number(), page.number("session")
        await page.write(lambda tx: sign_in.end_session(tx, page.actor, users.get(tx, id, id), session))
        return page.redirect(f"{CONSOLE_ACCESS}/{id}", "Session ended.")


def _listed(tx: Transaction, row: UserRow) -> _Listed:
    ways = {
        "password": tx.passwords.count(user_id=row.id),
        "authenticator app": tx.totp_secrets.count(user_id=row.id, is_confirmed=True),
        "passkey": tx.passkeys.count(user_id=row.id),
        "single sign-on": tx.oidc_identities.count(user_id=row.id),
    }
    sessions = [one for one in tx.console_sessions.find(user_id=row.id) if one.stage == Stage.FULL.value]
    live = [one for one in sessions if console_sessions.is_live(one, tx.now_ms)]
    last = max((one.last_seen_ms for one in live), default=None)
    waiting = any(link.expires_at_ms > tx.now_ms for link in tx.sign_in_links.find(user_id=row.id))
    return _Listed(row, [name for name, count in ways.items() if count], len(live), last, waiting)
