"""When Python's cyclic garbage collector looks: seldom, in a process that holds much and throws little of it away in circles."""

from __future__ import annotations

import gc

#: New containers until the youngest are looked at; looks at these until the middle ones are, and at those until all are.
#: With Python's own (700, 10, 10) a controller that ten thousand clients attach to spends a third of its time on looking.
YOUNG, MIDDLE, ALL = 5_000, 20, 10


def collect_seldom() -> None:
    """Leave out of every collection what is there now, modules for the most part, and look at the rest less often.

    Call it once, when a server is ready to serve.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, MIDDLE, ALL)
