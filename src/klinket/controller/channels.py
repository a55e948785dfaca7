"""Live channels of clients and connectors: prove, attach, then both sides speak (wire/control.py)."""

from __future__ import annotations

import asyncio
import logging
from base64 import urlsafe_b64encode
from collections.abc import Callable
from typing import TypeVar

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from klinket.controller import direct_addresses, enrolment, head_guard, login
from klinket.controller.app import connectors, cuts, flow_events, live_flows, sessions
from klinket.controller.app.key_seats import SEAT_MS
from klinket.controller.app.ports import Store, Transaction
from klinket.controller.app.store_errors import StoreUnavailable
from klinket.controller.authority import parse_request
from klinket.controller.channel_pace import ChannelPace
from klinket.controller.dispatch import Dispatch, told_as_refused
from klinket.controller.head_guard import HeadGuard
from klinket.controller.peers import POLICY_VIOLATION, TRY_AGAIN, ClientPeer, ConnectorPeer, Outbox, Peers, receive_text
from klinket.controller.punching import Punching
from klinket.controller.seats import is_modern, proven
from klinket.controller.trust import KeyPurpose, Trust
from klinket.domain.cut import Stamp
from klinket.domain.errors import (
    InvalidToken,
    KlinketError,
    ProtocolError,
    Throttled,
)
from klinket.domain.flow import FlowFailure
from klinket.domain.identifiers import ConnectorId, SessionId, Thumbprint
from klinket.wire import access_token, control, signing
from klinket.wire.access_token import AccessClaims
from klinket.wire.identity import ClientIdentity, ConnectorIdentity
from klinket.wire.receipt_token import digest, verify_receipt

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: Seconds from the challenge to the peer's Attach.
ATTACH_SECONDS = 10.0
NONCE_BYTES = 24
#: Seconds between configurations or certificates that one peer asks for: each is made and signed for it.
RENEW_SECONDS = 1.0
#: Seconds a channel waits for an absent database to take what its peer reports; meanwhile heartbeats are not answered, so this
#: is less than the silence after which a peer gives up (wire.control.CHANNEL_SILENCE_SECONDS).
STORE_PATIENCE_SECONDS = 20.0
#: Seconds between tries.
STORE_AGAIN_SECONDS = 0.5


