"""Sessions of the console; flows that live now, and totals of flows by the hour, so that pages need not count events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this migration."""
    op.create_table(
        "console_sessions",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("form_token", sa.String(64), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("stage", sa.String(20), nullable=False),
        sa.Column("proved_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("last_seen_ms", sa.BigInteger(), nullable=False),
        sa.Column("address", sa.String(45), nullable=False),
        sa.Column("user_agent", sa.String(300), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="fk_console_sessions_user_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_console_sessions"),
        sa.UniqueConstraint("token_hash", name="uq_console_sessions_token_hash"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_console_sessions_user_id", "console_sessions", ["user_id"])
    op.create_index("ix_console_sessions_last_seen_ms", "console_sessions", ["last_seen_ms"])
    op.create_table(
        "live_flows",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("connector_id", sa.Integer(), nullable=False),
        sa.Column("flow", sa.String(64), nullable=False),
        sa.Column("established_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("session", sa.String(64), nullable=False),
        sa.Column("service_account_id", sa.Integer()),
        sa.Column("service_key_id", sa.Integer()),
        sa.Column("resource_id", sa.Integer()),
        sa.Column("event", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_live_flows"),
        sa.UniqueConstraint("connector_id", "flow", name="uq_live_flows_connector_id"),
        sqlite_autoincrement=True,
    )
    for column in ("session", "service_account_id", "service_key_id", "resource_id"):
        op.create_index(f"ix_live_flows_{column}", "live_flows", [column])
    op.create_table(
        "flow_totals",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("hour_ms", sa.BigInteger(), nullable=False),
        sa.Column("service_account_id", sa.Integer(), nullable=False),
        sa.Column("resource_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(30), nullable=False),
        sa.Column("failure", sa.String(40), nullable=False),
        sa.Column("flows", sa.BigInteger(), nullable=False),
        sa.Column("bytes_from_client", sa.BigInteger(), nullable=False),
        sa.Column("bytes_to_client", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_flow_totals"),
        sa.UniqueConstraint("hour_ms", "service_account_id", "resource_id", "kind", "failure", name="uq_flow_totals_hour_ms"),
    )
    op.create_index("ix_flow_totals_service_account_id", "flow_totals", ["service_account_id", "hour_ms"])
    op.create_index("ix_flow_totals_resource_id", "flow_totals", ["resource_id", "hour_ms"])
