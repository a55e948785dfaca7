"""Delays grow, differ from peer to peer, and spread many peers that lost the same one over the time they were told."""

from __future__ import annotations

from collections import Counter

import pytest

from klinket.net.backoff import Backoff

CLIENTS = 10_000
SPREAD_SECONDS = 20.0
#: Seconds within which everybody has to be back.
BACK_SECONDS = 30.0


def test_delays_double_up_to_the_cap_and_keep_a_random_part() -> None:
    backoff = Backoff(first=1.0, cap=8.0)
    for step in (1.0, 2.0, 4.0, 8.0, 8.0):
        assert step / 2 <= backoff.next() <= step
    backoff.reset()
    assert backoff.next() <= 1.0


def comes_back(outage: float, spread: float) -> float:
    """Return when a client that lost its controller at 0 knocks first after `outage` seconds."""
    backoff, now = Backoff(), 0.0
    backoff.spread = spread
    while True:
        now += backoff.next()
        if now >= outage:
            return now - outage


@pytest.mark.parametrize("outage", [0.0, 1.0, 2.0, 5.0, 15.0, 18.0, 60.0, 600.0])
def test_ten_thousand_clients_come_back_in_time_and_never_in_a_herd(outage: float) -> None:
    back = [comes_back(outage, SPREAD_SECONDS) for _ in range(CLIENTS)]
    assert max(back) < BACK_SECONDS
    # No second sees more than a seventh of them.
    assert max(Counter(int(at) for at in back).values()) < CLIENTS / 7


def test_without_a_spread_they_would_be_a_herd() -> None:
    """What the spread is for: a controller that is away for a second has everybody back within the next one or two."""
    back = [comes_back(1.0, 0.0) for _ in range(CLIENTS)]
    assert max(Counter(int(at) for at in back).values()) > CLIENTS / 2


@pytest.mark.parametrize("left", [0.01, 1.0, 4.0, 10.0])
def test_a_bound_shortens_the_step_and_the_spread_alike_and_never_below_the_first_step(left: float) -> None:
    backoff = Backoff(first=0.25)
    backoff.spread = SPREAD_SECONDS
    for _ in range(50):
        assert 0.125 <= backoff.next(at_most=left) <= max(0.25, left) or left < 0.25
    assert backoff.next(at_most=0.0) >= 0.125


@pytest.mark.parametrize("left", [20.0, 60.0, 300.0])
def test_who_goes_on_halving_what_is_left_has_several_tries_before_it_is_over(left: float) -> None:
    backoff, now, tries = Backoff(), 0.0, 0
    backoff.spread = SPREAD_SECONDS
    while (now := now + backoff.next(at_most=(left - now) / 2)) < left - 1:
        tries += 1
    assert tries >= 4
