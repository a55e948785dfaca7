"""The limit of open files: raised as far as the system lets, so that a flood of connections meets our own limits first."""

from __future__ import annotations

import sys

#: What counts where the system names no limit.
UNLIMITED = 1 << 20


def raise_limit() -> int:
    """Raise the soft limit of open files to the hard one; returns it."""
    if sys.platform == "win32":
        return UNLIMITED
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if 0 < hard < UNLIMITED else UNLIMITED
