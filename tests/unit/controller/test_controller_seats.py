"""Connections on which nobody has proved anything: counted by source, displaced by their like, ended in time."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from klinket.controller.seats import SPARE_DESCRIPTORS, UNPROVEN_SECONDS, Seat, Seats
from klinket.net.sources import source_of
from tests.work import calls


class Closed(list[Seat]):
    """Seats whose connections were closed, in order."""

    def watch(self, seat: Seat | None) -> Seat:
        assert seat is not None
        seat.close = lambda: self.append(seat)
        return seat


def small(all: int = 32) -> Seats:
    """Return seats for so many connections: half of them unproven, an eighth of one source."""
    return Seats(SPARE_DESCRIPTORS + all)


def test_a_source_displaces_its_own_longest_silent_connection() -> None:
    kept, closed = small(), Closed()
    first, second, third, fourth = (closed.watch(kept.take("192.0.2.1", now)) for now in range(4))
    kept.asked(first)  # its request has come whole: it waits for us
    kept.prove(second)
    closed.watch(kept.take("192.0.2.1", 4.0))
    assert closed == []
    closed.watch(kept.take("192.0.2.1", 5.0))
    assert closed == [third]
    assert fourth not in closed


def test_a_source_whose_requests_all_wait_for_us_gets_no_more() -> None:
    kept, closed = small(), Closed()
    waiting = [closed.watch(kept.take("192.0.2.1", 0.0)) for _ in range(4)]
    for seat in waiting:
        kept.asked(seat)
    assert kept.take("192.0.2.1", 1.0) is None
    assert kept.take("192.0.2.2", 1.0) is not None
    kept.leave(waiting[0])
    assert kept.take("192.0.2.1", 2.0) is not None
    assert closed == []


def test_a_full_house_costs_a_newcomer_the_same_however_many_sources_fill_it_and_wait_for_answers() -> None:
    def work(size: int) -> int:
        kept = small(32 * size)
        for _ in range(4 * size - 1):
            kept.asked(closed.watch(kept.take("192.0.2.1", 0.0)))
        silent = closed.watch(kept.take("192.0.2.1", 0.0))
        for number in range(12 * size):
            closed.watch(kept.take(f"198.51.100.{number}", 0.0))
        done = calls(lambda: kept.take("203.0.113.1", 1.0))
        assert closed.pop() is silent
        return done

    closed = Closed()
    source_of("203.0.113.1")  # which it remembers
    assert work(1) == work(20)


def test_many_sources_displace_the_biggest_one_and_newcomers_get_in() -> None:
    kept, closed = small(), Closed()
    for number in range(4):
        for _ in range(4):
            closed.watch(kept.take(f"192.0.2.{number}", 0.0))
    newcomer = closed.watch(kept.take("198.51.100.7", 1.0))
    assert len(closed) == 1
    assert newcomer not in closed
    assert kept.unproven == 16


def test_addresses_of_one_ipv6_network_are_one_source() -> None:
    kept, closed = small(), Closed()
    for number in range(9):
        closed.watch(kept.take(f"2001:db8::{number:x}", 0.0))
    assert len(closed) == 5
    closed.watch(kept.take("2001:db8:0:1::1", 0.0))
    assert len(closed) == 5


def test_what_is_proven_does_not_count_and_is_never_displaced() -> None:
    kept, closed = small(), Closed()
    proven = [closed.watch(kept.take("192.0.2.1", 0.0)) for _ in range(4)]
    for seat in proven:
        kept.prove(seat)
    assert kept.unproven == 0
    for _ in range(40):
        kept.take("192.0.2.1", 1.0)
    assert not set(proven) & set(closed)
    assert kept.end_late(1e9) == 4
    assert not set(proven) & set(closed)


def test_when_descriptors_run_out_silent_connections_go_and_proven_ones_stay() -> None:
    kept, closed = small(), Closed()
    for number in range(31):
        kept.prove(closed.watch(kept.take(f"192.0.2.{number}", 0.0)))
    silent = closed.watch(kept.take("198.51.100.1", 0.0))
    closed.watch(kept.take("198.51.100.2", 1.0))
    assert closed == [silent]
    kept.prove(kept._unproven.oldest("198.51.100.2") or Seat("", 0.0))
    assert kept.take("198.51.100.3", 2.0) is None
    assert len(kept) == 32


def test_whoever_proves_nothing_in_time_is_closed() -> None:
    kept, closed = small(), Closed()
    early, late = closed.watch(kept.take("192.0.2.1", 0.0)), closed.watch(kept.take("192.0.2.1", 1.0))
    assert kept.end_late(UNPROVEN_SECONDS - 0.001) == 0
    assert kept.end_late(UNPROVEN_SECONDS) == 1
    assert closed == [early]
    assert kept.end_late(UNPROVEN_SECONDS + 1) == 1
    assert closed == [early, late]


def test_a_proof_is_told_once() -> None:
    kept = small()
    seat = kept.take("192.0.2.1", 0.0)
    assert seat is not None
    told: list[int] = []
    seat.when_proven.append(lambda: told.append(1))
    kept.prove(seat)
    kept.prove(seat)
    assert told == [1]


def test_a_proof_counts_until_the_answer_and_the_next_one_has_its_own_time() -> None:
    kept, closed = small(), Closed()
    seat = closed.watch(kept.take("192.0.2.1", 0.0))
    kept.prove(seat)
    kept.asked(seat)
    kept.answered(seat, 100.0)
    assert (kept.unproven, len(kept._silent)) == (1, 1)
    assert kept.end_late(100.0 + UNPROVEN_SECONDS - 0.001) == 0
    kept.prove(seat)
    assert kept.end_late(1e9) == 0
    kept.answered(seat, 200.0)
    assert kept.end_late(200.0 + UNPROVEN_SECONDS) == 1
    assert closed == [seat]


def test_answers_without_a_proof_give_no_more_time() -> None:
    kept, closed = small(), Closed()
    seat = closed.watch(kept.take("192.0.2.1", 0.0))
    kept.asked(seat)
    assert len(kept._silent) == 0
    kept.answered(seat, UNPROVEN_SECONDS - 1)
    assert len(kept._silent) == 1
    assert kept.end_late(UNPROVEN_SECONDS) == 1


def test_an_answer_on_a_connection_that_has_ended_changes_nothing() -> None:
    kept = small()
    seat = kept.take("192.0.2.1", 0.0)
    assert seat is not None
    kept.prove(seat)
    kept.leave(seat)
    kept.answered(seat, 1.0)
    kept.prove(seat, "one")
    assert (len(kept), kept.unproven, seat.holder) == (0, 0, "")


def test_no_holder_has_more_proven_connections_than_are_free() -> None:
    kept = small()

    def proved(holder: str, source: str) -> Seat | None:
        seat = kept.take(source, 0.0)
        return seat if seat is not None and kept.prove(seat, holder) else None

    greedy = [proved("one", f"192.0.2.{number}") for number in range(20)]
    held = [seat for seat in greedy if seat is not None]
    assert len(held) == 16
    assert proved("two", "198.51.100.1") is not None
    kept.answered(held[0], 0.0)
    kept.leave(held[1])
    assert [proved("one", f"203.0.113.{number}") is not None for number in range(3)] == [True, True, False]


@given(st.lists(st.tuples(st.sampled_from(["take", "prove", "answer", "leave", "late"]), st.integers(0, 5), st.integers(0, 60))))
def test_the_counts_are_those_of_what_is_there(steps: list[tuple[str, int, int]]) -> None:
    kept, there = small(16), []
    for number, (step, source, at) in enumerate(steps):
        now = float(number)
        if step == "take":
            seat = kept.take(f"192.0.2.{source}", now)
            if seat is not None:
                there.append(seat)
                seat.close = lambda seat=seat: there.remove(seat)  # type: ignore[misc]
        elif step == "late":
            kept.end_late(now)
        elif there:
            seat = there[at % len(there)]
            if step == "prove":
                kept.prove(seat, f"holder {source}")
            elif step == "answer":
                kept.answered(seat, now)
            else:
                kept.leave(seat)
                there.remove(seat)
        assert len(kept) == len(there) <= 16
        assert kept.unproven == sum(not seat.proven for seat in there)
        assert len(kept._silent) == kept.unproven
        assert kept._shares.total == sum(seat.proven for seat in there)
