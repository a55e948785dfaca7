"""Live updates over server-sent events: browsers hear that something of a topic has changed, and fetch what they show of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from klinket.controller.app.cuts import PENDING
from klinket.controller.app.ports import Committed, Store, Transaction
from klinket.controller.peers import Peers
from klinket.domain.errors import KlinketError, Throttled

logger = logging.getLogger(__name__)

#: Seconds between looks for what no commit announces, while somebody listens.
LOOK_SECONDS = 0.7
#: Streams at a time, and of one user.
MAX_STREAMS = 500
MAX_STREAMS_PER_USER = 12

INVENTORY, FLOWS, CUTS, CONNECTORS, SESSIONS = "inventory", "flows", "cuts", "connectors", "sessions"
TOPICS = (INVENTORY, FLOWS, CUTS, CONNECTORS, SESSIONS)


class Stream:
    """What one browser has not been told yet."""

    def __init__(self) -> None:
        self._topics: set[str] = set()
        self._something = asyncio.Event()

    def put(self, topic: str) -> None:
        """Note a change; several of one topic are told as one."""
        self._topics.add(topic)
        self._something.set()

    async def next(self, timeout: float) -> list[str]:
        """Wait for changes; returns the topics, none after `timeout` seconds."""
        try:
            async with asyncio.timeout(timeout):
                await self._something.wait()
        except TimeoutError:
            return []
        self._something.clear()
        topics, self._topics = sorted(self._topics), set()
        return topics


class LiveTopics:
    """Watches the store while somebody listens, and only then."""

    def __init__(self, store: Store, peers: Peers) -> None:
        self._store = store
        self._peers = peers
        self._streams: dict[Stream, int] = {}
        self._watching: asyncio.Task[None] | None = None
        store.on_commit(self._committed)

    @asynccontextmanager
    async def listening(self, user: int) -> AsyncIterator[Stream]:
        """Hear of changes while the body runs; raises Throttled where there are too many streams."""
        mine = sum(1 for other in self._streams.values() if other == user)
        if len(self._streams) >= MAX_STREAMS or mine >= MAX_STREAMS_PER_USER:
            raise Throttled("too many pages are open at once", hint="close some of them", retry_after=60)
        stream = Stream()
        for topic in TOPICS:  # what happened between the making of the page and now nobody has told it
            stream.put(topic)
        self._streams[stream] = user
        if self._watching is None:
            self._watching = asyncio.create_task(self._watch(), name="console: live topics")
        try:
            yield stream
        finally:
            del self._streams[stream]
            if not self._streams and self._watching is not None:
                self._watching.cancel()
                self._watching = None

    def announce(self, *topics: str) -> None:
        """Tell all browsers of a change."""
        for stream in self._streams:
            for topic in topics:
                stream.put(topic)

    def _committed(self, committed: Committed) -> None:
        self.announce(*([INVENTORY, CUTS, FLOWS] if committed.cuts else [INVENTORY]))

    async def _watch(self) -> None:
        seen: dict[str, object] = {}
        while True:
            try:
                now = await self._store.read(_marks)
            except KlinketError as error:
                logger.info("live updates wait: %s", error.message)
            else:
                now[CONNECTORS] = self._peers.online()
                now[SESSIONS] = frozenset(self._peers.clients)
                self.announce(*(topic for topic, mark in now.items() if seen.get(topic) != mark))
                seen = now
            await asyncio.sleep(LOOK_SECONDS)


def _marks(tx: Transaction) -> dict[str, object]:
    """Return, by topic, something that differs when there is news."""
    event = tx.flow_events.newest(1)
    cut = tx.cuts.newest(1)
    pending = tx.cut_receipts.count(state=PENDING)  # of all cuts: an earlier one may be answered late
    return {FLOWS: event[0].id if event else 0, CUTS: (cut[0].id if cut else 0, pending)}
