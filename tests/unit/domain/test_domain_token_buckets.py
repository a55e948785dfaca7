"""Token buckets: bursts, refilling, and a bound on how many are kept."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.token_buckets import TokenBuckets


def test_a_burst_is_taken_at_once_and_then_the_rate_counts() -> None:
    kept = TokenBuckets(3, 8)
    assert [kept.take("a", 100.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert kept.take("a", 100.0) == 0.125
    assert kept.take("a", 100.0625) == 0.0625
    assert kept.take("a", 100.125) == 0.0


def test_one_name_does_not_use_up_another_ones_tokens() -> None:
    kept = TokenBuckets(1, 1)
    assert kept.take("a", 0.0) == 0.0
    assert kept.take("b", 0.0) == 0.0
    assert kept.take("a", 0.0) > 0


def test_a_bucket_never_holds_more_than_its_burst() -> None:
    kept = TokenBuckets(2, 100)
    kept.take("a", 0.0)
    assert [kept.take("a", 1e6) > 0 for _ in range(3)] == [False, False, True]


def test_a_clock_that_goes_back_gives_nothing_away() -> None:
    kept = TokenBuckets(1, 1)
    assert kept.take("a", 1000.0) == 0.0
    assert kept.take("a", 10.0) > 0


def test_the_least_recently_used_bucket_goes_first() -> None:
    kept = TokenBuckets(1, 0.001, max_buckets=2)
    kept.take("a", 0.0)
    kept.take("b", 0.0)
    kept.take("a", 0.0)  # refused, but used
    kept.take("c", 0.0)
    assert len(kept) == 2
    assert kept.take("a", 0.0) > 0  # kept: still empty
    assert kept.take("b", 0.0) == 0.0  # forgotten: full again


def test_looking_takes_nothing_and_makes_no_bucket() -> None:
    kept = TokenBuckets(1, 2)
    assert [kept.wait("a", 0.0) for _ in range(3)] == [0.0, 0.0, 0.0]
    assert len(kept) == 0
    kept.take("a", 0.0)
    assert kept.wait("a", 0.0) == 0.5
    assert kept.wait("a", 0.5) == 0.0


@given(
    steps=st.lists(st.floats(0, 2), min_size=1, max_size=200),
    rate=st.floats(0.1, 50),
    burst=st.integers(1, 20),
)
def test_never_more_than_burst_and_rate_together(steps: list[float], rate: float, burst: int) -> None:
    kept = TokenBuckets(burst, rate)
    now, taken = 0.0, 0
    for step in steps:
        now += step
        wait = kept.take("a", now)
        assert 0 <= wait <= 1 / rate + 1e-9
        taken += wait == 0
    assert taken <= burst + now * rate + 1e-6


def test_what_is_given_back_can_be_taken_again_and_never_fills_a_bucket_above_its_size() -> None:
    buckets = TokenBuckets(2, 0.001)
    assert [buckets.take("a", 0.0) > 0 for _ in range(3)] == [False, False, True]
    buckets.give_back("a", 0.0)
    assert [buckets.take("a", 0.0) > 0 for _ in range(2)] == [False, True]
    buckets.give_back("b", 0.0, 5)
    assert [buckets.take("b", 0.0) > 0 for _ in range(3)] == [False, False, True]


def test_a_bucket_of_another_size_is_filled_at_its_own_rate_and_shrinks_to_its_burst() -> None:
    buckets = TokenBuckets(10, 1.0)
    assert [buckets.take("small", 0.0, size=(2, 0.5)) for _ in range(3)] == [0, 0, 2.0]
    assert buckets.take("small", 2.0, size=(2, 0.5)) == 0
    assert buckets.take("large", 0.0) == 0
    assert [buckets.take("large", 0.0, size=(1, 0.5)) for _ in range(2)] == [0, 2.0]


def test_buckets_that_are_full_again_are_forgotten() -> None:
    buckets = TokenBuckets(2, 1.0)
    for number in range(100):
        assert buckets.take(f"session {number}", float(number)) == 0
    assert len(buckets) <= 3


def test_a_bucket_that_is_not_full_again_is_kept() -> None:
    buckets = TokenBuckets(2, 1.0)
    assert buckets.take("a", 0.0, 10) == 0
    for number in range(7):
        assert buckets.take("b", float(number), 0) == 0
    assert buckets.take("a", 7.0) > 0
