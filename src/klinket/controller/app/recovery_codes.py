"""Recovery codes: ten at a time, shown once, each used once."""

from __future__ import annotations

from collections.abc import Callable

from klinket.controller.app.audit import user_target
from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import UserRow
from klinket.domain import recovery_code
from klinket.domain.audit import AuditAction, AuditEvent
from klinket.domain.errors import InvalidInput, SignInRefused

WRONG = "that recovery code is not right, or it was used already"


def replace(tx: Transaction, actor: Actor, user: UserRow, entropy: Callable[[int], bytes]) -> list[str]:
    """Return ten new codes, which are kept nowhere; earlier ones are dead."""
    codes = [recovery_code.compose(entropy(recovery_code.RANDOM_BYTES)) for _ in range(recovery_code.CODES)]
    tx.recovery_codes.remove(user_id=user.id)
    now = tx.now_ms
    hashes = [recovery_code.code_hash(user.id, code) for code in codes]
    tx.recovery_codes.add_all([{"created_at_ms": now, "user_id": user.id, "code_hash": one} for one in hashes])
    tx.record(AuditEvent(AuditAction.EDIT, actor, (user_target(user),), {"recoveryCodes": "made"}))
    return codes


def remaining(tx: Transaction, user_id: int) -> int:
    """Return how many codes are left."""
    return tx.recovery_codes.count(user_id=user_id)


def redeem(tx: Transaction, user_id: int, text: str) -> int:
    """Use up a code as it was typed; returns how many are left. Raises SignInRefused.

    It is looked up by its hash, so the time this takes tells nothing of the codes there are.
    """
    try:
        code = recovery_code.parse(text)
    except InvalidInput:
        raise SignInRefused(WRONG) from None
    if not tx.recovery_codes.remove(user_id=user_id, code_hash=recovery_code.code_hash(user_id, code)):
        raise SignInRefused(WRONG)
    return remaining(tx, user_id)
