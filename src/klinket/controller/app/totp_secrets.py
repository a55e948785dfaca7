"""Secrets of authenticator apps (TOTP, RFC 6238): sealed, confirmed by a first code, and no code is accepted twice."""

from __future__ import annotations

from klinket.controller.app import console_sessions, second_factors
from klinket.controller.app.audit import user_target
from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import TotpSecretRow, UserRow
from klinket.domain.audit import AuditAction, AuditEvent
from klinket.domain.errors import Conflict, SignInRefused

#: Bytes of a secret: as many as SHA-1 gives (RFC 4226, R6).
SECRET_BYTES = 20
#: Milliseconds from showing a secret to its first code; after that another one is shown.
OFFER_MS = 15 * 60_000
WRONG = "that code is not right, or it was used already"
WRONG_HINT = "enter the newest code of the app; its clock must be right"


def confirmed(tx: Transaction, user_id: int) -> TotpSecretRow | None:
    """Return the secret that counts, or None."""
    found = tx.totp_secrets.find(user_id=user_id, is_confirmed=True)
    return found[0] if found else None


def offered(tx: Transaction, user_id: int) -> TotpSecretRow | None:
    """Return the secret that was shown lately and not confirmed yet, or None."""
    found = tx.totp_secrets.find(user_id=user_id, is_confirmed=False)
    return found[0] if found and tx.now_ms - found[0].created_at_ms < OFFER_MS else None


def offer(tx: Transaction, user_id: int, sealed: bytes) -> TotpSecretRow:
    """Keep a new secret until a code of it is entered; an earlier offer is forgotten, the secret in use stays."""
    tx.totp_secrets.remove(user_id=user_id, is_confirmed=False)
    return tx.totp_secrets.add(user_id=user_id, sealed=sealed, is_confirmed=False, last_step=0)


def confirm(tx: Transaction, actor: Actor, user: UserRow, id: int, step: int, sealed: bytes | None = None) -> None:
    """Put an offered secret into use: a code of `step` was entered. Raises Conflict when another was offered since.

    `sealed`: the secret as it is kept from now on, where an offer is sealed otherwise. Sign-ins that are not finished end.
    """
    row = offered(tx, user.id)
    if row is None or row.id != id:
        raise Conflict("another secret was shown since", hint="scan the newest one")
    replaced = tx.totp_secrets.remove(user_id=user.id, is_confirmed=True)
    tx.totp_secrets.change(row.id, sealed=row.sealed if sealed is None else sealed, is_confirmed=True, last_step=step)
    console_sessions.end_unfinished(tx, user.id)
    tx.record(AuditEvent(AuditAction.EDIT, actor, (user_target(user),), {"totp": "replaced" if replaced else "added"}))


def accept(tx: Transaction, id: int, step: int) -> None:
    """Note that the code of `step` was used; raises SignInRefused when it, or a later one, was used before."""
    row = tx.totp_secrets.get(id)
    if row is None or not row.is_confirmed or step <= row.last_step:
        raise SignInRefused(WRONG, hint=WRONG_HINT)
    tx.totp_secrets.change(id, last_step=step)


def remove(tx: Transaction, actor: Actor, user: UserRow) -> None:
    """Remove the authenticator app; raises Conflict where it is the last second factor."""
    second_factors.check_another_than_totp(tx, user.id)
    if tx.totp_secrets.remove(user_id=user.id):
        tx.record(AuditEvent(AuditAction.EDIT, actor, (user_target(user),), {"totp": "removed"}))
