"""What peers that come all at once need of the store, read for many of them at a time.

A controller that starts again has all its clients back within seconds. One read each would be a dozen statements each, in threads
that the event loop then waits for; one read for all who came meanwhile costs little more than one.
"""

from __future__ import annotations

import asyncio

from klinket.controller.app import snapshot
from klinket.controller.app.ports import Store
from klinket.controller.app.snapshot import Snapshot
from klinket.domain.grant import Principal
from klinket.net.tasks import TaskSet

#: Sessions that one read is for at the most; further ones are in the next.
MAX_AT_ONCE = 512


class Arrivals:
    """Snapshots for sessions that no snapshot covers yet. One read at a time; whoever comes meanwhile shares the next."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: list[tuple[Principal, asyncio.Future[Snapshot]]] = []
        self._reading: asyncio.Task[None] | None = None
        self._tasks = TaskSet("arrivals")

    async def snapshot_for(self, principal: Principal) -> Snapshot:
        """Return a snapshot that covers the session, read after this was called: never one whose read had begun before.

        Raises StoreUnavailable.
        """
        answer: asyncio.Future[Snapshot] = asyncio.get_running_loop().create_future()
        self._waiting.append((principal, answer))
        if self._reading is None or self._reading.done():
            self._reading = self._tasks.start(self._read(), "reading")
        return await answer

    async def aclose(self) -> None:
        """Stop reading; whoever waits is told that it is over."""
        await self._tasks.aclose()
        for _, answer in self._waiting:
            answer.cancel()
        self._waiting.clear()

    async def _read(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:MAX_AT_ONCE], self._waiting[MAX_AT_ONCE:]
            principals = [principal for principal, answer in batch if not answer.done()]
            try:
                read = await self._store.read(lambda tx: snapshot.take(tx, principals))  # noqa: B023
            except BaseException as error:
                for _, answer in batch:
                    if isinstance(error, asyncio.CancelledError):
                        answer.cancel()
                    elif not answer.done():
                        answer.set_exception(error)
                if not isinstance(error, Exception):
                    raise
                continue
            for _, answer in batch:
                if not answer.done():
                    answer.set_result(read)
