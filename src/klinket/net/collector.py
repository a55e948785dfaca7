"""The collector of cycles in a process that runs for long: what a part is made of is looked through once, not again and again.

With Python's own thresholds (700, 10, 10) a controller that ten thousand clients attach to spends a third of its time on looking.
"""

from __future__ import annotations

import gc

#: Containers made, and not freed, until the youngest are looked through; and how often of those looks the older ones are.
#: A flow makes some dozens and frees them by itself; next to nothing here is a cycle.
THRESHOLDS = (10_000, 20, 10)


def settle() -> None:
    """Keep what is there now out of all later looks: modules and what was made at the start stay anyway."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
