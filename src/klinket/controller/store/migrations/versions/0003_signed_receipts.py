"""Receipts of cuts are kept with the signature of their connector; older ones have none."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this migration."""
    op.add_column("cut_receipts", sa.Column("token", sa.Text(), nullable=True))
