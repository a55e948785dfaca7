"""Time limits for what nearly always ends in time: many share one timer of the loop.

`asyncio.timeout` makes a timer for each wait and takes it back, which costs more than most of the waits themselves. Here a
limit is entered in a slot of time and taken out of it. It ends up to a sixteenth of a second late, a long one up to a second.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Protocol

#: Seconds of one slot, for limits shorter than LONG_SECONDS and for the others.
GRAIN_SECONDS = 1 / 16
LONG_GRAIN_SECONDS = 1.0
LONG_SECONDS = 8.0


class Limit(Protocol):
    """What waits in a slot."""

    def expired(self) -> None:
        """Be told, once, that its time is over."""
        ...


_Slot = dict[Limit, None]


class _Slots(threading.local):
    """The slots of a thread's loop, by (grain, number)."""

    loop: asyncio.AbstractEventLoop | None = None

    def __init__(self) -> None:
        self.slots: dict[tuple[float, int], _Slot] = {}


_SLOTS = _Slots()


def _enter(limit: Limit, seconds: float) -> _Slot:
    """Return the slot that now holds `limit`."""
    loop = asyncio.get_running_loop()
    if _SLOTS.loop is not loop:
        _SLOTS.loop, _SLOTS.slots = loop, {}
    grain = GRAIN_SECONDS if seconds < LONG_SECONDS else LONG_GRAIN_SECONDS
    key = grain, math.ceil((loop.time() + seconds) / grain)
    slot = _SLOTS.slots.get(key)
    if slot is None:
        slot = _SLOTS.slots[key] = {}
        loop.call_at(key[1] * grain, _expire, _SLOTS.slots, key)
    slot[limit] = None
    return slot


def _expire(slots: dict[tuple[float, int], _Slot], key: tuple[float, int]) -> None:
    slot = slots.pop(key)
    while slot:  # what one does may take others out
        limit = next(iter(slot))
        del slot[limit]
        limit.expired()


class Within:
    """`with within(seconds):` cancels the body when its time is over; TimeoutError comes out then, as from asyncio.timeout.

    `seconds` None: only end() ends it early.
    """

    __slots__ = ("_before", "_over", "_seconds", "_slot", "_task")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._slot: _Slot | None = None
        self._over = False

    def __enter__(self) -> Within:
        task = asyncio.current_task()
        assert task is not None, "a time limit outside of a task"
        self._task: asyncio.Task[object] | None = task
        self._before = task.cancelling()
        if self._seconds is not None:
            self._slot = _enter(self, self._seconds)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        task, self._task = self._task, None
        if self._slot is not None:
            self._slot.pop(self, None)
        if self._over and task is not None and task.uncancel() <= self._before and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def expired(self) -> None:
        """Implements Limit."""
        self.end()

    def end(self) -> None:
        """End the body now, as if its time were over; nothing after it has ended."""
        if self._task is not None and not self._over:
            self._over = True
            self._task.cancel()


within = Within


class After:
    """Calls something once its time has come, unless cancel() comes first."""

    __slots__ = ("_call", "_slot")

    def __init__(self, seconds: float, call: Callable[[], object]) -> None:
        self._call = call
        self._slot = _enter(self, seconds)

    def expired(self) -> None:
        """Implements Limit."""
        self._call()

    def cancel(self) -> None:
        """Do not call; nothing when it was called already."""
        self._slot.pop(self, None)
