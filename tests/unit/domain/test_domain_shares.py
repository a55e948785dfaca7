"""Fair shares: nobody gets everything, nobody who is in is put out, and whoever comes finds room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.shares import FairShares


def fill(shares: FairShares[str], holder: str) -> int:
    """Take all seats a holder can get; returns how many."""
    count = 0
    while shares.take(holder):
        count += 1
    return count


def test_one_greedy_holder_gets_half_and_the_next_half_of_what_is_left() -> None:
    shares: FairShares[str] = FairShares(100)
    assert [fill(shares, holder) for holder in "abc"] == [50, 25, 13]


@pytest.mark.parametrize("holders", [1, 2, 5, 20])
def test_greedy_holders_that_come_together_get_the_same_and_leave_room(holders: int) -> None:
    shares: FairShares[int] = FairShares(1000)
    taken = [0] * holders
    more = True
    while more:
        more = False
        for holder in range(holders):
            if shares.take(holder):
                taken[holder] += 1
                more = True
    assert max(taken) - min(taken) <= 1
    assert shares.take(holders)


@given(st.integers(1, 50), st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=200))
def test_the_count_is_kept_and_the_pool_never_exceeded(capacity: int, steps: list[tuple[int, bool]]) -> None:
    shares: FairShares[int] = FairShares(capacity)
    taken = [0] * 5
    for holder, take in steps:
        if take:
            taken[holder] += shares.take(holder)
        elif taken[holder]:
            shares.give_back(holder)
            taken[holder] -= 1
        assert [shares.of(one) for one in range(5)] == taken
        assert shares.total == sum(taken) <= capacity
