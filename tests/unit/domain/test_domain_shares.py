"""Fair shares: nobody gets everything, nobody who is in is put out, and whoever comes finds room."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.shares import FairShares, NestedShares


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


@given(st.integers(1, 50), st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.booleans()), max_size=200))
def test_members_take_no_more_than_a_group_alone_would(capacity: int, steps: list[tuple[str, str, bool]]) -> None:
    nested, groups = NestedShares(capacity), FairShares[str](capacity)
    held: list[tuple[str, str]] = []
    for group, member, takes in steps:
        if not takes and (group, member) in held:
            nested.give_back(group, member)
            groups.give_back(group)
            held.remove((group, member))
        elif takes and nested.take(group, member):
            assert groups.take(group)
            held.append((group, member))
        assert nested.total == len(held) <= capacity
        assert nested.of(group) == sum(one == group for one, _ in held)


def test_a_member_that_is_its_own_group_gets_what_a_group_gets() -> None:
    nested = NestedShares(100)
    assert sum(nested.take("a", "a") for _ in range(100)) == 50
