"""Keeping a process's memory to itself (prctl(2), PR_SET_DUMPABLE)."""

from __future__ import annotations

import ctypes
import os

_PR_SET_DUMPABLE = 4


def be_undumpable() -> None:
    """Keep other processes of the user out of this one's memory, environment and descriptors, and it out of core files.

    Linux only; raises OSError. What is executed later is as it was; whoever makes a user namespace does that before.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(*(ctypes.c_ulong(one) for one in (_PR_SET_DUMPABLE, 0, 0, 0, 0))) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), "PR_SET_DUMPABLE")
