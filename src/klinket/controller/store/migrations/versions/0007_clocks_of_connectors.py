"""By how much a connector's clock is ahead, and when its process began."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Apply this migration."""
    op.add_column("connectors", sa.Column("clock_offset_ms", sa.BigInteger(), nullable=True))
    op.add_column("connectors", sa.Column("started_ms", sa.BigInteger(), nullable=True))
