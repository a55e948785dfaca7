"""For how long this machine has been up: time that nobody sets, and how others are told of it."""

from __future__ import annotations

import hashlib
import sys
import time
from functools import cache
from pathlib import Path
from typing import Protocol


def own_time() -> float:
    """Return seconds of this machine, those it knew it was asleep among them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if sys.platform == "linux" else time.monotonic()


@cache
def _what_counts() -> str:
    """Return what own_time() is counted by: the same for as long as it goes on, "" where that is not known."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text() + str(Path("/proc/self/ns/time").readlink())
    except OSError:
        return ""


@cache
def boot() -> str:
    """Return a name of what own_time() is counted by, "" where that is not known."""
    counted = _what_counts()
    return hashlib.sha256(b"boot" + counted.encode()).hexdigest()[:16] if counted else ""  # the id itself is nobody's business


@cache
def _beginning_ms() -> int:
    return int.from_bytes(hashlib.sha256(b"uptime" + _what_counts().encode()).digest()[:5])


def told_uptime_ms(up: float) -> int:
    """Return own_time() as it is told, in milliseconds, from a moment that only this machine knows, which boot() names.

    Anybody may ask: for how long a machine has been up says which faults its kernel still has.
    """
    return round(up * 1000) + _beginning_ms() if _what_counts() else 0


class ToldTime(Protocol):
    """A message with the controller's time."""

    @property
    def time_ms(self) -> int: ...
    @property
    def uptime_ms(self) -> int: ...
    @property
    def boot(self) -> str: ...
