"""A head above the database's own, proved by a connector, is kept until a new epoch begins."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this migration."""
    op.add_column("head", sa.Column("proven_epoch", sa.BigInteger(), nullable=True))
    op.add_column("head", sa.Column("proven_revision", sa.BigInteger(), nullable=True))
