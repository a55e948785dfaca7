"""Refused logins of whoever did not prove to hold the key: audited after the answer, which takes as long for a key that is not.

An event costs a commit. Written before the answer, it would tell by the time whether there is a key of that id. Those who hold
the key are told what is wrong anyway: their refusals are written before they hear of them.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from klinket.controller.app import sessions
from klinket.controller.app.ports import Store, Transaction
from klinket.controller.app.store_errors import StoreUnavailable
from klinket.domain.identifiers import Kid
from klinket.net.tasks import TaskSet

logger = logging.getLogger(__name__)

#: Seconds from the first refusal until it is written, with all that came meanwhile; and how many wait for that at the most.
WRITE_SECONDS = 0.25
MAX_WAITING = 1_000


@dataclass(frozen=True, slots=True)
class _Refusal:
    kid: Kid
    code: str
    address: str


class UnprovenRefusals:
    """Of keys that exist and of others, which leave nothing in the audit: which they are is found out when they are written."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[_Refusal] = []
        self._timer: asyncio.TimerHandle | None = None
        self._tasks = TaskSet("refused logins")

    async def add(self, kid: Kid, code: str, address: str) -> None:
        """Have a refusal written soon. Where too many wait it is written now: raises StoreUnavailable when that cannot be."""
        if len(self._waiting) >= MAX_WAITING:
            await self.write()
        self._waiting.append(_Refusal(kid, code, address))
        self._write_later()

    async def write(self) -> None:
        """Write what waits; raises StoreUnavailable, and it goes on waiting."""
        batch, self._waiting = self._waiting, []
        if not batch:
            return

        def record(tx: Transaction) -> None:
            for one in batch:
                sessions.record_refusal(tx, one.kid, one.code, one.address)

        try:
            await self._store.write(record)
        except BaseException:
            self._waiting = (batch + self._waiting)[:MAX_WAITING]
            raise

    async def aclose(self) -> None:
        """Write what waits, if that can be, and nothing after it."""
        self.cancel()
        await self._tasks.aclose()
        try:
            await self.write()
        except StoreUnavailable as error:
            logger.warning("%d refused logins are not in the audit: %s", len(self._waiting), error.message)

    def cancel(self) -> None:
        """Write nothing more by itself."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _write_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(WRITE_SECONDS, self._begin)

    def _begin(self) -> None:
        self._timer = None
        self._tasks.start(self._try_to_write(), "audit")

    async def _try_to_write(self) -> None:
        try:
            await self.write()
        except StoreUnavailable as error:
            logger.warning("%d refused logins wait to be audited: %s", len(self._waiting), error.message)
            self._write_later()
