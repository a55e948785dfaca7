"""How people sign in to the console: credentials, links, and what bounds the tries. Secrets are hashed or sealed."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
)

from klinket.controller.store.schema.columns import id_, metadata, name, times


def _of_user(*, nullable: bool = False) -> Column[int]:
    """Return whose it is; it goes with its user."""
    return Column("user_id", Integer, ForeignKey("users.id", ondelete="CASCADE"), nullable=nullable)


passwords = Table(
    "passwords",
    metadata,
    id_(),
    *times(),
    _of_user(),
    Column("phc", String(255), nullable=False),
    UniqueConstraint("user_id"),
    sqlite_autoincrement=True,
)

totp_secrets = Table(
    "totp_secrets",
    metadata,
    id_(),
    Column("created_at_ms", BigInteger, nullable=False),
    _of_user(),
    Column("sealed", LargeBinary, nullable=False),
    Column("is_confirmed", Boolean, nullable=False),
    Column("last_step", BigInteger, nullable=False),
    UniqueConstraint("user_id", "is_confirmed"),
    sqlite_autoincrement=True,
)

recovery_codes = Table(
    "recovery_codes",
    metadata,
    id_(),
    Column("created_at_ms", BigInteger, nullable=False),
    _of_user(),
    Column("code_hash", String(64), nullable=False),
    Index(None, "user_id"),
    UniqueConstraint("code_hash"),
    sqlite_autoincrement=True,
)

passkeys = Table(
    "passkeys",
    metadata,
    id_(),
    *times(),
    _of_user(),
    name(),
    Column("credential_id", String(1400), nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    Column("sign_count", BigInteger, nullable=False),
    Column("transports", JSON, nullable=False),
    Column("last_used_ms", BigInteger),
    Index(None, "user_id"),
    UniqueConstraint("credential_id"),
    sqlite_autoincrement=True,
)

sign_in_links = Table(
    "sign_in_links",
    metadata,
    id_(),
    Column("created_at_ms", BigInteger, nullable=False),
    Column("token_hash", String(64), nullable=False),
    _of_user(nullable=True),
    Column("expires_at_ms", BigInteger, nullable=False),
    Column("created_by", JSON, nullable=False),
    Index(None, "user_id"),
    UniqueConstraint("token_hash"),
    sqlite_autoincrement=True,
)

oidc_identities = Table(
    "oidc_identities",
    metadata,
    id_(),
    Column("created_at_ms", BigInteger, nullable=False),
    _of_user(),
    Column("issuer", String(500), nullable=False),
    Column("subject", String(255), nullable=False),
    Column("last_used_ms", BigInteger),
    Index(None, "user_id"),
    UniqueConstraint("issuer", "subject"),
    sqlite_autoincrement=True,
)

#: Keys are hashes of addresses and accounts: what was typed as an account may have been a password.
lock_outs = Table(
    "lock_outs",
    metadata,
    Column("key", String(80), primary_key=True),
    Column("failures", Float, nullable=False),
    Column("last_failure_ms", BigInteger, nullable=False),
    Column("locked_until_ms", BigInteger, nullable=False),
    Index(None, "last_failure_ms"),
)

#: Challenges and states that were answered: none is accepted twice. Those that were not answered are stored nowhere.
used_challenges = Table(
    "used_challenges",
    metadata,
    id_(),
    Column("challenge_hash", String(64), nullable=False),
    Column("expires_at_ms", BigInteger, nullable=False),
    Index(None, "expires_at_ms"),
    UniqueConstraint("challenge_hash"),
    sqlite_autoincrement=True,
)
