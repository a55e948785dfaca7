"""Waiting for what must come: a test waits for a condition, never for a moment."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

#: Seconds a test waits for what must come: far more than any machine needs.
PATIENCE = 60.0
_LOOK_SECONDS = 0.01


async def eventually(holds: Callable[[], Any]) -> Any:
    """Return what `holds` returns (it may be awaited) as soon as that is true; raises TimeoutError after PATIENCE."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = holds()
            if inspect.isawaitable(found):
                found = await found
            if found:
                return found
            await asyncio.sleep(_LOOK_SECONDS)
