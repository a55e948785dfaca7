"""Proving again who one is, before secrets are shown and before credentials change: it holds for five minutes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.responses import Response
from starlette.routing import BaseRoute

from klinket.controller.app import console_sessions
from klinket.controller.app.console_sessions import Stage
from klinket.controller.app.ports import Transaction
from klinket.controller.app.sign_in import record_proof
from klinket.controller.console.sign_in import proofs
from klinket.controller.console.sign_in.visit import SignIn, Visit, visited
from klinket.domain.errors import KlinketError


async def _show(visit: Visit, error: KlinketError | None = None) -> Response:
    session, user = visit.begun()
    values = await visit.sign_in.console.store.read(lambda tx: proofs.asked_of(visit.sign_in, tx, session, user))
    return visit.render("prove.html", error, **values)


def _with(
    check: Callable[[Visit, Callable[[Transaction], str]], Awaitable[str]], method: str
) -> Callable[[Visit], Awaitable[Response]]:
    async def handle(visit: Visit) -> Response:
        session, user = visit.begun()

        def note(tx: Transaction) -> str:
            record_proof(tx, user, visit.browser, method)
            # Under a new text: whoever has seen the former one does not get what this proof opens.
            return console_sessions.advance(tx, session, Stage.FULL, visit.sign_in.entropy)[1]

        try:
            text = await check(visit, note)
        except KlinketError as error:
            return await _show(visit, error)
        return visit.welcome(text)

    return handle


def routes(service: SignIn) -> list[BaseRoute]:
    """Return the routes of this page."""
    return [
        visited(service, "GET", "/prove", _show, Stage.FULL),
        visited(service, "POST", "/prove/password", _with(proofs.with_password, "password"), Stage.FULL),
        visited(service, "POST", "/prove/code", _with(proofs.with_code, "totp"), Stage.FULL),
        visited(service, "POST", "/prove/passkey", _with(proofs.with_passkey, "passkey"), Stage.FULL),
    ]
