"""Moments as text. Inside klinket a moment is a whole number of milliseconds since the epoch."""

from __future__ import annotations

from datetime import UTC, datetime


def iso(milliseconds: int) -> str:
    """Return ISO 8601 in UTC with offset: 2027-01-01T00:00:00+00:00; a fraction where there is one. Digests cover this form."""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat()
