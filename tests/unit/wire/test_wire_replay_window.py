"""The replay window against a model that forgets nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from klinket.wire.replay_window import WINDOW, ReplayWindow

STEPS = st.lists(st.one_of(st.integers(0, 40), st.integers(0, 3 * WINDOW), st.integers(0, 1 << 44)), max_size=200)


@given(STEPS)
def test_each_counter_is_taken_once_and_old_ones_never(counters: list[int]) -> None:
    window, seen = ReplayWindow(), set[int]()
    for counter in counters:
        highest = max(seen, default=-1)
        expected = counter not in seen and counter > highest - WINDOW
        assert window.fresh(counter) is expected
        if expected:
            window.mark(counter)
            seen.add(counter)
        assert window.highest == max(seen, default=-1)


def test_asking_moves_nothing() -> None:
    window = ReplayWindow()
    assert window.fresh(1 << 40)
    assert window.highest == -1
    assert window.fresh(0)


def test_the_edge_of_the_window() -> None:
    window = ReplayWindow()
    window.mark(WINDOW)
    assert window.fresh(1)
    assert not window.fresh(0)
    window.mark(1)
    assert not window.fresh(1)


@given(STEPS, st.integers(1, WINDOW + 40))
def test_a_run_is_taken_as_its_counters_one_by_one(counters: list[int], count: int) -> None:
    run, one_by_one = ReplayWindow(), ReplayWindow()
    for window in (run, one_by_one):
        for counter in counters:
            if window.fresh(counter):
                window.mark(counter)
    run.mark_run(count)
    for _ in range(count):
        one_by_one.mark(one_by_one.highest + 1)
    assert (run.highest, run._seen) == (one_by_one.highest, one_by_one._seen)
