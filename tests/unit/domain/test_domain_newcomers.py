"""What has shown nothing yet: by source, the oldest first, and whose turn it is to give way."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from klinket.domain.newcomers import Newcomers
from tests.work import calls

SOURCES = st.sampled_from("abc")


def test_the_oldest_of_a_source_with_too_many_gives_way() -> None:
    kept: Newcomers[int] = Newcomers()
    for number in range(3):
        kept.add("a", number)
    kept.add("b", 9)
    assert kept.make_room("a", 10, 3) == ("a", 0)
    assert kept.make_room("b", 10, 3) is None
    assert (kept.of("a"), kept.of("b"), len(kept)) == (2, 1, 3)


def test_where_all_are_too_many_the_oldest_of_the_biggest_source_gives_way() -> None:
    kept: Newcomers[int] = Newcomers()
    for number, source in enumerate("abbcb"):
        kept.add(source, number)
    assert kept.make_room("new", 6, 4) is None
    assert kept.make_room("new", 5, 4) == ("b", 1)
    assert kept.make_room("new", 5, 4) is None


def test_without_anybody_nobody_gives_way() -> None:
    kept: Newcomers[int] = Newcomers()
    assert (kept.biggest(), kept.oldest("a"), kept.make_room("a", 0, 0)) == (None, None, None)


def test_a_newcomer_costs_the_same_with_one_source_and_with_a_thousand() -> None:
    def work(sources: int) -> int:
        kept: Newcomers[int] = Newcomers()
        for number in range(sources):
            kept.add(f"source {number}", number)

        def come_and_go() -> None:
            kept.make_room("new", sources, sources + 1)
            kept.add("new", -1)
            kept.remove("new", -1)

        return calls(come_and_go)

    assert work(2) == work(1_000)


@given(st.lists(st.tuples(st.sampled_from(["add", "remove", "room"]), SOURCES, st.integers(0, 6))))
def test_it_says_what_counting_everything_says(steps: list[tuple[str, str, int]]) -> None:
    kept: Newcomers[int] = Newcomers()
    model: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    for step, source, one in steps:
        if step == "add":
            kept.add(source, one)
            if one not in model[source]:
                model[source].append(one)
        elif step == "remove":
            assert kept.remove(source, one) == (one in model[source])
            if one in model[source]:
                model[source].remove(one)
        elif (gone := kept.make_room(source, 5, 3)) is not None:
            most = max(map(len, model.values()))
            assert (gone[0] == source and len(model[source]) >= 3) or len(model[gone[0]]) == most
            assert model[gone[0]].pop(0) == gone[1]
        else:
            assert len(model[source]) < 3
            assert sum(map(len, model.values())) < 5
        assert len(kept) == sum(map(len, model.values()))
        assert sorted(kept.all()) == sorted((source, one) for source, waiting in model.items() for one in waiting)
        most = max(map(len, model.values()))
        biggest = kept.biggest()
        assert (biggest is None) if most == 0 else (biggest is not None and len(model[biggest]) == most)
