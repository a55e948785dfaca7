"""Talking to systemd (sd_notify(3)): ready, status, watchdog. Without NOTIFY_SOCKET nothing is said."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping


class Notifier:
    """The variables are read once; the process's own children do not need them."""

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        given = os.environ if environment is None else environment
        address = given.get("NOTIFY_SOCKET", "")
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self._watchdog = given.get("WATCHDOG_USEC", "") if given.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid()) else ""

    @property
    def watchdog_seconds(self) -> float | None:
        """Return how often systemd wants to hear that all is well: at half of what it was told; None: it does not."""
        told = int(self._watchdog) if self._watchdog.isascii() and self._watchdog.isdigit() else 0
        return told / 2_000_000 if told else None

    def tell(self, *lines: str) -> None:
        """Send assignments such as READY=1; a systemd that does not listen is no failure of ours."""
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.setblocking(False)
                sock.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            pass
