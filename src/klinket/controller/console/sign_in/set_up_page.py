"""Setting up the first second factor: an authenticator app or a passkey, then recovery codes, shown once."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response
from starlette.routing import BaseRoute

from klinket.controller.app import console_sessions, passkeys, recovery_codes, sign_in, totp_secrets, used_challenges
from klinket.controller.app.console_sessions import Stage, is_freshly_proved
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import TotpSecretRow
from klinket.controller.console.headers import PAGE_HEADERS
from klinket.controller.console.sign_in import totp
from klinket.controller.console.sign_in.proofs import sealed_as
from klinket.controller.console.sign_in.visit import SignIn, Visit, visited
from klinket.controller.sealing import MasterKeyWrong
from klinket.controller.seats import proven
from klinket.domain.errors import KlinketError, NotFound, SignInOver, SignInRefused


async def _choose(visit: Visit, error: KlinketError | None = None) -> Response:
    service, (session, user) = visit.sign_in, visit.begun()
    known = await service.console.store.read(lambda tx: passkeys.of_user(tx, user.id))
    can = service.passkeys.are_possible
    asked = service.passkeys.ask_for_new(user, known, session.id, service.now_ms) if can else None
    return visit.render("set_up.html", error, asked=asked)


# ---- an authenticator app


async def offered_secret(visit: Visit) -> tuple[TotpSecretRow, bytes]:
    """Return the secret that is shown to a user in this session, made now where there is none yet.

    What another session was shown is never shown here: two who know the password would have the same app.
    """
    found = await _offered_here(visit)
    if found is not None:
        return found
    service, (session, user) = visit.sign_in, visit.begun()
    secret = service.entropy(totp_secrets.SECRET_BYTES)
    sealed = service.master.seal(secret, _offered_as(user.id, session.id))
    return await service.console.store.write(lambda tx: totp_secrets.offer(tx, user.id, sealed)), secret


async def _offered_here(visit: Visit) -> tuple[TotpSecretRow, bytes] | None:
    service, (session, user) = visit.sign_in, visit.begun()
    row = await service.console.store.read(lambda tx: totp_secrets.offered(tx, user.id))
    if row is None:
        return None
    try:
        return row, service.master.open(row.sealed, _offered_as(user.id, session.id))
    except MasterKeyWrong:  # it was sealed for another session
        return None


def _offered_as(user_id: int, session_id: int) -> str:
    return f"{sealed_as(user_id)}, offered in session {session_id}"


async def _app(visit: Visit, error: KlinketError | None = None) -> Response:
    _, secret = await offered_secret(visit)
    text = totp.as_text(secret)
    return visit.render("app.html", error, secret=text)


async def _picture(visit: Visit) -> Response:
    service, (session, user) = visit.sign_in, visit.begun()
    found = await _offered_here(visit)
    is_proved = session.stage == Stage.SET_UP.value or is_freshly_proved(session, service.now_ms)
    if found is None or not is_proved:
        raise NotFound("Picture", "app")
    return Response(totp.picture(found[1], user.email, service.console.config.network), 200, PAGE_HEADERS, "image/svg+xml")


async def prepared_app(visit: Visit) -> Callable[[Transaction], None]:
    """Return what puts the offered secret into use, whose code in the form is checked here; both raise KlinketError."""
    service, (_, user) = visit.sign_in, visit.begun()
    row, secret = await offered_secret(visit)
    step = totp.step_of(secret, visit.form.text("code"), service.console.clock())
    if step is None:
        raise SignInRefused("that code is not right", hint=totp_secrets.WRONG_HINT)
    actor, sealed = sign_in.actor_of(user, visit.browser), service.master.seal(secret, sealed_as(user.id))
    return lambda tx: totp_secrets.confirm(tx, actor, user, row.id, step, sealed)


async def _confirm_app(visit: Visit) -> Response:
    try:
        add = await prepared_app(visit)
    except KlinketError as error:
        return await _app(visit, error)
    return await _completed(visit, "totp", add)


# ---- a passkey


def prepared_passkey(visit: Visit) -> Callable[[Transaction], None]:
    """Return what registers the passkey in the form, whose answer is checked here; both raise KlinketError."""
    service, (session, user) = visit.sign_in, visit.begun()
    answer, sealed = visit.form.text("answer"), visit.form.text("challenge")
    made = service.passkeys.registered(answer, sealed, user, session.id, service.now_ms)
    name, actor = visit.form.text("name") or "Passkey", sign_in.actor_of(user, visit.browser)

    def register(tx: Transaction) -> None:
        used_challenges.use(tx, made.challenge, made.expires_at_ms)
        passkeys.add(
            tx,
            actor,
            user,
            name=name,
            credential_id=made.credential_id,
            public_key=made.public_key,
            sign_count=made.sign_count,
            transports=made.transports,
        )

    return register


async def _passkey(visit: Visit) -> Response:
    try:
        return await _completed(visit, "passkey", prepared_passkey(visit))
    except SignInOver:
        raise
    except KlinketError as error:
        return await _choose(visit, error)


async def _completed(visit: Visit, method: str, add: Callable[[Transaction], None]) -> Response:
    """Complete the sign-in, add the factor, and show the recovery codes; raises SignInOver, then the session has ended."""
    service, (session, user) = visit.sign_in, visit.begun()

    def complete(tx: Transaction) -> tuple[str, list[str]]:
        text = sign_in.complete(tx, session, user, visit.browser, f"password+{method}", service.entropy)[1]
        add(tx)
        return text, recovery_codes.replace(tx, sign_in.actor_of(user, visit.browser), user, service.entropy)

    try:
        text, codes = await service.console.store.write(complete)
    except SignInOver:
        await service.console.store.write(lambda tx: console_sessions.end(tx, id=session.id, token_hash=session.token_hash))
        raise
    proven(visit.request, f"console user {user.id}")
    response = visit.render("codes.html", codes=codes, next=visit.next)
    visit.admit(response, text)
    return response


def routes(service: SignIn) -> list[BaseRoute]:
    """Return the routes of this step."""
    return [
        visited(service, "GET", "/sign-in/set-up", _choose, Stage.SET_UP),
        visited(service, "GET", "/sign-in/set-up/app", _app, Stage.SET_UP),
        visited(service, "POST", "/sign-in/set-up/app", _confirm_app, Stage.SET_UP),
        visited(service, "GET", "/sign-in/app.svg", _picture, Stage.SET_UP, Stage.FULL),
        visited(service, "POST", "/sign-in/set-up/passkey", _passkey, Stage.SET_UP),
    ]
