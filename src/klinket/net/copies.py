"""Finds out that this machine is the copy of a virtual machine that may go on elsewhere (security.md 6).

A copy has the keys and counters of its original: two of them sealing under one nonce would give keys and contents away. There
are two signs. The kernel tells of a new generation of the machine (NEW_VMGENID) at once, where the hypervisor has such a device.
And time went on at the controller while this machine's own did not: that shows with the next heartbeat. There the clock counts
that nobody sets, where it is of the same boot as before; a controller's wall clock may be set, and proves nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import ssl
import sys
from collections.abc import Callable

from klinket.net.uptime import ToldTime, own_time

logger = logging.getLogger(__name__)

#: Seconds by which the controller's time must have gone on more than this machine's: far above the leeway of clocks.
STOOD_STILL_SECONDS = 30.0
#: Of linux/netlink.h.
_NETLINK_KOBJECT_UEVENT = 15
_KERNEL_GROUP = 1
_EVENT_BYTES = 8192
_NEW_GENERATION = b"NEW_VMGENID=1"


class StoodStill:
    """Compares the controller's time with own_time(), in seconds. Delays on the way and a clock set back prove nothing."""

    def __init__(self) -> None:
        self._most: float | None = None

    def seconds(self, asked_at: float, answered_at: float, controllers_time: float) -> float:
        """Return for how long this machine stood still since the exchange before, at the least; 0.0 when nothing shows it.

        The controller read its clock at some moment between `asked_at` and `answered_at`.
        """
        before, self._most = self._most, controllers_time - asked_at
        return 0.0 if before is None else max(0.0, controllers_time - answered_at - before)

    def forget(self) -> None:
        """Begin anew."""
        self._most = None


def tells_new_generation(event: bytes) -> bool:
    """Return whether a message of the kernel (words that end in NUL) says that the machine has a new generation."""
    return _NEW_GENERATION in event.split(b"\0")


class CopyWatch:
    """Calls `copied` with a reason, on the loop, whenever a sign is seen."""

    def __init__(self, copied: Callable[[str], None]) -> None:
        self._copied = copied
        self._by_wall_clock, self._by_uptime = StoodStill(), StoodStill()
        self._boot = ""
        self._sock: socket.socket | None = None

    def start(self) -> None:
        """Begin to listen to the kernel, where it can be heard: on Linux, outside of network namespaces of other users."""
        if sys.platform != "linux" or self._sock is not None:
            return
        try:
            self._sock = socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC, _NETLINK_KOBJECT_UEVENT)
            self._sock.setblocking(False)
            self._sock.bind((0, _KERNEL_GROUP))
        except OSError as error:
            logger.debug("events of the kernel are not to be had: %s", error)
            self.close()
            return
        asyncio.get_running_loop().add_reader(self._sock, self._readable, self._sock)

    def _readable(self, sock: socket.socket) -> None:
        for _ in range(64):
            try:
                event, (sender, _) = sock.recvfrom(_EVENT_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue  # ENOBUFS: some were lost
            if sender == 0 and tells_new_generation(event):
                self._tell("the kernel says that this virtual machine is a copy, or was resumed from a snapshot")

    def exchanged(self, asked_at: float, told: ToldTime) -> None:
        """Note an answer of the controller, just now, with its time; `asked_at`: own_time() before it was asked."""
        answered_at = own_time()
        if told.boot != self._boot:
            self._by_uptime.forget()
        by_wall_clock = self._by_wall_clock.seconds(asked_at, answered_at, told.time_ms / 1000)
        by_uptime = self._by_uptime.seconds(asked_at, answered_at, told.uptime_ms / 1000)
        # Between two boots of the controller's machine there is nothing but its wall clock to tell how much time went by.
        gap = by_uptime if told.boot and told.boot == self._boot else by_wall_clock
        self._boot = told.boot
        if gap >= STOOD_STILL_SECONDS:
            self._tell(f"this machine stood still for {gap:.0f} s: a copy, or resumed from a snapshot")

    def _tell(self, reason: str) -> None:
        self._by_wall_clock.forget()  # one copy, told once
        self._by_uptime.forget()
        ssl.RAND_add(os.urandom(32), 32.0)  # TLS's own randomness was copied as well; the kernel's was made fresh
        self._copied(reason)

    def close(self) -> None:
        """Stop listening."""
        if self._sock is not None:
            try:
                asyncio.get_running_loop().remove_reader(self._sock)
            finally:
                self._sock.close()
                self._sock = None
