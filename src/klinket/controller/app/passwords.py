"""Passwords of people, as Argon2id hashes that were made elsewhere: this is where they are kept."""

from __future__ import annotations

from klinket.controller.app.audit import user_target
from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import UserRow
from klinket.domain.audit import AuditAction, AuditEvent


def of_user(tx: Transaction, user_id: int) -> str | None:
    """Return the stored hash (PHC string), or None for somebody without a password."""
    found = tx.passwords.find(user_id=user_id)
    return found[0].phc if found else None


def put(tx: Transaction, actor: Actor, user: UserRow, phc: str) -> None:
    """Set or change a password."""
    found = tx.passwords.find(user_id=user.id)
    if found:
        tx.passwords.change(found[0].id, phc=phc)
    else:
        tx.passwords.add(user_id=user.id, phc=phc)
    tx.record(AuditEvent(AuditAction.EDIT, actor, (user_target(user),), {"password": "changed" if found else "set"}))
