"""After a step of the controller's clock everybody is told the time, with grants that are signed by it."""

from __future__ import annotations

import pytest

from klinket.controller.clock_watch import STEP_SECONDS, UNSTEADY_SECONDS, ClockWatch


class Clocks:
    """A clock that is set, one that is not, and how often everybody was told; `fails`: so many times in vain."""

    def __init__(self) -> None:
        self.even = 100.0
        self.ahead = 1_800_000_000.0
        self.told = 0
        self.fails = 0
        self.watch = ClockWatch(lambda: self.even + self.ahead, lambda: self.even, self.tell)

    async def tell(self) -> None:
        if self.fails:
            self.fails -= 1
            raise OSError("away")
        self.told += 1


@pytest.mark.parametrize("step", [3600.0, -3600.0, STEP_SECONDS])
async def test_a_step_is_told_once(step: float) -> None:
    clocks = Clocks()
    clocks.ahead += step
    for _ in range(3):
        clocks.even += 1
        await clocks.watch.look()
    assert clocks.told == 1
    clocks.ahead -= step
    await clocks.watch.look()
    assert clocks.told == 2


async def test_time_that_goes_by_and_a_clock_that_is_slewed_are_no_steps() -> None:
    clocks = Clocks()
    for _ in range(20):
        clocks.even += 300
        clocks.ahead += STEP_SECONDS / 2
        await clocks.watch.look()
    assert clocks.told == 0


async def test_a_step_that_nobody_could_be_told_of_is_told_by_the_next_look() -> None:
    clocks = Clocks()
    clocks.fails = 2
    clocks.ahead -= 3600
    for _ in range(4):
        await clocks.watch.look()
    assert clocks.told == 1


def test_a_clock_is_steady_since_it_last_moved_against_even_time_at_once_or_by_and_by() -> None:
    clocks = Clocks()
    clocks.even += 500
    assert clocks.watch.steady_seconds() == 500
    clocks.ahead += UNSTEADY_SECONDS + 1
    assert clocks.watch.steady_seconds() == 0
    clocks.even += 100
    assert clocks.watch.steady_seconds() == 100
    for _ in range(10):
        clocks.even += 10
        clocks.ahead -= 1
        steady = clocks.watch.steady_seconds()
    assert steady <= 40


async def test_asking_for_how_long_it_is_steady_hides_no_step() -> None:
    clocks = Clocks()
    clocks.ahead += 3600
    clocks.watch.steady_seconds()
    await clocks.watch.look()
    assert clocks.told == 1
