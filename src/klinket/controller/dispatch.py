"""After each commit: cuts first, then what changed for whom; and expiries at their instant."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from klinket.controller import configuration
from klinket.controller.app import access, cuts, group_access, service_keys, snapshot
from klinket.controller.app.ports import Committed, Store, Transaction
from klinket.controller.app.snapshot import Snapshot
from klinket.controller.peers import ClientPeer, ConnectorPeer, Peers
from klinket.controller.store.errors import StoreUnavailable
from klinket.controller.trust import Trust
from klinket.domain.errors import AuthenticationFailed
from klinket.net.tasks import TaskSet
from klinket.wire.control import Cut, SessionEnded

logger = logging.getLogger(__name__)

#: Seconds between looks for expiries even when none is known: a clock may have been set.
LOOK_SECONDS = 30.0
#: Seconds until the store is asked again after it could not answer.
AGAIN_SECONDS = 0.5


class Dispatch:
    """Keeps attached peers up to date with the store. Call `start` once on the event loop."""

    def __init__(self, store: Store, trust: Trust, peers: Peers, clock: Callable[[], float], grant_seconds: int) -> None:
        self._store = store
        self._trust = trust
        self._peers = peers
        self._clock = clock
        self._grant_seconds = grant_seconds
        self._changed = asyncio.Event()
        self._expiries_changed = asyncio.Event()
        self._tasks = TaskSet("dispatch")
        self._snapshot: Snapshot | None = None

    @property
    def snapshot(self) -> Snapshot:
        """Return the newest snapshot."""
        assert self._snapshot is not None, "start() comes first"
        return self._snapshot

    async def start(self) -> None:
        """Read the first snapshot and follow commits from now on."""
        self._store.on_commit(self._committed)
        self._snapshot = await self._store.read(snapshot.take)
        self._tasks.start(self._follow(), "snapshots")
        self._tasks.start(self._expire(), "expiries")

    async def aclose(self) -> None:
        """Stop following."""
        await self._tasks.aclose()

    def peers_changed(self) -> None:
        """Tell clients which connectors are attached, soon."""
        self._changed.set()

    def _committed(self, committed: Committed) -> None:
        for announced in committed.cuts:
            message = Cut(id=announced.cut.id, token=announced.cut.token)
            for connector in announced.connectors:
                peer = self._peers.connectors.get(connector)
                if peer is not None:
                    peer.outbox.put(message)
        self._changed.set()

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()  # changes while the snapshot is read make another round
            try:
                self._snapshot = await self._store.read(snapshot.take)
            except StoreUnavailable:  # decisions go on from what is known; grants bound for how long
                self._changed.set()
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            self._expiries_changed.set()
            for client in list(self._peers.clients.values()):
                self.refresh_client(client)
            for connector in list(self._peers.connectors.values()):
                self._refresh_connector(connector)

    def refresh_client(self, peer: ClientPeer, *, always: bool = False) -> None:
        """Send a client its configuration if something changed for it (or `always`), or end its session."""
        now = self._clock()
        try:
            self.snapshot.check(peer.principal, now)
        except AuthenticationFailed as error:
            peer.outbox.put(SessionEnded(code=error.code, message=error.message, hint=error.hint))
            peer.outbox.finish()
            return
        online = self._peers.online()
        grouped = self.snapshot.resources_by_network(peer.principal.account)
        concerned = tuple(
            (row.id, row.name, online.get(row.id)) for network in grouped for row in self.snapshot.connectors.get(network, ())
        )
        state = (self.snapshot.accounts.get(peer.principal.account), concerned, self.snapshot.relays)
        if state == peer.sent and not always:
            return
        peer.sent = state
        peer.outbox.put(
            configuration.for_client(
                self.snapshot,
                self._trust,
                peer.principal,
                peer.jkt,
                online,
                now=now,
                grant_seconds=self._grant_seconds,
            )
        )

    def _refresh_connector(self, peer: ConnectorPeer) -> None:
        known = {row.id for rows in self.snapshot.connectors.values() for row in rows}
        if peer.connector not in known:
            from klinket.wire.control import Refused

            peer.outbox.put(
                Refused(
                    code="connector-tokens-dead",
                    message="this connector was deleted",
                    hint="create a connector, generate tokens, and start it with them",
                )
            )
            peer.outbox.finish()

    async def configure_connector(self, peer: ConnectorPeer) -> None:
        """Send a connector its full state, with the cuts that may still have to be applied."""
        tokens = await self._store.read(lambda tx: [row.token for row in cuts.in_force(tx)])
        rows = [row for listed in self.snapshot.connectors.values() for row in listed if row.id == peer.connector]
        if not rows:
            self._refresh_connector(peer)
            return
        peer.outbox.put(
            configuration.for_connector(
                self.snapshot, self._trust, rows[0], tokens, now=self._clock(), grant_seconds=self._grant_seconds
            )
        )

    # ---- expiries

    async def _expire(self) -> None:
        while True:
            now = self._clock()
            moment = self.snapshot.next_expiry(now - LOOK_SECONDS)
            delay = LOOK_SECONDS if moment is None else min(LOOK_SECONDS, moment - now)
            if moment is not None and delay <= 0:
                try:
                    ended = await self._store.write(_end_expired)
                except StoreUnavailable:
                    await asyncio.sleep(AGAIN_SECONDS)
                    continue
                logger.info("%d accesses and keys have expired", ended)
                # A key that was ended stays in the snapshot's expiries until the next one is read.
                await asyncio.sleep(0.05)
                continue
            self._expiries_changed.clear()
            try:
                async with asyncio.timeout(max(0.001, delay)):
                    await self._expiries_changed.wait()
            except TimeoutError:
                pass


def _end_expired(tx: Transaction) -> int:
    return access.end_expired(tx) + group_access.end_expired(tx) + service_keys.end_expired(tx)
