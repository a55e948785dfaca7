"""Which relays are kept: the nearest, until another one is clearly nearer or one does not answer."""

from __future__ import annotations

from klinket.domain.nearest_relays import NearestRelays


def measured(**seconds: float) -> NearestRelays:
    made = NearestRelays()
    for name, value in seconds.items():
        made.measured(int(name[1:]), value)
    return made


def test_the_two_nearest_are_kept_the_nearest_first() -> None:
    assert measured(r1=0.050, r2=0.010, r3=0.030).best([1, 2, 3]) == [2, 3]


def test_without_a_measurement_the_given_order_counts() -> None:
    assert NearestRelays().best([3, 1, 2]) == [3, 1]


def test_one_that_is_a_little_nearer_changes_nothing_and_one_that_is_much_nearer_does() -> None:
    relays = measured(r1=0.020, r2=0.021)
    assert relays.best([1, 2]) == [1, 2]
    relays.measured(3, 0.018)
    assert relays.best([1, 2, 3]) == [1, 2]
    relays.measured(4, 0.002)
    assert relays.best([1, 2, 3, 4])[0] == 4


def test_one_slow_answer_moves_nobody() -> None:
    relays = measured(r1=0.020, r2=0.021, r3=0.024)
    assert relays.best([1, 2, 3]) == [1, 2]
    relays.measured(2, 0.030)
    assert relays.best([1, 2, 3]) == [1, 2]


def test_one_that_does_not_answer_is_left_and_taken_again_when_it_does() -> None:
    relays = measured(r1=0.010, r2=0.011, r3=0.200)
    assert relays.best([1, 2, 3]) == [1, 2]
    relays.measured(1, None)
    assert relays.best([1, 2, 3]) == [2, 3]
    relays.measured(1, 0.010)
    assert set(relays.best([1, 2, 3])) == {1, 2}


def test_where_none_answers_they_are_tried_all_the_same() -> None:
    relays = measured(r1=0.010)
    relays.measured(1, None)
    assert relays.best([1]) == [1]


def test_the_relays_of_another_connector_are_another_choice() -> None:
    relays = measured(r1=0.010, r2=0.020, r3=0.030, r4=0.040)
    assert relays.best([1, 2]) == [1, 2]
    assert relays.best([3, 4]) == [3, 4]
    assert relays.best([1, 2]) == [1, 2]
    relays.keep([3])
    assert relays.best([1, 3]) == [3, 1]
