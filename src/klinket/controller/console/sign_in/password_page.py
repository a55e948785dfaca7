"""The first page of a sign-in: e-mail address and password, or a passkey, or the identity provider."""

from __future__ import annotations

from starlette.responses import Response
from starlette.routing import BaseRoute

from klinket.controller.app import passkeys, sign_in, used_challenges
from klinket.controller.app.console_sessions import Stage
from klinket.controller.app.lock_out import Proof
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import PasskeyRow, UserRow
from klinket.controller.console.gate import clear_cookie, set_cookie
from klinket.controller.console.sign_in import proofs
from klinket.controller.console.sign_in.passkey_ceremony import REFUSED, Answered
from klinket.controller.console.sign_in.visit import SignIn, Visit, visited
from klinket.controller.seats import proven
from klinket.domain.errors import AuthenticationFailed, KlinketError, SignInRefused

STEPS = {Stage.SECOND_FACTOR.value: "/sign-in/factor", Stage.SET_UP.value: "/sign-in/set-up"}


async def _show(visit: Visit) -> Response:
    try:
        session, _ = await visit.sign_in.gate.session_of(visit.request)
    except AuthenticationFailed:
        return page(visit)
    if session.stage in STEPS:
        return visit.lead(STEPS[session.stage])
    return visit.lead(visit.next.removeprefix("/console"), keep_next=False)


def page(visit: Visit, error: KlinketError | None = None) -> Response:
    """Return the first page, with what was wrong."""
    service = visit.sign_in
    asked = service.passkeys.ask((), service.now_ms, verified=True) if service.passkeys.are_possible else None
    values = {"asked": asked, "label": service.label if service.provider else "", "email": visit.form.text("email")}
    return visit.render("password.html", error, **values)


async def _password(visit: Visit) -> Response:
    service = visit.sign_in
    email, password = visit.form.text("email"), visit.form.raw("password")
    counted = service.counted(visit.request, email, Proof.PASSWORD)
    try:
        tried = await service.console.store.write(lambda tx: sign_in.try_password(tx, email, counted))
        is_right = await proofs.compared(service, password, tried.phc, counted)
    except KlinketError as error:
        return page(visit, error)

    def decide(tx: Transaction) -> tuple[str, str] | None:
        begun = sign_in.accept_password(tx, tried, counted, visit.browser, service.entropy) if is_right else None
        if begun is None:
            actor = sign_in.actor_of(None, visit.browser)
            sign_in.refuse(tx, actor, tried.user, counted, "password")
            return None
        return begun[0].stage, begun[1]

    begun = await service.console.store.write(decide)
    if begun is None:
        return page(visit, SignInRefused(sign_in.REFUSED, hint=sign_in.REFUSED_HINT))
    response = visit.lead(STEPS[begun[0]])
    set_cookie(response, begun[1])
    return response


async def _passkey(visit: Visit) -> Response:
    service = visit.sign_in
    try:
        answered = service.passkeys.answered(visit.form.text("answer"), visit.form.text("challenge"), service.now_ms)
        visit.user, text = await _with_passkey(visit, answered)
    except KlinketError as error:
        return page(visit, error)
    proven(visit.request, f"console user {visit.user.id}")
    return visit.welcome(text)


async def _with_passkey(visit: Visit, answered: Answered) -> tuple[UserRow, str]:
    service = visit.sign_in
    row = await service.console.store.read(lambda tx: passkeys.by_credential(tx, answered.credential_id))
    if row is None:
        raise SignInRefused(REFUSED)

    def enter(tx: Transaction) -> tuple[UserRow, str]:
        user = _owner(tx, passkeys.used(tx, row.id, count))
        used_challenges.use(tx, answered.challenge, answered.expires_at_ms)
        return user, sign_in.enter(tx, user, visit.browser, "passkey", service.entropy)[1]

    def refuse(tx: Transaction) -> None:
        sign_in.refuse(tx, sign_in.actor_of(None, visit.browser), _owner(tx, row), None, "passkey")

    try:
        count = service.passkeys.verify(answered, row)
        return await service.console.store.write(enter)
    except SignInRefused:
        await service.console.store.write(refuse)
        raise


def _owner(tx: Transaction, row: PasskeyRow) -> UserRow:
    user = tx.users.get(row.user_id)
    assert user is not None  # a passkey goes with its user
    return user


async def _sign_out(visit: Visit) -> Response:
    session, user = visit.begun()
    await visit.sign_in.console.store.write(lambda tx: sign_in.leave(tx, session, user, visit.browser))
    response = visit.lead("/sign-in", keep_next=False)
    clear_cookie(response)
    return response


def routes(service: SignIn) -> list[BaseRoute]:
    """Return the routes of this page."""
    return [
        visited(service, "GET", "/sign-in", _show),
        visited(service, "POST", "/sign-in", _password),
        visited(service, "POST", "/sign-in/passkey", _passkey),
        visited(service, "POST", "/sign-out", _sign_out, *Stage),
    ]