class Channels:
    """Serves live channels."""

    def __init__(
        self,
        store: Store,
        trust: Trust,
        peers: Peers,
        dispatch: Dispatch,
        guard: HeadGuard,
        punching: Punching,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        count_throttled: Callable[[int], object] = lambda _: None,
    ) -> None:
        """`count_throttled`: called with how many flows connectors say they have refused because a limit was used up."""
        self._count_throttled = count_throttled
        self._punching = punching
        self._store = store
        self._trust = trust
        self._peers = peers
        self._dispatch = dispatch
        self._guard = guard
        self._clock = clock
        self._entropy = entropy
        self._pace = ChannelPace()

    async def serve(self, socket: WebSocket) -> None:
        """Serve one WebSocket until it ends."""
        if not is_modern(socket):
            return await socket.close(POLICY_VIOLATION)
        await socket.accept()
        address = socket.client.host if socket.client else ""
        try:
            claims, only = await self._prove(socket)
            try:
                proven(socket, _holder(claims.identity))
                self._pace.attach(_name(claims.identity), address)
            except Throttled as error:  # it is believed: it comes again
                logger.warning("channel from %s ended: %s", address, error.message)
                return await _close(socket, TRY_AGAIN)
            if isinstance(claims.identity, ClientIdentity):
                await self._serve_client(socket, claims.identity, claims, address, only)
            else:
                await self._serve_connector(socket, claims.identity, claims, address)
        except (WebSocketDisconnect, TimeoutError):
            return None
        except StoreUnavailable as error:
            # No Refused: to a peer that would mean that it is not believed, and it would end for good.
            logger.warning("channel from %s ended: %s", address, error.code)
            await _close(socket, TRY_AGAIN)
        except KlinketError as error:
            logger.warning("channel from %s refused: %s: %s", address, error.code, error.message)
            await _close(socket, POLICY_VIOLATION, control.encode(told_as_refused(error)))

    async def _prove(self, socket: WebSocket) -> tuple[AccessClaims, tuple[str, ...]]:
        """Challenge the peer; returns who it proved to be, and `Attach.only`. Raises AuthenticationFailed, ProtocolError."""
        nonce = urlsafe_b64encode(self._entropy(NONCE_BYTES)).decode()
        await socket.send_text(control.encode(control.Challenge(nonce=nonce, time_ms=round(self._clock() * 1000))))
        async with asyncio.timeout(ATTACH_SECONDS):
            message = control.decode_to_controller(await receive_text(socket))
        if not isinstance(message, control.Attach):
            raise ProtocolError("the first message must be attach")
        if len(message.only) > control.MAX_ONLY or any(len(text) > control.MAX_ONLY_CHARACTERS for text in message.only):
            raise ProtocolError(f"attach names more than {control.MAX_ONLY} resources, or one with a name that is too long")
        now = self._clock()
        claims = access_token.verify(
            message.access_token, self._trust.keys[KeyPurpose.ACCESS], network=self._trust.network, now=now
        )
        access_token.verify_proof(message.proof, jkt=claims.jkt, nonce=nonce, now=now)
        return claims, tuple(message.only)

    async def _run(
        self, socket: WebSocket, outbox: Outbox, name: str, address: str, handle: Callable[[control.ToController], object]
    ) -> None:
        """Send and receive side by side until either ends. `name`, `address`: whose pace counts."""
        sender = asyncio.create_task(outbox.run())
        try:
            while True:
                async with asyncio.timeout(control.CHANNEL_SILENCE_SECONDS):
                    text = await receive_text(socket)
                message = control.decode_to_controller(text)
                await self._pace.message(name, address, message)
                done = handle(message)
                if asyncio.iscoroutine(done):
                    await done
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    def _answer_heartbeat(self, outbox: Outbox, message: control.Heartbeat) -> None:
        outbox.put(control.HeartbeatAnswer(sequence=message.sequence, time_ms=round(self._clock() * 1000)))

    async def _confirmed(self, query: Callable[[Transaction], T]) -> T:
        """Answer what a certificate depends on, as a write: of a controller that was superseded it fails, a read would not.

        Raises ControllerBehind as well.
        """

        def ask(tx: Transaction) -> T:
            head_guard.check(tx)
            return query(tx)

        return await self._store.write(ask)

    async def _paced(self, peer: ClientPeer | ConnectorPeer) -> None:
        """Wait until this peer may have another configuration; what it sends meanwhile waits unread."""
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.0, peer.renew_from - now))
        peer.renew_from = max(now, peer.renew_from) + RENEW_SECONDS

    # ---- clients

    async def _serve_client(
        self, socket: WebSocket, identity: ClientIdentity, claims: AccessClaims, address: str, only: tuple[str, ...]
    ) -> None:
        principal = identity.principal
        if self._peers.is_new(principal.session):  # others are read together with those that come at the same time
            row, _, _ = await self._store.read(lambda tx: sessions.live(tx, principal.session))
            if row.created_at_ms <= self._clock() * 1000 - SEAT_MS:
                await self._seat(principal.session)
        peer = ClientPeer(principal, claims.jkt, Outbox(socket), only, address)
        former = self._peers.clients.get(principal.session)
        self._peers.clients[principal.session] = peer
        self._peers.settled(principal.session)
        if former is not None:
            former.outbox.finish()
        try:
            await self._dispatch.tell_client(peer)
            name = _name(identity)
            await self._run(socket, peer.outbox, name, address, lambda message: self._client_message(peer, message, address))
        finally:
            if self._peers.clients.get(principal.session) is peer:
                del self._peers.clients[principal.session]

    async def _seat(self, session: SessionId) -> None:
        """Give a seat to a session that attaches so long after its login that others may have taken it; raises Throttled."""
        others = self._peers.seated() - {session}
        self._peers.seating.add(session)
        try:
            await self._store.write(lambda tx: sessions.seat_late(tx, session, others))
        finally:
            self._peers.seating.discard(session)  # nothing is awaited from here until it is attached

    async def _client_message(self, peer: ClientPeer, message: control.ToController, address: str) -> None:
        match message:
            case control.Heartbeat():
                self._answer_heartbeat(peer.outbox, message)
            case control.Renew():
                await self._paced(peer)
                await self._dispatch.tell_client(peer)
            case control.RenewCertificate():
                await self._paced(peer)
                await self._renew_client(peer, message)
            case control.Punch(connector=id):
                self._punching.ask(peer, id, self._peers.connectors.get(id), lambda: self._dispatch.leads_to(peer, id))
            case control.EndSession():
                # Its flows are its own to end, and it has: a cut for each job that ends would drown those that matter.
                session = peer.principal.session
                await self._store.write(lambda tx: sessions.end(tx, session, sessions.ENDED_BY_CLIENT, address, cut=False))
                peer.outbox.finish()
            case _:
                raise ProtocolError(f"a client does not send {type(message).__name__}")

    async def _renew_client(self, peer: ClientPeer, message: control.RenewCertificate) -> None:
        key = _same_key(message.request, peer.jkt)
        _, key_row, _ = await self._confirmed(lambda tx: sessions.live(tx, peer.principal.session))
        expires_at = None if key_row.expires_at_ms is None else key_row.expires_at_ms / 1000
        issued = login.issue(self._trust, peer.principal, key, expires_at, self._clock())
        peer.outbox.put(
            control.CertificateRenewed(
                certificate=issued.certificate,
                access_token=issued.access_token,
                expires_at_ms=round(issued.expires_at * 1000),
            )
        )

    # ---- connectors

    async def _serve_connector(self, socket: WebSocket, identity: ConnectorIdentity, claims: AccessClaims, address: str) -> None:
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
            name = _name(identity)
            await self._run(socket, peer.outbox, name, address, lambda message: self._connector_message(peer, message, address))
        finally:
            if self._peers.connectors.get(connector) is peer:
                del self._peers.connectors[connector]
                self._dispatch.peers_changed()
            logger.info("connector %s (%d) detached", row.name, connector)

    async def _connector_message(self, peer: ConnectorPeer, message: control.ToController, address: str) -> None:
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
                await self._paced(peer)
                await self._dispatch.configure_connector(peer)
            case control.RenewCertificate():
                await self._paced(peer)
                key = _same_key(message.request, peer.jkt)
                await self._confirmed(lambda tx: connectors.believed(tx, peer.connector, peer.jkt))
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
        self._answer_heartbeat(peer.outbox, message)
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


def _holder(identity: ClientIdentity | ConnectorIdentity) -> str:
    """Return whose share of the connections a channel takes: all sessions of an account have one together."""
    if isinstance(identity, ClientIdentity):
        return f"service account {identity.principal.account}"
    return f"connector {identity.connector}"


def _name(identity: ClientIdentity | ConnectorIdentity) -> str:
    """Return whose pace a channel takes: each session's own."""
    if isinstance(identity, ClientIdentity):
        return f"session {identity.principal.session}"
    return f"connector {identity.connector}"


async def _close(socket: WebSocket, code: int, last: str | None = None) -> None:
    """Say a last word, if there is one, and close; a peer that has gone already is none to tell."""
    try:
        if last is not None:
            await socket.send_text(last)
        await socket.close(code)
    except (WebSocketDisconnect, RuntimeError):
        pass


def _same_key(request: str, jkt: Thumbprint) -> signing.PublicKey:
    """Return the key of a renewal's request; raises InvalidToken unless it is the one the peer has proved."""
    key = parse_request(request)
    if signing.thumbprint(key) != jkt:
        raise InvalidToken("a certificate is renewed for the same key only")
    return key
