"""How long ago the store said, to the one that holds its lock, how far it is: grants count from then (security.md 13, 14).

Reads do not prove it: they are answered to a controller as well that another one has superseded.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from klinket.controller.app.ports import Store
from klinket.controller.app.store_errors import StoreInUse, StoreUnreachable
from klinket.domain.cut import Stamp

#: Seconds between confirmations at the most, while the store answers.
CONFIRM_SECONDS = 5.0
#: Seconds that a peer waits for one; then it is served by the one before, as long as that lasts.
CONFIRM_PATIENCE_SECONDS = 2.0


class Confirmation:
    """`stamp` and `at`: the head of the store, and when it was asked for (seconds since the epoch)."""

    def __init__(
        self, store: Store, clock: Callable[[], float], grant_seconds: int, superseded: Callable[[StoreInUse], None]
    ) -> None:
        """`superseded` is called once, when another controller has the store's lock."""
        self._store = store
        self._clock = clock
        self._superseded = superseded
        self._lasts = min(CONFIRM_SECONDS, grant_seconds / 4)
        self._over: StoreInUse | None = None
        self._asking: asyncio.Task[None] | None = None
        self.stamp: Stamp = (0, 0)
        self.at = float("-inf")

    async def fresh(self) -> tuple[Stamp, float]:
        """Return stamp and time of a confirmation of the last CONFIRM_SECONDS, asked for if need be; raises StoreUnavailable."""
        if self._over is not None:
            raise self._over
        if abs(self._clock() - self.at) > self._lasts:  # a clock may have been set back
            if self._asking is None or self._asking.done():
                self._asking = asyncio.create_task(self._ask(), name="confirmation")
                self._asking.add_done_callback(lambda task: task.cancelled() or task.exception())  # nobody may wait any more
            done, _ = await asyncio.wait({self._asking}, timeout=CONFIRM_PATIENCE_SECONDS)
            if not done:
                raise StoreUnreachable("the controller's database does not answer")
            await self._asking
        return self.stamp, self.at

    async def aclose(self) -> None:
        """Stop asking."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _ask(self) -> None:
        asked_at = self._clock()
        try:
            self.stamp = await self._store.write(lambda tx: tx.head())
            self.at = asked_at
        except StoreInUse as error:
            if self._over is None:
                self._over = error
                self._superseded(error)
            raise
