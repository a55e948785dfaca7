"""Signing keys: one in use for each purpose, and those before it that still verify what they signed.

A new key is told to all who verify before it signs, and the one before signs until then: nothing signed fails on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from klinket.controller.app.audit import signing_key_target
from klinket.controller.app.ports import Actor, Transaction
from klinket.controller.app.rows import SigningKeyRow
from klinket.domain.audit import AuditAction, AuditEvent
from klinket.domain.errors import Conflict, InvalidInput, NotFound
from klinket.wire import signing

#: Milliseconds after which a signing key is replaced, at the controller's next start.
ROTATE_MS = 90 * 24 * 3_600_000
#: Milliseconds a new key is told to others before it signs. Connectors hear of it at once, relays with their next report.
PUBLISHED_MS = 5 * 60_000
#: Milliseconds a retired key still verifies: longer than what it signed lives.
RETIRED_MS = 8 * 24 * 3_600_000
#: The same of heads, which connectors keep for 90 days.
RETIRED_HEAD_MS = 92 * 24 * 3_600_000
#: Keys of one purpose that verify at a time; those that verify know no more than 64 (wire.signing.MAX_KEYS).
MAX_VERIFYING = 32


class KeyPurpose(Enum):
    """What a signing key signs; each kind of token has keys of its own."""

    ACCESS = "access"
    GRANT = "grant"
    TICKET = "ticket"
    CUT = "cut"
    HEAD = "head"
    AUDIT = "audit"


def parse_purpose(text: str) -> KeyPurpose:
    """Return a purpose by its word; raises InvalidInput("purpose")."""
    try:
        return KeyPurpose(text.lower())
    except ValueError:
        words = ", ".join(purpose.value for purpose in KeyPurpose)
        raise InvalidInput("purpose", f"there are signing keys for: {words}") from None


def verifying(tx: Transaction, purpose: KeyPurpose) -> list[SigningKeyRow]:
    """Return the keys that verify now, the oldest first; the last is the newest."""
    rows = [row for row in tx.signing_keys.find(purpose=purpose.value) if verifies_until(row) > tx.now_ms]
    return sorted(rows, key=lambda row: (row.created_at_ms, row.retired_at_ms is None))


def verifies_until(row: SigningKeyRow) -> float:
    """Return until when a key verifies (milliseconds since the epoch): those in use, and those of the audit, for ever."""
    if row.retired_at_ms is None or row.purpose == KeyPurpose.AUDIT.value:
        return float("inf")
    return row.retired_at_ms + (RETIRED_HEAD_MS if row.purpose == KeyPurpose.HEAD.value else RETIRED_MS)


def signs_from(rows: list[SigningKeyRow]) -> int:
    """Return from when the last of the verifying keys signs (milliseconds since the epoch); 0: it is the only one."""
    return rows[-1].created_at_ms + PUBLISHED_MS if len(rows) > 1 else 0


def is_old(tx: Transaction, purpose: KeyPurpose) -> bool:
    """Return whether a purpose needs a new key: it has none, or that is as old as they get."""
    current = tx.signing_keys.find(purpose=purpose.value, retired_at_ms=None)
    return all(row.created_at_ms < tx.now_ms - ROTATE_MS for row in current)


def make(
    tx: Transaction, purpose: KeyPurpose, seal: Callable[[bytes, str], bytes], entropy: Callable[[int], bytes]
) -> SigningKeyRow:
    """Make a new key of a purpose; earlier ones retire. `seal(secret, what)` encrypts what rests in the database."""
    for row in tx.signing_keys.find(purpose=purpose.value, retired_at_ms=None):
        tx.signing_keys.change(row.kid, retired_at_ms=tx.now_ms)
    key = signing.SigningKey.generate(f"{purpose.value}-{entropy(8).hex()}")
    sealed = seal(signing.private_key_to_pem(key.private_key).encode(), f"signing key {key.kid}")
    jwk = signing.public_jwk(key.public_key)
    return tx.signing_keys.add(kid=key.kid, purpose=purpose.value, sealed=sealed, public_jwk=jwk)


def withdraw(
    tx: Transaction,
    actor: Actor,
    kid: str,
    *,
    seal: Callable[[bytes, str], bytes],
    entropy: Callable[[int], bytes],
) -> SigningKeyRow | None:
    """Take a key for grants out of use at once, since somebody else may have it; returns the new one where it was in use.

    What it signed stops to count wherever grants are checked, as soon as that is told. Its private half is deleted.
    Raises NotFound, and InvalidInput for keys of other purposes.
    """
    row = tx.signing_keys.get(kid)
    if row is None:
        raise NotFound("Signing key", kid)
    if row.purpose != KeyPurpose.GRANT.value:
        # A cut that cannot be verified any more would open what it closed, and the audit is verified for ever.
        raise InvalidInput(
            "--withdraw",
            f"{kid} signs for {row.purpose}: only keys for grants are withdrawn",
            hint="replace it: leave --withdraw out",
        )
    tx.signing_keys.remove(kid=kid)
    made = None
    if not tx.signing_keys.find(purpose=row.purpose, retired_at_ms=None):
        made = make(tx, KeyPurpose.GRANT, seal, entropy)
    tx.bump()
    detail = {"alarm": "signing-key-withdrawn"} | ({} if made is None else {"successor": made.kid})
    tx.record(AuditEvent(AuditAction.REVOKE, actor, (signing_key_target(row),), detail))
    return made


def rotate(
    tx: Transaction,
    actor: Actor,
    purpose: KeyPurpose,
    *,
    seal: Callable[[bytes, str], bytes],
    entropy: Callable[[int], bytes],
) -> SigningKeyRow:
    """Make a new key of a purpose on somebody's word, while the controller runs: it signs PUBLISHED_MS from now.

    Raises Conflict while an earlier new key does not sign yet, and for too many keys.
    """
    before = verifying(tx, purpose)
    if signs_from(before) > tx.now_ms:
        seconds = -(-(signs_from(before) - tx.now_ms) // 1000)
        raise Conflict(
            f"a new {purpose.value} key was made just now and does not sign yet",
            hint=f"rotate again in {seconds} s at the earliest",
        )
    if len(before) >= MAX_VERIFYING:
        raise Conflict(f"{len(before)} {purpose.value} keys still verify, the limit", hint="wait until some of them have ended")
    row = make(tx, purpose, seal, entropy)
    tx.bump()
    detail = {"retired": before[-1].kid} if before else {}
    tx.record(AuditEvent(AuditAction.CREATE, actor, (signing_key_target(row),), detail))
    return row
