"""Token buckets: bursts, refilling, and a bound on how many are kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.connector import buckets
from klinket.connector.buckets import TokenBuckets


def test_a_burst_is_taken_at_once_and_then_the_rate_counts() -> None:
    kept = TokenBuckets()
    assert [kept.take("a", 100.0, rate=8, burst=3) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert kept.take("a", 100.0, rate=8, burst=3) == 0.125
    assert kept.take("a", 100.0625, rate=8, burst=3) == 0.0625
    assert kept.take("a", 100.125, rate=8, burst=3) == 0.0


def test_one_name_does_not_use_up_another_ones_tokens() -> None:
    kept = TokenBuckets()
    assert kept.take("a", 0.0, rate=1, burst=1) == 0.0
    assert kept.take("b", 0.0, rate=1, burst=1) == 0.0
    assert kept.take("a", 0.0, rate=1, burst=1) > 0


def test_a_bucket_never_holds_more_than_its_burst() -> None:
    kept = TokenBuckets()
    kept.take("a", 0.0, rate=100, burst=2)
    assert [kept.take("a", 1e6, rate=100, burst=2) > 0 for _ in range(3)] == [False, False, True]


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    kept = TokenBuckets()
    assert kept.take("a", 1000.0, rate=1, burst=1) == 0.0
    assert kept.take("a", 10.0, rate=1, burst=1) > 0


def test_the_least_recently_used_bucket_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buckets, "MAX_BUCKETS", 2)
    kept = TokenBuckets()
    kept.take("a", 0.0, rate=0.001, burst=1)
    kept.take("b", 0.0, rate=0.001, burst=1)
    kept.take("a", 0.0, rate=0.001, burst=1)  # refused, but used
    kept.take("c", 0.0, rate=0.001, burst=1)
    assert kept.take("a", 0.0, rate=0.001, burst=1) > 0  # kept: still empty
    assert kept.take("b", 0.0, rate=0.001, burst=1) == 0.0  # forgotten: full again


@given(
    steps=st.lists(st.floats(0, 2), min_size=1, max_size=200),
    rate=st.floats(0.1, 50),
    burst=st.integers(1, 20),
)
def test_never_more_than_burst_and_rate_together(steps: list[float], rate: float, burst: int) -> None:
    kept = TokenBuckets()
    now, taken = 0.0, 0
    for step in steps:
        now += step
        wait = kept.take("a", now, rate=rate, burst=burst)
        assert 0 <= wait <= 1 / rate + 1e-9
        taken += wait == 0
    assert taken <= burst + now * rate + 1e-6
