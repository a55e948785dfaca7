"""Accesses and keys end at the instant they expire, whether or not anything else happens."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from klinket.controller.app import access, group_access, service_keys
from klinket.controller.app.ports import Store, Transaction
from klinket.controller.app.store_errors import StoreUnavailable

logger = logging.getLogger(__name__)

#: Seconds between looks for expiries even when none is known: a clock may have been set.
LOOK_SECONDS = 30.0
#: Seconds after a look, or a round of telling peers, that failed (a full disk, say) until the next.
RETRY_SECONDS = 1.0
#: Seconds until the store is asked again after it could not answer.
AGAIN_SECONDS = 0.5


class Expiries:
    """`next_expiry`: when something expires next (seconds on `clock`), as the newest snapshot knows; None: nothing does."""

    def __init__(self, store: Store, clock: Callable[[], float], next_expiry: Callable[[], float | None]) -> None:
        self._store = store
        self._clock = clock
        self._next_expiry = next_expiry
        self._changed = asyncio.Event()

    def look(self) -> None:
        """There is another snapshot: what expires next may be something else."""
        self._changed.set()

    async def run(self) -> None:
        """End what expires, until cancelled."""
        while True:
            try:
                await self._end_once()
            except StoreUnavailable:
                await asyncio.sleep(AGAIN_SECONDS)
            except Exception:
                logger.exception("what has expired could not be ended; trying again in %.0f s", RETRY_SECONDS)
                await asyncio.sleep(RETRY_SECONDS)

    async def _end_once(self) -> None:
        """End what has expired, also while no controller ran; then wait for the next moment, or another snapshot."""
        self._changed.clear()
        now = self._clock()
        moment = self._next_expiry()
        delay = LOOK_SECONDS if moment is None else min(LOOK_SECONDS, moment - now)
        if delay <= 0:
            ended = await self._store.write(end_expired)
            logger.info("%d accesses and keys have expired", ended)
            delay = RETRY_SECONDS  # the snapshot that knows of it is on its way, and ends this wait
        try:
            async with asyncio.timeout(delay):
                await self._changed.wait()
        except TimeoutError:
            pass


def end_expired(tx: Transaction) -> int:
    """End the accesses and keys whose time is over; returns how many."""
    return access.end_expired(tx) + group_access.end_expired(tx) + service_keys.end_expired(tx)
