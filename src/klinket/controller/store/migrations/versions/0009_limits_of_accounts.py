"""Limits that are set for a service account; seats of keys, and canary keys."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this migration."""
    op.add_column("service_keys", sa.Column("seats", sa.Integer(), nullable=True))
    op.add_column("service_keys", sa.Column("seats_exceeded", sa.String(10), nullable=False, server_default="alert"))
    op.add_column("service_keys", sa.Column("is_canary", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "account_limits",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("updated_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("service_account_id", sa.Integer(), nullable=False),
        sa.Column("own", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_account_limits"),
        sa.UniqueConstraint("service_account_id", name="uq_account_limits_service_account_id"),
        sa.ForeignKeyConstraint(
            ["service_account_id"],
            ["service_accounts.id"],
            name="fk_account_limits_service_account_id",
            ondelete="RESTRICT",
        ),
        sqlite_autoincrement=True,
    )
