"""Lists of flow events by time, narrowed by what people look for; totals by the hour of all flows together."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this migration."""
    for column in ("service_account_id", "service_key_id", "resource_id", "connector_id", "kind", "failure"):
        op.create_index(f"ix_flow_events_{column}_by_time", "flow_events", [column, "time_ms"])
    op.create_index("ix_audit_events_action", "audit_events", ["action", "number"])
    op.create_table(
        "flow_hours",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("hour_ms", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.String(30), nullable=False),
        sa.Column("failure", sa.String(40), nullable=False),
        sa.Column("flows", sa.BigInteger(), nullable=False),
        sa.Column("bytes_from_client", sa.BigInteger(), nullable=False),
        sa.Column("bytes_to_client", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_flow_hours"),
        sa.UniqueConstraint("hour_ms", "kind", "failure", name="uq_flow_hours_hour_ms"),
    )
    op.execute(
        "INSERT INTO flow_hours (hour_ms, kind, failure, flows, bytes_from_client, bytes_to_client)"
        " SELECT hour_ms, kind, failure, SUM(flows), SUM(bytes_from_client), SUM(bytes_to_client)"
        " FROM flow_totals GROUP BY hour_ms, kind, failure"
    )
