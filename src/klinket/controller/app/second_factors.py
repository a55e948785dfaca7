"""Whether somebody has a second factor, and taking all of them away."""

from __future__ import annotations

from klinket.controller.app.ports import Transaction
from klinket.domain.errors import Conflict

_LAST = "this is the last second factor of this account"
_LAST_HINT = "set up another one first"


def has_one(tx: Transaction, user_id: int) -> bool:
    """Return whether a sign-in with the password can be completed."""
    return bool(tx.totp_secrets.count(user_id=user_id, is_confirmed=True) or tx.passkeys.count(user_id=user_id))


def check_another_than_totp(tx: Transaction, user_id: int) -> None:
    """Raise Conflict unless there is a passkey."""
    if not tx.passkeys.count(user_id=user_id):
        raise Conflict(_LAST, hint=_LAST_HINT)


def check_another_than_passkey(tx: Transaction, user_id: int) -> None:
    """Raise Conflict unless there are two passkeys, or an authenticator app and a password."""
    has_app = tx.totp_secrets.count(user_id=user_id, is_confirmed=True) and tx.passwords.count(user_id=user_id)
    if tx.passkeys.count(user_id=user_id) < 2 and not has_app:
        raise Conflict(_LAST, hint=_LAST_HINT)


def check_another_than_identity(tx: Transaction, user_id: int) -> None:
    """Raise Conflict unless there is a password or a passkey: an account must keep a way in."""
    if not tx.passwords.count(user_id=user_id) and not tx.passkeys.count(user_id=user_id):
        raise Conflict("this is the last way into this account", hint="add a passkey first")


def remove_all(tx: Transaction, user_id: int) -> None:
    """Forget authenticator app, recovery codes and passkeys."""
    tx.totp_secrets.remove(user_id=user_id)
    tx.recovery_codes.remove(user_id=user_id)
    tx.passkeys.remove(user_id=user_id)
