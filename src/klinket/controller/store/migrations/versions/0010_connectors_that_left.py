"""When a connector said that it ends."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this migration."""
    op.add_column("connectors", sa.Column("left_ms", sa.BigInteger(), nullable=True))
