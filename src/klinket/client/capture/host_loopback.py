"""How a captured command names the loopback of the machine klinket runs on, where that was asked for."""

from __future__ import annotations

#: The address that leads there, and its name: outside of what names are given, so that none ever has it.
HOST_LOOPBACK = "100.127.255.2"
HOST_NAME = "host.klinket.internal"
