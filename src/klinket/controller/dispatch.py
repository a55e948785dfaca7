"""After each commit: cuts first, then what changed for whom."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from klinket.controller import configuration, head_guard
from klinket.controller.app import connectors, cuts, relays, snapshot
from klinket.controller.app.ports import Committed, Store, Transaction
from klinket.controller.app.rows import ConnectorRow
from klinket.controller.app.snapshot import Snapshot
from klinket.controller.app.store_errors import StoreInUse, StoreUnavailable
from klinket.controller.arrivals import Arrivals
from klinket.controller.confirmation import CONFIRM_SECONDS, Confirmation
from klinket.controller.expiries import AGAIN_SECONDS, RETRY_SECONDS, Expiries
from klinket.controller.head_guard import ControllerBehind
from klinket.controller.peers import ClientPeer, ConnectorPeer, Peers
from klinket.controller.trust import KeyPurpose, Trust
from klinket.domain.account_limits import DEFAULTS, AccountLimits
from klinket.domain.cut import Stamp
from klinket.domain.errors import AuthenticationFailed, ConnectorTokensDead, ControllerUnreachable, KlinketError
from klinket.net.tasks import TaskSet
from klinket.wire.control import Cut, Refused, SessionEnded
from klinket.wire.head_token import sign_head

logger = logging.getLogger(__name__)

#: Seconds connectors have to answer a cut before clients hear of it: these end their flows themselves, and no receipt could name
#: a flow that is over already. A connector that does not answer holds nobody up for longer.
CUTS_FIRST_SECONDS = 0.25
#: Seconds connectors know of a withdrawn signing key before clients show them grants of the key after it.
WITHDRAWN_SECONDS = 0.5
#: Seconds a deleted connector has for the receipt of its last cut.
DISMISS_SECONDS = 2.0
#: Seconds that a grant lives at least: one that would end before is not made.
SHORTEST_GRANT_SECONDS = 2.0


class Dispatch:
    """Keeps attached peers up to date with the store. Call `start` once on the event loop."""

    def __init__(
        self,
        store: Store,
        trust: Trust,
        peers: Peers,
        clock: Callable[[], float],
        grant_seconds: int,
        limits: AccountLimits = DEFAULTS,
    ) -> None:
        self._store = store
        self._trust = trust
        self._peers = peers
        self._clock = clock
        self._grant_seconds = grant_seconds
        self._limits = limits
        self._changed = asyncio.Event()
        self._tasks = TaskSet("dispatch")
        self._snapshot: Snapshot | None = None
        self._arrivals = Arrivals(store)
        self._confirmation = Confirmation(store, clock, grant_seconds, self._end)
        self._expiries = Expiries(store, clock, lambda: self.snapshot.next_expiry)
        self._ended = asyncio.Event()
        self._end_reason: StoreInUse | None = None
        self._signing_keys: frozenset[str] = frozenset()
        #: Connectors that were sent a cut since clients were told last.
        self._cutting: set[ConnectorPeer] = set()

    @property
    def snapshot(self) -> Snapshot:
        """Return the newest snapshot."""
        assert self._snapshot is not None, "start() comes first"
        return self._snapshot

    async def start(self) -> None:
        """Read the first snapshot and follow commits from now on."""
        self._store.on_commit(self._committed)
        await self._confirmation.fresh()
        self._snapshot = await self._read()
        self._signing_keys = self._snapshot.signing_keys
        self._tasks.start(self._follow(), "snapshots")
        self._tasks.start(self._expiries.run(), "expiries")
        self._tasks.start(self._keep_confirmed(), "confirmations")

    async def aclose(self) -> None:
        """Stop following."""
        await self._tasks.aclose()
        await self._arrivals.aclose()
        await self._confirmation.aclose()

    async def superseded(self) -> StoreInUse:
        """Return when another controller has taken the store over: this one has to end."""
        await self._ended.wait()
        assert self._end_reason is not None
        return self._end_reason

    def _end(self, error: StoreInUse) -> None:
        logger.error("%s: this one ends, and closes all channels", error.message)
        self._peers.dismiss_all()
        self._end_reason = error
        self._ended.set()

    async def _keep_confirmed(self) -> None:
        """Notice within seconds that another controller has taken over, whether or not a peer asks for anything."""
        while True:
            await asyncio.sleep(CONFIRM_SECONDS)
            try:
                stamp, _ = await self._confirmation.fresh()
                if stamp > self.snapshot.stamp:  # by `klinket issue`, whose commits no listener hears of
                    self._changed.set()
            except StoreInUse:
                return
            except StoreUnavailable:
                pass  # what was confirmed before lasts as long as grants do
            except Exception:
                logger.exception("the store could not be asked how far it is")

    def peers_changed(self) -> None:
        """Tell clients which connectors are attached, soon."""
        self._changed.set()

    def _committed(self, committed: Committed) -> None:
        for announced in committed.cuts:
            stamp = (announced.cut.epoch, announced.cut.revision)
            head = sign_head(self._trust.signers[KeyPurpose.HEAD], stamp, network=self._trust.network, now=self._clock())
            message = Cut(id=announced.cut.id, token=announced.cut.token, head=head)
            for connector in announced.connectors:
                peer = self._peers.connectors.get(connector)
                if peer is not None:
                    peer.cut(message)
                    self._cutting.add(peer)
        self._changed.set()

    # ---- what changed for whom

    async def _read(self) -> Snapshot:
        """Return a snapshot for everybody who is attached when this is called."""
        principals = [peer.principal for peer in self._peers.clients.values()]
        connectors = list(self._peers.connectors)
        return await self._store.read(lambda tx: snapshot.take(tx, principals, connectors))

    async def _follow(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()  # changes while the snapshot is read make another round
            try:
                asked = list(self._peers.connectors.values())
                _, confirmed_at = await self._confirmation.fresh()  # before the read, which then is no older
                self._snapshot = await self._read()
                if await self._know_signing_keys(self._snapshot):
                    await self._refresh_connectors(asked, self._snapshot)
                    await asyncio.sleep(WITHDRAWN_SECONDS)
                self._expiries.look()
                await self._cuts_answered()
                self._refresh_clients(self._snapshot, confirmed_at)
                await self._refresh_relays()
                await self._refresh_connectors(asked, self._snapshot)
            except StoreInUse:
                return
            except StoreUnavailable:  # decisions go on from what is known, until a grant's life after it was confirmed
                self._changed.set()
                await asyncio.sleep(AGAIN_SECONDS)
            except Exception:
                # Whoever is attached goes on with what it has; without another round nothing would ever reach them.
                logger.exception("peers could not be told of a change; trying again in %.0f s", RETRY_SECONDS)
                self._changed.set()
                await asyncio.sleep(RETRY_SECONDS)

    async def _cuts_answered(self) -> None:
        """Wait until connectors have answered the cuts they were sent since the last round, up to CUTS_FIRST_SECONDS."""
        asked, self._cutting = self._cutting, set()
        try:
            async with asyncio.timeout(CUTS_FIRST_SECONDS):
                for peer in asked:
                    await peer.all_answered()
        except TimeoutError:
            pass

    async def _know_signing_keys(self, current: Snapshot) -> bool:
        """Read the signing keys anew when others are there; returns whether one was withdrawn.

        Connectors are told in this round of one that was made, and it signs later. A withdrawal brings everybody fresh grants.
        """
        if current.signing_keys == self._signing_keys:
            return False
        await self._trust.refresh(self._store)
        withdrawn = self._signing_keys - current.signing_keys
        self._signing_keys = current.signing_keys
        if withdrawn:
            logger.warning("withdrawn: %s; everybody gets fresh grants", ", ".join(sorted(withdrawn)))
            for client in self._peers.clients.values():
                client.sent = None
        return bool(withdrawn)

    def _refresh_clients(self, current: Snapshot, confirmed_at: float) -> None:
        for client in list(self._peers.clients.values()):
            # One that has just attached is told on its own, from this snapshot at the least where it covers it.
            if client.known is not None and current.covers(client.principal) and current.stamp >= client.stamp:
                try:
                    self._tell(client, current, confirmed_at)
                except Exception:
                    logger.exception("session %s could not be told of a change", client.principal.session)

    async def tell_client(self, peer: ClientPeer) -> None:
        """Send an attached client its configuration, or end its session: from memory, or read for it when it has just attached.

        Raises what has ended the session of one that was told nothing yet; StoreUnavailable, also when no confirmation lasts.
        """
        try:
            confirmed, confirmed_at = await self._confirmation.fresh()
        except StoreInUse:
            raise
        except StoreUnavailable:
            confirmed, confirmed_at = self._confirmation.stamp, self._confirmation.at
            if confirmed_at + self._grant_seconds < self._clock() + SHORTEST_GRANT_SECONDS:
                raise
        oldest = max(peer.stamp, confirmed)
        current = self.snapshot
        if not current.covers(peer.principal) or current.stamp < oldest:
            try:
                read = await self._arrivals.snapshot_for(peer.principal)
            except StoreUnavailable:
                if peer.known is None or peer.known.stamp < oldest:
                    raise
                read = peer.known  # decisions go on from what is known
            # A round may have overtaken this.
            current = self.snapshot if self.snapshot.covers(peer.principal) and self.snapshot.stamp >= read.stamp else read
        if peer.known is None:
            current.check(peer.principal, self._clock())
        self._tell(peer, current, confirmed_at, always=True)

    def _tell(self, peer: ClientPeer, current: Snapshot, confirmed_at: float, *, always: bool = False) -> None:
        """Send a client its configuration if something changed for it (or `always`), or end its session."""
        now = self._clock()
        peer.known = current
        try:
            current.check(peer.principal, now)
            head_guard.refuse(current.proven_head)
        except ControllerBehind as error:
            # No word that ends the session: its grants fade by themselves, and it may have others later.
            refused = Refused(
                code=ControllerUnreachable.code, message=error.message, hint=error.hint, retry_after=error.retry_after
            )
            peer.outbox.put(refused)
            peer.outbox.finish()
            return
        except AuthenticationFailed as error:
            peer.outbox.put(SessionEnded(code=error.code, message=error.message, hint=error.hint))
            peer.outbox.finish()
            return
        online, direct, punching = self._peers.online(), self._peers.direct(), self._peers.punching()
        grouped = current.resources_by_network(peer.principal.account)
        concerned = tuple(
            (row.id, row.name, row.enrolled_jkt, online.get(row.id), direct.get(row.id), row.id in punching)
            for network in grouped
            for row in current.connectors.get(network, ())
        )
        state = (current.accounts.get(peer.principal.account), concerned, current.relays)
        if state == peer.sent and not always:
            return
        peer.outbox.put(
            configuration.for_client(
                current,
                self._trust,
                peer.principal,
                peer.jkt,
                online,
                direct,
                punching,
                now=now,
                confirmed_at=confirmed_at,
                grant_seconds=self._grant_seconds,
                only=peer.only,
                spread_ms=self._peers.spread_ms(),
            )
        )
        peer.sent = state

    def leads_to(self, peer: ClientPeer, connector: int) -> bool:
        """Return whether something behind a connector is granted to an attached session now."""
        current = self.snapshot if self.snapshot.covers(peer.principal) else peer.known
        if current is None:
            return False
        try:
            current.check(peer.principal, self._clock())
            head_guard.refuse(current.proven_head)
        except KlinketError:
            return False
        grouped = current.resources_by_network(peer.principal.account)
        return any(row.id == connector for network in grouped for row in current.connectors.get(network, ()))

    async def _refresh_connectors(self, asked: Iterable[ConnectorPeer], current: Snapshot) -> None:
        """Dismiss connectors that were deleted or have new tokens, and tell the others which relays and keys there are."""
        for peer in asked:
            # One that has enrolled since the snapshot was read is not dead.
            believed = current.known_connectors.get(peer.connector) == peer.jkt
            if not believed and not await self._store.read(lambda tx: connectors.is_believed(tx, peer.connector, peer.jkt)):  # noqa: B023
                self._dismiss(peer)
            elif peer.sent is not None and peer.sent != _made_of(current):  # the first configuration comes with attaching
                await self.configure_connector(peer)

    async def _refresh_relays(self) -> None:
        """End the channels of relays that were deleted or have another token."""
        attached = dict(self._peers.relays)
        if attached:
            shown = {id: peer.token_hash for id, peer in attached.items()}
            for id in await self._store.read(lambda tx: relays.disbelieved(tx, shown)):
                logger.warning("relay %d: its channel ends, its token was replaced", id)
                attached[id].outbox.finish()

    async def configure_connector(self, peer: ConnectorPeer) -> None:
        """Send a connector its full state, with the cuts that may still have to be applied."""
        await self._confirmation.fresh()
        try:
            row, tokens, stamp = await self._store.read(lambda tx: _believed_with_cuts(tx, peer))
        except ConnectorTokensDead:
            self._dismiss(peer)
            return
        current = self.snapshot
        message = configuration.for_connector(
            current.relays,
            self._trust,
            row,
            tokens,
            stamp,
            now=self._clock(),
            grant_seconds=self._grant_seconds,
            limits=self._limits,
            own_limits=current.own_limits,
        )
        peer.configure(message, _made_of(current))

    def _dismiss(self, peer: ConnectorPeer) -> None:
        if not peer.dismissed:
            peer.dismissed = True
            self._tasks.start(self._say_goodbye(peer), f"connector {peer.connector} is dismissed")

    async def _say_goodbye(self, peer: ConnectorPeer) -> None:
        """Wait for the receipt of the cut that ended what the connector carried, then refuse it for good."""
        try:
            async with asyncio.timeout(DISMISS_SECONDS):
                await peer.all_answered()
        except TimeoutError:
            logger.warning("connector %d is dismissed and has not answered its last cut", peer.connector)
        peer.outbox.put(told_as_refused(ConnectorTokensDead("this connector was deleted, or has new tokens")))
        peer.outbox.finish()


def told_as_refused(error: KlinketError) -> Refused:
    """Return an error as the last message of a live channel."""
    return Refused(code=error.code, message=error.message, hint=error.hint, retry_after=error.retry_after)


def _made_of(current: Snapshot) -> object:
    """Return what of a snapshot the configuration of a connector is made of."""
    return current.relays, current.signing_keys, current.own_limits


def _believed_with_cuts(tx: Transaction, peer: ConnectorPeer) -> tuple[ConnectorRow, list[str], Stamp]:
    """Return a connector, the cuts that it may still have to apply, and the head; raises ConnectorTokensDead."""
    return connectors.believed(tx, peer.connector, peer.jkt), [row.token for row in cuts.in_force(tx)], tx.head()
