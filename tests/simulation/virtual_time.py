"""A virtual clock: an event loop whose time jumps to the next moment at which something happens, and clocks that follow it.

Nothing waits: a minute of the simulation takes as long as what happens in it. Work for threads is done at once, in place.
"""

from __future__ import annotations

import asyncio
import contextvars
import selectors
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar
from unittest.mock import patch

T = TypeVar("T")

#: When every simulation begins, in seconds since the epoch.
EPOCH = 1_900_000_000.0


@dataclass
class Skew:
    """By how many seconds an actor's wall clock is ahead of true time. It may be set at any moment."""

    seconds: float = 0.0


#: Who runs: the name in the network, and its clock.
PLACE: contextvars.ContextVar[str] = contextvars.ContextVar("place", default="")
SKEW: contextvars.ContextVar[Skew] = contextvars.ContextVar("skew", default=Skew())  # noqa: B039 - nobody changes the default


def run_at(place: str, skew: Skew, work: Callable[[], T]) -> T:
    """Run something as this actor; the tasks that it starts are the actor's as well."""
    context = contextvars.copy_context()
    context.run(PLACE.set, place)
    context.run(SKEW.set, skew)
    return context.run(work)


class NothingHappens(Exception):
    """Everybody waits for something that nobody will do: the simulation is stuck."""


class _Selector(selectors.SelectSelector):
    """Waits by moving the clock on."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise NothingHappens
        self.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time, which begins at 0."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)
        self._clock_resolution = 1e-6

    def time(self) -> float:
        """Return virtual seconds since the beginning."""
        return self._virtual.now

    def _write_to_self(self) -> None:
        """Whoever calls from elsewhere is heard in the next round anyhow: there is no thread but this one."""

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """Do the work at once."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except BaseException as error:
            future.set_exception(error)
        return future


@contextmanager
def virtual_time() -> Iterator[VirtualLoop]:
    """Make a loop the current one, and let the module `time` follow it, with each actor's own skew of the wall clock."""
    loop = VirtualLoop()
    asyncio.set_event_loop(loop)
    try:
        with (
            patch.object(time, "time", lambda: EPOCH + loop.time() + SKEW.get().seconds),
            patch.object(time, "monotonic", lambda: 1_000.0 + loop.time()),
            patch.object(time, "clock_gettime", lambda _: 1_000.0 + loop.time()),
        ):
            yield loop
    finally:
        asyncio.set_event_loop(None)
        loop.close()
