"""The second step of a sign-in: the authenticator app, a passkey, or a recovery code."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.routing import BaseRoute

from klinket.controller.app import sign_in
from klinket.controller.app.console_sessions import Stage
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import ConsoleSessionRow
from klinket.controller.console.sign_in import proofs
from klinket.controller.console.sign_in.visit import SignIn, Visit, visited
from klinket.controller.seats import proven
from klinket.domain.errors import KlinketError

_Check = Callable[[Visit, Callable[[Transaction], tuple[ConsoleSessionRow, str]]], Awaitable[tuple[ConsoleSessionRow, str]]]


async def _show(visit: Visit, error: KlinketError | None = None, template: str = "factor.html") -> Response:
    session, user = visit.begun()
    values = await visit.sign_in.console.store.read(lambda tx: proofs.asked_of(visit.sign_in, tx, session, user))
    return visit.render(template, error, **values)


async def _show_recovery(visit: Visit) -> Response:
    return await _show(visit, template="recovery.html")


def _with(check: _Check, method: str, template: str = "factor.html") -> Callable[[Visit], Awaitable[Response]]:
    async def handle(visit: Visit) -> Response:
        session, user = visit.begun()

        def complete(tx: Transaction) -> tuple[ConsoleSessionRow, str]:
            return sign_in.complete(tx, session, user, visit.browser, f"password+{method}", visit.sign_in.entropy)

        try:
            _, text = await check(visit, complete)
        except KlinketError as error:
            return await _show(visit, error, template)
        proven(visit.request, f"console user {user.id}")
        # Few codes left is something to act on now, while one is in.
        return visit.welcome(text, "/console/account" if method == "recovery code" else None)

    return handle


def routes(service: SignIn) -> list[BaseRoute]:
    """Return the routes of this step."""
    stage = Stage.SECOND_FACTOR
    code, passkey = _with(proofs.with_code, "totp"), _with(proofs.with_passkey, "passkey")
    recovery = _with(proofs.with_recovery_code, "recovery code", "recovery.html")
    return [
        visited(service, "GET", "/sign-in/factor", _show, stage),
        visited(service, "POST", "/sign-in/factor", code, stage),
        visited(service, "POST", "/sign-in/factor/passkey", passkey, stage),
        visited(service, "GET", "/sign-in/recovery", _show_recovery, stage),
        visited(service, "POST", "/sign-in/recovery", recovery, stage),
    ]
