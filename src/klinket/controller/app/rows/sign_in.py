"""Rows of how people sign in, as use cases see them. Times end in `_ms`: milliseconds since the epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from klinket.domain.lock_out import LockOut


@dataclass(frozen=True, slots=True)
class PasswordRow:
    """`phc`: Argon2id in the PHC string format."""

    id: int
    created_at_ms: int
    updated_at_ms: int
    user_id: int
    phc: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class TotpSecretRow:
    """`last_step`: the newest 30-second step whose code was accepted; none up to it is accepted again."""

    id: int
    created_at_ms: int
    user_id: int
    sealed: bytes = field(repr=False)
    is_confirmed: bool
    last_step: int


@dataclass(frozen=True, slots=True)
class RecoveryCodeRow:
    id: int
    created_at_ms: int
    user_id: int
    code_hash: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class PasskeyRow:
    """`credential_id`: base64url; `public_key`: COSE_Key in CBOR; `transports`: how the browser says it is reached."""

    id: int
    created_at_ms: int
    updated_at_ms: int
    user_id: int
    name: str
    credential_id: str
    public_key: bytes = field(repr=False)
    sign_count: int
    transports: list[str]
    last_used_ms: int | None


@dataclass(frozen=True, slots=True)
class SignInLinkRow:
    """`user_id`: whose link it is; None: it makes the first admin."""

    id: int
    created_at_ms: int
    token_hash: str = field(repr=False)
    user_id: int | None
    expires_at_ms: int
    created_by: dict[str, Any]


@dataclass(frozen=True, slots=True)
class OidcIdentityRow:
    id: int
    created_at_ms: int
    user_id: int
    issuer: str
    subject: str
    last_used_ms: int | None


@dataclass(frozen=True, slots=True)
class LockOutRow:
    key: str
    failures: float
    last_failure_ms: int
    locked_until_ms: int

    @property
    def state(self) -> LockOut:
        """Return what the rules of lock-out work on."""
        return LockOut(self.failures, self.last_failure_ms, self.locked_until_ms)


@dataclass(frozen=True, slots=True)
class UsedChallengeRow:
    id: int
    challenge_hash: str
    expires_at_ms: int
