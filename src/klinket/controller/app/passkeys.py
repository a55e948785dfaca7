"""Passkeys (WebAuthn): public keys of people's devices. The signatures are checked elsewhere; this is where keys are kept."""

from __future__ import annotations

from collections.abc import Sequence

from klinket.controller.app import console_sessions, second_factors
from klinket.controller.app.audit import user_target
from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import PasskeyRow, UserRow
from klinket.domain.audit import AuditAction, AuditEvent
from klinket.domain.errors import Conflict, NotFound, SignInRefused
from klinket.domain.names import parse_name

KIND = "Passkey"
MAX_PASSKEYS = 20
#: What browsers may say of how a passkey is reached; anything else is dropped.
TRANSPORTS = ("usb", "nfc", "ble", "smart-card", "hybrid", "internal")
COPIED = "this passkey counts backwards: there may be a copy of it"


def of_user(tx: Transaction, user_id: int) -> list[PasskeyRow]:
    """Return the passkeys of a user, the oldest first."""
    return tx.passkeys.find(user_id=user_id)


def by_credential(tx: Transaction, credential_id: str) -> PasskeyRow | None:
    """Return the passkey with this credential id (base64url), or None."""
    found = tx.passkeys.find(credential_id=credential_id)
    return found[0] if found else None


def add(
    tx: Transaction,
    actor: Actor,
    user: UserRow,
    *,
    name: str,
    credential_id: str,
    public_key: bytes,
    sign_count: int,
    transports: Sequence[str],
) -> PasskeyRow:
    """Register a passkey; raises InvalidInput for its name, Conflict for one that is registered or one too many.

    Sign-ins that are not finished end.
    """
    if tx.passkeys.count(user_id=user.id) >= MAX_PASSKEYS:
        raise Conflict(f"an account may have {MAX_PASSKEYS} passkeys", hint="remove one that is not used")
    row = tx.passkeys.add(
        user_id=user.id,
        name=parse_name(name),
        credential_id=credential_id,
        public_key=public_key,
        sign_count=sign_count,
        transports=[one for one in TRANSPORTS if one in transports],
        last_used_ms=None,
    )
    console_sessions.end_unfinished(tx, user.id)
    tx.record(AuditEvent(AuditAction.EDIT, actor, (user_target(user),), {"passkey": "added", "name": row.name}))
    return row


def used(tx: Transaction, id: int, sign_count: int) -> PasskeyRow:
    """Note a use; raises SignInRefused when the device's counter did not go up, where it has one (WebAuthn 6.1.1)."""
    row = tx.passkeys.get(id)
    if row is None:
        raise SignInRefused("this passkey is not registered here")
    if (sign_count or row.sign_count) and sign_count <= row.sign_count:
        raise SignInRefused(COPIED, hint="sign in another way, remove this passkey and register it again")
    return tx.passkeys.change(id, sign_count=sign_count, last_used_ms=tx.now_ms)


def own(tx: Transaction, user: UserRow, id: int) -> PasskeyRow:
    """Return a passkey of this user; raises NotFound."""
    row = tx.passkeys.get(id)
    if row is None or row.user_id != user.id:
        raise NotFound(KIND, id)
    return row


def rename(tx: Transaction, actor: Actor, user: UserRow, id: int, name: str) -> PasskeyRow:
    """Call a passkey otherwise."""
    before = own(tx, user, id)
    row = tx.passkeys.change(id, name=parse_name(name))
    detail = {"passkey": "renamed", "name": row.name, "before": {"name": before.name}}
    tx.record(AuditEvent(AuditAction.EDIT, actor, (user_target(user),), detail))
    return row


def remove(tx: Transaction, actor: Actor, user: UserRow, id: int) -> None:
    """Remove a passkey; raises NotFound, and Conflict for the last second factor."""
    row = own(tx, user, id)
    second_factors.check_another_than_passkey(tx, user.id)
    tx.passkeys.remove(id=row.id)
    tx.record(AuditEvent(AuditAction.EDIT, actor, (user_target(user),), {"passkey": "removed", "name": row.name}))
