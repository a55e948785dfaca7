"""A shaper lets no more through than its rate, forgets nobody, and gives those who wait equal turns."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from klinket.domain.shaper import MAX_TURN_BYTES, MAX_WHOLE_BYTES, MIN_TURN_BYTES, Shaper, burst_of, turn_of

RATES = st.floats(min_value=10_000, max_value=2e9)


class Hungry:
    """Takes as much as it may with each turn, and waits for the next one. `size`: of what it moves as a whole, 0: streams."""

    def __init__(self, shaper: Shaper, size: int = 0) -> None:
        self.shaper, self.size, self.moved, self.turns, self.now = shaper, size, 0, 0, 0.0
        self.log: list[tuple[float, int]] = []

    def go(self, now: float) -> None:
        self.now = now
        while taken := self.shaper.take(self, self.size or 262_144, now, whole=bool(self.size)):
            self.moved += taken
            self.log.append((now, taken))

    def turn(self) -> None:
        self.turns += 1
        self.go(Clock.now)


class Clock:
    now = 0.0


def run(shaper: Shaper, seconds: float, now: float = 0.0) -> float:
    """Serve whoever waits, each time a turn is due."""
    end = now + seconds
    for _ in range(100_000):
        wait = shaper.wait(now)
        if wait is None or now + wait > end:
            break
        now += max(wait, 1e-4)
        Clock.now = now
        shaper.serve(now)
    else:
        raise AssertionError("turns without end")
    return end


@settings(deadline=None)
@given(
    rate=RATES,
    steps=st.lists(
        st.tuples(st.floats(0, 2), st.integers(0, 3), st.integers(1, MAX_WHOLE_BYTES), st.booleans(), st.floats(0, 1)),
        max_size=60,
    ),
)
def test_no_window_lets_more_through_than_rate_and_burst(rate: float, steps: list[tuple[float, int, int, bool, float]]) -> None:
    shaper, now = Shaper(rate, 0.0), 0.0
    moved: list[tuple[float, int]] = []

    class One:
        want = 1

        def turn(self) -> None:
            taken = shaper.take(self, self.want, now)
            moved.append((now, taken))

    waiters = [One() for _ in range(4)]
    for after, who, size, whole, kept in steps:
        now += after
        waiters[who].want = size
        taken = shaper.take(waiters[who], size, now, whole=whole)
        assert taken in ((0, size) if whole else range(size + 1))
        back = int(taken * kept)
        shaper.give_back(waiters[who], back)
        moved.append((now, taken - back))
        shaper.serve(now)
    for at, (begin, _) in enumerate(moved):
        total = 0
        for time, size in moved[at:]:
            total += size
            assert total <= rate * (time - begin) + burst_of(rate) + 1


@settings(deadline=None)
@given(rate=RATES, count=st.integers(2, 12))
def test_those_who_wait_get_as_much_as_each_other(rate: float, count: int) -> None:
    shaper = Shaper(rate, 0.0)
    all_of_them = [Hungry(shaper) for _ in range(count)]
    for one in all_of_them:
        one.go(0.0)
    begun = {one: one.moved for one in all_of_them}  # the first has had the burst
    run(shaper, 30 * count * turn_of(rate) / rate)
    gained = [one.moved - begun[one] for one in all_of_them]
    assert min(gained) > 0
    assert max(gained) - min(gained) <= turn_of(rate) + 1
    assert sum(gained) >= 0.9 * rate * 30 * count * turn_of(rate) / rate - burst_of(rate)


@settings(deadline=None)
@given(rate=st.floats(10_000, 1e6), sizes=st.lists(st.integers(500, MAX_WHOLE_BYTES), min_size=1, max_size=6))
def test_nobody_starves_whatever_the_sizes_are_that_move_as_a_whole(rate: float, sizes: list[int]) -> None:
    shaper = Shaper(rate, 0.0)
    all_of_them = [Hungry(shaper, size) for size in sizes] + [Hungry(shaper)]
    for one in all_of_them:
        one.go(0.0)
    run(shaper, 20 * len(all_of_them) * MAX_WHOLE_BYTES / rate)
    turns = [one.turns for one in all_of_them]
    assert min(turns) >= 1
    assert max(turns) - min(turns) <= 1


def test_who_comes_while_others_wait_waits_behind_them() -> None:
    shaper = Shaper(100_000, 0.0)
    first, second = Hungry(shaper), Hungry(shaper)
    first.go(0.0)
    assert first.moved == burst_of(100_000)
    assert shaper.take(second, 1, 10.0) == 0  # there is enough, but the first was here before
    assert shaper.waiting == 2
    shaper.leave(first)
    Clock.now = 10.0
    shaper.serve(10.0)
    assert second.moved > 0


def test_what_is_given_back_is_there_for_others() -> None:
    shaper = Shaper(100_000, 0.0)
    one, other = Hungry(shaper), Hungry(shaper)
    taken = shaper.take(one, 262_144, 0.0)
    assert taken == burst_of(100_000)
    shaper.give_back(one, taken - 5)
    assert shaper.take(other, 262_144, 0.0) == taken - 5


def test_a_rate_that_is_taken_away_lets_all_through_and_one_that_is_set_begins_without_a_burst() -> None:
    shaper = Shaper(10_000, 0.0)
    one = Hungry(shaper)
    one.go(0.0)
    shaper.set_rate(None, 1.0)
    assert shaper.wait(1.0) == 0
    shaper.leave(one)
    assert shaper.take(one, 1_000_000, 1.0) == 1_000_000
    shaper.set_rate(10_000, 2.0)
    assert shaper.take(one, 1_000, 2.0) == 0
    assert shaper.wait(2.0) == pytest.approx(0.1)


def test_a_slower_rate_counts_for_who_waits_already() -> None:
    shaper = Shaper(1_000_000, 0.0)
    one = Hungry(shaper)
    one.go(0.0)
    shaper.set_rate(10_000, 0.0)
    before = one.moved
    run(shaper, 10.0)
    assert one.moved - before <= 10 * 10_000 + burst_of(10_000)


def test_turns_and_bursts_have_bounds() -> None:
    assert [turn_of(rate) for rate in (10_000, 1_000_000, 2e9)] == [MIN_TURN_BYTES, 20_000, MAX_TURN_BYTES]
    assert [burst_of(rate) for rate in (10_000, 10_000_000)] == [MAX_WHOLE_BYTES, 2_500_000]
