"""How many files this process may have open."""

from __future__ import annotations

import sys

#: Where there is no limit, or none that is known.
UNLIMITED = 1 << 20


def raise_limit() -> int:
    """Raise the soft limit of open files to the hard one; returns it."""
    if sys.platform == "win32":
        return UNLIMITED
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard if hard != resource.RLIM_INFINITY else UNLIMITED
