"""Challenges of passkeys and states of identity providers that were answered: none counts twice."""

from __future__ import annotations

import hashlib

from klinket.controller.app.ports import Transaction
from klinket.domain.errors import Conflict, SignInOver


def use(tx: Transaction, challenge: str, expires_at_ms: int) -> None:
    """Use up a challenge; raises SignInOver when it was used before."""
    hashed = hashlib.sha256(challenge.encode()).hexdigest()
    try:
        with tx.savepoint():
            tx.used_challenges.add(challenge_hash=hashed, expires_at_ms=expires_at_ms)
    except Conflict:
        raise SignInOver("this answer was used already") from None


def forget(tx: Transaction) -> None:
    """Remove those that are too old to be accepted anyway."""
    tx.used_challenges.remove_below("expires_at_ms", tx.now_ms)
