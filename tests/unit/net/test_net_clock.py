"""The controller's time as peers know it: this machine's clock has no say, and a step of the controller's is noticed."""

from __future__ import annotations

import asyncio
import time

import pytest

from klinket.net import clock
from klinket.net.clock import STEP_SECONDS, PeerClock


async def test_steps_of_this_machines_clock_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    known = PeerClock()
    known.set(1_800_000_000_000)
    monkeypatch.setattr(clock, "wall", lambda: time.time() + 3600)
    assert abs(known.now() - 1_800_000_000) < 60


@pytest.mark.parametrize("step", [3600.0, -3600.0])
async def test_whoever_waits_hears_of_a_step_at_once_and_of_the_next_one_again(step: float) -> None:
    known = PeerClock()
    known.set(1_800_000_000_000)
    known.stepped.clear()
    waiting = asyncio.ensure_future(known.until_stepped(3600))
    await asyncio.sleep(0)
    known.set(round((known.now() + STEP_SECONDS / 2) * 1000))
    await asyncio.sleep(0)
    assert not waiting.done()
    known.set(round((known.now() + step) * 1000))
    await asyncio.wait_for(waiting, 10)
    assert not known.stepped.is_set()


async def test_without_a_step_the_time_goes_by() -> None:
    known = PeerClock()
    await known.until_stepped(0.001)
