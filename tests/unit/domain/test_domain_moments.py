"""Moments as text."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.moments import iso


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "1970-01-01T00:00:00+00:00"),
        (1_798_761_600_000, "2027-01-01T00:00:00+00:00"),
        (1_798_761_600_001, "2027-01-01T00:00:00.001000+00:00"),
    ],
)
def test_a_moment_is_told_in_utc_with_its_offset(milliseconds: int, text: str) -> None:
    assert iso(milliseconds) == text


@given(st.integers(0, 4_102_444_800_000))
def test_no_millisecond_is_lost(milliseconds: int) -> None:
    since = datetime.fromisoformat(iso(milliseconds)) - datetime(1970, 1, 1, tzinfo=UTC)
    assert round(since.total_seconds() * 1000) == milliseconds
