"""Channels of connectors, from the moment they have proved who they are: heartbeats, receipts, flow events."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

import msgspec
from starlette.websockets import WebSocket

from klinket.controller import direct_addresses, enrolment
from klinket.controller.app import connectors, cuts, flow_events, live_flows
from klinket.controller.app.ports import Store, Transaction
from klinket.controller.app.store_errors import StoreUnavailable
from klinket.controller.conversation import Conversation, same_key
from klinket.controller.dispatch import Dispatch
from klinket.controller.head_guard import HeadGuard
from klinket.controller.peers import ConnectorPeer, Outbox, Peers
from klinket.controller.punching import Punching
from klinket.controller.trust import Trust
from klinket.domain.cut import Stamp
from klinket.domain.errors import InvalidToken, ProtocolError
from klinket.domain.flow import FlowFailure
from klinket.domain.identifiers import ConnectorId
from klinket.wire import control
from klinket.wire.access_token import AccessClaims
from klinket.wire.identity import ConnectorIdentity
from klinket.wire.receipt_token import digest, verify_receipt

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: Seconds a channel waits for an absent database to take what its peer reports; meanwhile heartbeats are not answered, so this
#: is less than the silence after which a peer gives up (wire.control.CHANNEL_SILENCE_SECONDS).
STORE_PATIENCE_SECONDS = 20.0
#: Seconds between tries.
STORE_AGAIN_SECONDS = 0.5


class ConnectorChannels:
    """Serves connectors. `clock`: the controller's time, in seconds since the epoch.

    `count_throttled`: called with how many flows connectors say they have refused because a limit was used up.
    """

    def __init__(
        self,
        conversation: Conversation,
        store: Store,
        trust: Trust,
        peers: Peers,
        dispatch: Dispatch,
        guard: HeadGuard,
        punching: Punching,
        clock: Callable[[], float],
        count_throttled: Callable[[int], object],
    ) -> None:
        self._conversation = conversation
        self._store = store
        self._trust = trust
        self._peers = peers
        self._dispatch = dispatch
        self._guard = guard
        self._punching = punching
        self._clock = clock
        self._count_throttled = count_throttled

    async def serve(self, socket: WebSocket, identity: ConnectorIdentity, claims: AccessClaims, address: str) -> None:
        connector = identity.connector
        row = await self._store.read(lambda tx: connectors.believed(tx, connector, claims.jkt))
        peer = ConnectorPeer(connector, claims.jkt, Outbox(socket), address=address)
        former = self._peers.connectors.get(connector)
        self._peers.connectors[connector] = peer
        if former is not None:
            former.outbox.finish()
        logger.info("connector %s (%d) attached from %s", row.name, connector, address)
        try:
            await self._dispatch.configure_connector(peer)
            await self._conversation.run(
                socket, peer.outbox, identity, address, lambda message: self._message(peer, message, address)
            )
        finally:
            if self._peers.connectors.get(connector) is peer:
                del self._peers.connectors[connector]
                self._dispatch.peers_changed()
            logger.info("connector %s (%d) detached", row.name, connector)

    async def _message(self, peer: ConnectorPeer, message: control.ToController, address: str) -> None:
        match message:
            case control.Heartbeat():
                await self._heartbeat(peer, message, address)
            case control.CutReceipt():
                await self._receipt(peer, message)
            case control.FlowEvents():
                if await self._write_patiently(lambda tx: flow_events.keep(tx, peer.connector, message.batch, message.events)):
                    self._count_throttled(sum(one.failure == FlowFailure.THROTTLED.value for one in message.events))
                peer.outbox.put(control.FlowEventsStored(batch=message.batch))
            case control.Renew():
                await self._conversation.paced(peer)
                await self._dispatch.configure_connector(peer)
            case control.RenewCertificate():
                await self._conversation.paced(peer)
                key = same_key(message.request, peer.jkt)
                await self._conversation.confirmed(lambda tx: connectors.believed(tx, peer.connector, peer.jkt))
                certificate, token, expires_at = enrolment.issue(self._trust, ConnectorId(peer.connector), key, self._clock())
                peer.outbox.put(
                    control.CertificateRenewed(
                        certificate=certificate, access_token=token, expires_at_ms=round(expires_at * 1000)
                    )
                )
            case _:
                raise ProtocolError(f"a connector does not send {type(message).__name__}")

    async def _write_patiently(self, change: Callable[[Transaction], T]) -> T:
        """Make a change that may be made twice, also when the database is away for a moment; raises StoreUnavailable."""
        loop = asyncio.get_running_loop()
        until = loop.time() + STORE_PATIENCE_SECONDS
        while True:
            try:
                return await self._store.write(change)
            except StoreUnavailable:
                if loop.time() > until:
                    raise
                await asyncio.sleep(STORE_AGAIN_SECONDS)

    async def _receipt(self, peer: ConnectorPeer, message: control.CutReceipt) -> None:
        """Store a receipt; one that its connector has not signed, or nobody could be shown, is as good as none."""
        identity = ConnectorIdentity(self._trust.network, ConnectorId(peer.connector))
        flows = [msgspec.to_builtins(flow) for flow in message.flows]
        try:
            said = verify_receipt(message.token, identity, jkt=peer.jkt, now=self._clock())
            if (said.cut, said.stopped_at_ms, said.flows_sha256) != (message.id, message.stopped_at_ms, digest(flows)):
                raise InvalidToken("the receipt says something else than its signature")
            cuts.check_told(message, said.took_us / 1000)
        except (InvalidToken, ProtocolError) as error:
            logger.error("receipt of cut %d of connector %d: %s", message.id, peer.connector, error.message)
            return
        await self._write_patiently(
            lambda tx: cuts.answer(
                tx,
                message.id,
                peer.connector,
                stopped_at_ms=message.stopped_at_ms,
                took_ms=said.took_us / 1000,
                flows=flows,
                token=message.token,
                stamp=(said.epoch, said.revision),
            )
        )
        peer.answered(message.id)

    async def _heartbeat(self, peer: ConnectorPeer, message: control.Heartbeat, address: str) -> None:
        self._conversation.answer_heartbeat(peer.outbox, message)
        relays = tuple(sorted(message.relays[:64]))
        direct = direct_addresses.offered(message.direct, address)
        punches = message.punches and self._punching.enabled
        changed = (relays, direct, punches) != (peer.relays, peer.direct, peer.punches)
        peer.relays, peer.direct, peer.punches = relays, direct, punches
        shown = self._guard.shown(message.head, peer.connector) if message.head else None

        def note(tx: Transaction) -> tuple[Stamp, Stamp | None, bool]:
            head = connectors.heartbeat(
                tx,
                peer.connector,
                peer.jkt,
                version=message.version,
                hostname=message.hostname,
                public_ip=address,
                private_ips=message.private_ips,
                time_ms=message.time_ms,
                started_ms=message.started_ms,
                leaves=message.leaves,
            )
            if message.started_ms and not peer.started_ms:
                live_flows.restarted(tx, peer.connector, min(message.started_ms, tx.now_ms))
            is_news = shown is not None and connectors.prove_head(tx, peer.connector, shown, address)
            return head, tx.proven_head(), is_news

        try:
            head, proven, is_news = await self._store.write(note)
        except StoreUnavailable:  # the connector is not at fault: its channel outlives an absence of the database
            if changed:
                self._dispatch.peers_changed()
            return
        peer.started_ms = message.started_ms
        if is_news:
            logger.error(
                "ALARM controller-behind: at %s, connector %d proves %s: nothing is granted", head, peer.connector, proven
            )
        # Another head than the one read last: another program has written, accepting a restored backup for example.
        current = self._dispatch.snapshot
        if changed or (head, proven) != (current.stamp, current.proven_head):
            self._dispatch.peers_changed()
