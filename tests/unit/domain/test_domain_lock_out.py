"""Lock-out on a virtual clock: what guessers get through in a day, and what honest people wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.lock_out import ACCOUNT, ADDRESS, FACTOR, LockOut, LockOutRule

RULES = [ADDRESS, ACCOUNT, FACTOR]
DAY_MS = 86_400_000


@pytest.mark.parametrize("rule", RULES)
def test_the_first_failures_cost_nothing(rule: LockOutRule) -> None:
    state = LockOut()
    for _ in range(rule.free):
        state = state.failed(rule, 0)
        assert state.wait_ms(0) == 0
    assert state.failed(rule, 0).wait_ms(0) == rule.first_ms


@pytest.mark.parametrize("rule", RULES)
def test_each_further_failure_waits_twice_as_long_up_to_the_limit(rule: LockOutRule) -> None:
    state, now, waits = LockOut(float(rule.free), 0, 0), 0, []
    for _ in range(12):
        state = LockOut(state.failures, now, state.locked_until_ms).failed(rule, now)  # nothing is forgiven meanwhile
        waits.append(state.wait_ms(now))
    assert waits == [min(rule.last_ms, rule.first_ms * 2**count) for count in range(12)]
    assert waits[-1] == rule.last_ms


def tries_in_a_day(rule: LockOutRule) -> int:
    state, now, count = LockOut(), 0, 0
    while now < DAY_MS:
        now += state.wait_ms(now)
        state, count = state.failed(rule, now), count + 1
    return count


def test_a_guesser_has_few_tries_in_a_day() -> None:
    """Of six digits three are right at a time: 60 tries a day find them once in about 15 years."""
    assert tries_in_a_day(FACTOR) < 60
    assert tries_in_a_day(ADDRESS) < 1_000
    assert tries_in_a_day(ACCOUNT) < 1_000


@pytest.mark.parametrize("rule", RULES)
def test_time_forgives_everything(rule: LockOutRule) -> None:
    state = LockOut()
    for _ in range(100):
        state = state.failed(rule, 0)
    assert state.remaining(rule, 100 * rule.forgive_ms) == 0
    assert state.failed(rule, 100 * rule.forgive_ms).wait_ms(100 * rule.forgive_ms) == 0


@given(st.lists(st.tuples(st.booleans(), st.integers(-1_000_000, 1_000_000)), max_size=60), st.sampled_from(RULES))
def test_no_course_of_events_makes_a_wait_beyond_the_limit(steps: list[tuple[bool, int]], rule: LockOutRule) -> None:
    state, now = LockOut(), 10_000_000
    for failed, passed in steps:  # clocks are set back as well
        now += passed
        state = state.failed(rule, now) if failed else state.taken_back(rule, now)
        assert 0 <= state.wait_ms(now) <= rule.last_ms
        assert state.failures >= 0


@given(st.integers(0, 50), st.sampled_from(RULES))
def test_a_try_that_succeeded_counts_for_nothing(failures: int, rule: LockOutRule) -> None:
    before = LockOut(float(failures), 1_000, 0)
    after = before.failed(rule, 1_000).taken_back(rule, 1_000)
    assert after.failures == failures
    assert after.wait_ms(1_000) == 0
