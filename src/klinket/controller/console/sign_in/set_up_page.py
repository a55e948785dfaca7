"""Setting up the first second factor: an authenticator app or a passkey, then recovery codes, shown once."""

from __future__ import annotations

from collections.abc import Callable

from starlette.responses import Response
from starlette.routing import BaseRoute

from klinket.controller.app import passkeys, recovery_codes, sign_in, totp_secrets, used_challenges
from klinket.controller.app.console_sessions import Stage
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import TotpSecretRow
from klinket.controller.console.headers import PAGE_HEADERS
from klinket.controller.console.sign_in import totp
from klinket.controller.console.sign_in.proofs import sealed_as
from klinket.controller.console.sign_in.visit import SignIn, Visit, visited
from klinket.controller.seats import proven
from klinket.domain.errors import KlinketError, NotFound, SignInRefused


async def _choose(visit: Visit, error: KlinketError | None = None) -> Response:
    service, (session, user) = visit.sign_in, visit.begun()
    known = await service.console.store.read(lambda tx: passkeys.of_user(tx, user.id))
    can = service.passkeys.are_possible
    asked = service.passkeys.ask_for_new(user, known, session.id, service.now_ms) if can else None
    return visit.render("set_up.html", error, asked=asked)


# ---- an authenticator app


async def offered_secret(visit: Visit) -> tuple[TotpSecretRow, bytes]:
    """Return the secret that is shown to a user, made now where there is none yet."""
    service, (_, user) = visit.sign_in, visit.begun()

    def offer(tx: Transaction) -> TotpSecretRow:
        found = totp_secrets.offered(tx, user.id)
        if found is not None:
            return found
        sealed = service.master.seal(service.entropy(totp_secrets.SECRET_BYTES), sealed_as(user.id))
        return totp_secrets.offer(tx, user.id, sealed)

    row = await service.console.store.write(offer)
    return row, service.master.open(row.sealed, sealed_as(user.id))


async def _app(visit: Visit, error: KlinketError | None = None) -> Response:
    _, secret = await offered_secret(visit)
    text = totp.as_text(secret)
    return visit.render("app.html", error, secret=text)


async def _picture(visit: Visit) -> Response:
    service, (_, user) = visit.sign_in, visit.begun()
    row = await service.console.store.read(lambda tx: totp_secrets.offered(tx, user.id))
    if row is None:
        raise NotFound("Picture", "app")
    secret = service.master.open(row.sealed, sealed_as(user.id))
    return Response(totp.picture(secret, user.email, service.console.config.network), 200, PAGE_HEADERS, "image/svg+xml")


async def right_step(visit: Visit) -> tuple[int, int]:
    """Return the offered secret's id and the step whose code is in the form; raises SignInRefused."""
    row, secret = await offered_secret(visit)
    step = totp.step_of(secret, visit.form.text("code"), visit.sign_in.console.clock())
    if step is None:
        raise SignInRefused("that code is not right", hint=totp_secrets.WRONG_HINT)
    return row.id, step


async def _confirm_app(visit: Visit) -> Response:
    _, user = visit.begun()
    try:
        id, step = await right_step(visit)
    except KlinketError as error:
        return await _app(visit, error)
    return await _completed(
        visit, "totp", lambda tx: totp_secrets.confirm(tx, sign_in.actor_of(user, visit.browser), user, id, step)
    )


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
    except KlinketError as error:
        return await _choose(visit, error)


async def _completed(visit: Visit, method: str, add: Callable[[Transaction], None]) -> Response:
    """Add the factor, complete the sign-in, and show the recovery codes."""
    service, (session, user) = visit.sign_in, visit.begun()

    def complete(tx: Transaction) -> tuple[str, list[str]]:
        add(tx)
        text = sign_in.complete(tx, session, user, visit.browser, f"password+{method}", service.entropy)[1]
        return text, recovery_codes.replace(tx, sign_in.actor_of(user, visit.browser), user, service.entropy)

    text, codes = await service.console.store.write(complete)
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
