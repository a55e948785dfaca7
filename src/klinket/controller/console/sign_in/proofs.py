"""Proofs of somebody whose account is known already: a code of the app, a recovery code, a passkey, the password."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from klinket.controller.app import lock_out, passkeys, passwords, recovery_codes, sign_in, totp_secrets, used_challenges
from klinket.controller.app.lock_out import Counted, Proof
from klinket.controller.app.ports import Transaction
from klinket.controller.app.rows import ConsoleSessionRow, UserRow
from klinket.controller.console.sign_in import totp
from klinket.controller.console.sign_in.passkey_ceremony import REFUSED
from klinket.controller.console.sign_in.visit import SignIn, Visit
from klinket.domain.errors import SignInRefused, Throttled

T = TypeVar("T")
WRONG_PASSWORD = "that is not your password"  # noqa: S105 - a sentence


def sealed_as(user_id: int) -> str:
    """Return as what a secret of an authenticator app is sealed: it opens for its user only."""
    return f"totp secret of user {user_id}"


async def with_code(visit: Visit, then: Callable[[Transaction], T]) -> T:
    """Check the code of the authenticator app in the form, then run `then` in the same transaction; raises SignInRefused."""
    service, (_, user) = visit.sign_in, visit.begun()
    counted = await _try(visit, Proof.FACTOR)
    row = await service.console.store.read(lambda tx: totp_secrets.confirmed(tx, user.id))
    secret = None if row is None else service.master.open(row.sealed, sealed_as(user.id))
    step = None if secret is None else totp.step_of(secret, visit.form.text("code"), service.console.clock())

    def accept(tx: Transaction) -> T:
        if row is None or step is None:
            raise SignInRefused(totp_secrets.WRONG, hint=totp_secrets.WRONG_HINT)
        totp_secrets.accept(tx, row.id, step)
        lock_out.succeeded(tx, counted)
        return then(tx)

    return await _believed(visit, counted, "totp", accept)


async def with_recovery_code(visit: Visit, then: Callable[[Transaction], T]) -> T:
    """Use up the recovery code in the form, then run `then`; raises SignInRefused."""
    _, user = visit.begun()
    counted = await _try(visit, Proof.FACTOR)

    def accept(tx: Transaction) -> T:
        recovery_codes.redeem(tx, user.id, visit.form.text("code"))
        lock_out.succeeded(tx, counted)
        return then(tx)

    return await _believed(visit, counted, "recovery code", accept)


async def with_password(visit: Visit, then: Callable[[Transaction], T], field: str = "password") -> T:
    """Check the password in the form, then run `then`; raises SignInRefused, SignInLocked."""
    service, (_, user) = visit.sign_in, visit.begun()
    counted = await _try(visit, Proof.PASSWORD)
    phc = await service.console.store.read(lambda tx: passwords.of_user(tx, user.id))
    is_right = await compared(service, visit.form.raw(field), phc, counted)

    def accept(tx: Transaction) -> T:
        if not is_right or passwords.of_user(tx, user.id) != phc:
            raise SignInRefused(WRONG_PASSWORD)
        lock_out.succeeded(tx, counted)
        return then(tx)

    return await _believed(visit, counted, "password", accept)


async def compared(service: SignIn, password: str, phc: str | None, counted: Counted) -> bool:
    """Return whether the password of a counted try is right; raises Throttled, then the try counts for nothing."""
    try:
        return await service.hasher.is_right(password, phc)
    except Throttled:
        await service.console.store.write(lambda tx: lock_out.take_back(tx, counted))
        raise


async def with_passkey(visit: Visit, then: Callable[[Transaction], T]) -> T:
    """Check the answer of a passkey of this user, asked for in this session, then run `then`; raises SignInRefused.

    It is nothing that can be guessed, so it counts for no lock-out: with a passkey somebody always gets in.
    """
    service, (session, user) = visit.sign_in, visit.begun()
    answered = service.passkeys.answered(
        visit.form.text("answer"), visit.form.text("challenge"), service.now_ms, session=session.id
    )
    row = await service.console.store.read(lambda tx: passkeys.by_credential(tx, answered.credential_id))
    if row is None or row.user_id != user.id:
        raise SignInRefused(REFUSED)

    def accept(tx: Transaction) -> T:
        passkeys.used(tx, row.id, service.passkeys.verify(answered, row))
        used_challenges.use(tx, answered.challenge, answered.expires_at_ms)
        return then(tx)

    return await _believed(visit, None, "passkey", accept)


async def _try(visit: Visit, proof: Proof) -> Counted:
    _, user = visit.begun()
    counted = visit.sign_in.counted(visit.request, user.email, proof)
    await visit.sign_in.console.store.write(lambda tx: lock_out.count_try(tx, counted))
    return counted


async def _believed(visit: Visit, counted: Counted | None, method: str, accept: Callable[[Transaction], T]) -> T:
    _, user = visit.begun()
    store = visit.sign_in.console.store
    try:
        return await store.write(accept)
    except SignInRefused:
        actor = sign_in.actor_of(None, visit.browser)
        await store.write(lambda tx: sign_in.refuse(tx, actor, user, counted, method))
        raise


def asked_of(service: SignIn, tx: Transaction, session: ConsoleSessionRow, user: UserRow) -> dict[str, object]:
    """Return what pages that ask for a proof show: which ones this user has, and the question for a passkey."""
    known = passkeys.of_user(tx, user.id)
    can = bool(known) and service.passkeys.are_possible
    asked = service.passkeys.ask(known, service.now_ms, session=session.id, verified=False) if can else None
    return {
        "asked": asked,
        "has_app": totp_secrets.confirmed(tx, user.id) is not None,
        "has_password": passwords.of_user(tx, user.id) is not None,
        "has_codes": recovery_codes.remaining(tx, user.id) > 0,
        "is_linked": service.provider is not None and bool(tx.oidc_identities.count(user_id=user.id)),
        "label": service.label,
    }
