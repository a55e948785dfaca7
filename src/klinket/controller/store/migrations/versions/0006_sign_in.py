"""People sign in to the console: passwords, second factors, passkeys, links, identities, lock-out."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this migration."""
    _credentials()
    _ways_in()
    _bounds()


def _user(table: str, *, nullable: bool = False) -> tuple[sa.Column[int], sa.ForeignKeyConstraint]:
    key = sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f(f"fk_{table}_user_id"), ondelete="CASCADE")
    return sa.Column("user_id", sa.Integer(), nullable=nullable), key


def _id(table: str) -> tuple[sa.Column[int], sa.PrimaryKeyConstraint]:
    return sa.Column("id", sa.Integer(), nullable=False), sa.PrimaryKeyConstraint("id", name=op.f(f"pk_{table}"))


def _credentials() -> None:
    op.create_table(
        "passwords",
        *_id("passwords"),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger(), nullable=False),
        *_user("passwords"),
        sa.Column("phc", sa.String(length=255), nullable=False),
        sa.UniqueConstraint("user_id", name=op.f("uq_passwords_user_id")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "totp_secrets",
        *_id("totp_secrets"),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        *_user("totp_secrets"),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("is_confirmed", sa.Boolean(), nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("user_id", "is_confirmed", name=op.f("uq_totp_secrets_user_id")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "recovery_codes",
        *_id("recovery_codes"),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        *_user("recovery_codes"),
        sa.Column("code_hash", sa.String(length=64), nullable=False),
        sa.UniqueConstraint("code_hash", name=op.f("uq_recovery_codes_code_hash")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_recovery_codes_user_id"), "recovery_codes", ["user_id"])
    op.create_table(
        "passkeys",
        *_id("passkeys"),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger(), nullable=False),
        *_user("passkeys"),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("credential_id", sa.String(length=1400), nullable=False),
        sa.Column("public_key", sa.LargeBinary(), nullable=False),
        sa.Column("sign_count", sa.BigInteger(), nullable=False),
        sa.Column("transports", sa.JSON(), nullable=False),
        sa.Column("last_used_ms", sa.BigInteger(), nullable=True),
        sa.UniqueConstraint("credential_id", name=op.f("uq_passkeys_credential_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_passkeys_user_id"), "passkeys", ["user_id"])


def _ways_in() -> None:
    op.create_table(
        "sign_in_links",
        *_id("sign_in_links"),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        *_user("sign_in_links", nullable=True),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("created_by", sa.JSON(), nullable=False),
        sa.UniqueConstraint("token_hash", name=op.f("uq_sign_in_links_token_hash")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_sign_in_links_user_id"), "sign_in_links", ["user_id"])
    op.create_table(
        "oidc_identities",
        *_id("oidc_identities"),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        *_user("oidc_identities"),
        sa.Column("issuer", sa.String(length=500), nullable=False),
        sa.Column("subject", sa.String(length=255), nullable=False),
        sa.Column("last_used_ms", sa.BigInteger(), nullable=True),
        sa.UniqueConstraint("issuer", "subject", name=op.f("uq_oidc_identities_issuer")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_oidc_identities_user_id"), "oidc_identities", ["user_id"])


def _bounds() -> None:
    op.create_table(
        "lock_outs",
        sa.Column("key", sa.String(length=80), nullable=False),
        sa.Column("failures", sa.Float(), nullable=False),
        sa.Column("last_failure_ms", sa.BigInteger(), nullable=False),
        sa.Column("locked_until_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_lock_outs")),
    )
    op.create_index(op.f("ix_lock_outs_last_failure_ms"), "lock_outs", ["last_failure_ms"])
    op.create_table(
        "used_challenges",
        *_id("used_challenges"),
        sa.Column("challenge_hash", sa.String(length=64), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.UniqueConstraint("challenge_hash", name=op.f("uq_used_challenges_challenge_hash")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_used_challenges_expires_at_ms"), "used_challenges", ["expires_at_ms"])
