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
