"""Live channels of clients and connectors: prove, attach, then both sides speak (wire/control.py)."""

from __future__ import annotations

import asyncio
import logging
from base64 import urlsafe_b64encode
from collections.abc import Callable

import msgspec
from starlette.websockets import WebSocket, WebSocketDisconnect

from klinket.controller import enrolment, login
from klinket.controller.app import connectors, cuts, flow_events, sessions
from klinket.controller.app.ports import Store, Transaction
from klinket.controller.authority import parse_request
from klinket.controller.dispatch import Dispatch
from klinket.controller.peers import POLICY_VIOLATION, ClientPeer, ConnectorPeer, Outbox, Peers
from klinket.controller.trust import KeyPurpose, Trust
from klinket.domain.errors import (
    ConnectorTokensDead,
    InvalidToken,
    KlinketError,
    ProtocolError,
)
from klinket.domain.identifiers import ConnectorId, Thumbprint
from klinket.wire import access_token, control, signing
from klinket.wire.access_token import AccessClaims
from klinket.wire.identity import ClientIdentity, ConnectorIdentity
from klinket.wire.receipt_token import digest, verify_receipt

logger = logging.getLogger(__name__)

#: Seconds from the challenge to the peer's Attach.
ATTACH_SECONDS = 10.0
NONCE_BYTES = 24


class Channels:
    """Serves live channels."""

    def __init__(
        self,
        store: Store,
        trust: Trust,
        peers: Peers,
        dispatch: Dispatch,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._store = store
        self._trust = trust
        self._peers = peers
        self._dispatch = dispatch
        self._clock = clock
        self._entropy = entropy

    async def serve(self, socket: WebSocket) -> None:
        """Serve one WebSocket until it ends."""
        await socket.accept()
        address = socket.client.host if socket.client else ""
        try:
            claims = await self._prove(socket)
            if isinstance(claims.identity, ClientIdentity):
                await self._serve_client(socket, claims.identity, claims)
            else:
                await self._serve_connector(socket, claims.identity, claims, address)
        except (WebSocketDisconnect, TimeoutError):
            return
        except KlinketError as error:
            logger.warning("channel from %s refused: %s: %s", address, error.code, error.message)
            refused = control.Refused(code=error.code, message=error.message, hint=error.hint, retry_after=error.retry_after)
            try:
                await socket.send_text(control.encode(refused))
                await socket.close(POLICY_VIOLATION)
            except (WebSocketDisconnect, RuntimeError):
                pass

    async def _prove(self, socket: WebSocket) -> AccessClaims:
        """Challenge the peer; returns who it proved to be. Raises AuthenticationFailed, ProtocolError."""
        nonce = urlsafe_b64encode(self._entropy(NONCE_BYTES)).decode()
        await socket.send_text(control.encode(control.Challenge(nonce=nonce, time_ms=round(self._clock() * 1000))))
        async with asyncio.timeout(ATTACH_SECONDS):
            message = control.decode_to_controller(await socket.receive_text())
        if not isinstance(message, control.Attach):
            raise ProtocolError("the first message must be attach")
        now = self._clock()
        claims = access_token.verify(
            message.access_token, self._trust.keys[KeyPurpose.ACCESS], network=self._trust.network, now=now
        )
        access_token.verify_proof(message.proof, jkt=claims.jkt, nonce=nonce, now=now)
        return claims

    async def _run(self, socket: WebSocket, outbox: Outbox, handle: Callable[[control.ToController], object]) -> None:
        """Send and receive side by side until either ends."""
        sender = asyncio.create_task(outbox.run())
        try:
            while True:
                async with asyncio.timeout(control.CHANNEL_SILENCE_SECONDS):
                    text = await socket.receive_text()
                done = handle(control.decode_to_controller(text))
                if asyncio.iscoroutine(done):
                    await done
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    def _answer_heartbeat(self, outbox: Outbox, message: control.Heartbeat) -> None:
        outbox.put(control.HeartbeatAnswer(sequence=message.sequence, time_ms=round(self._clock() * 1000)))

    # ---- clients

    async def _serve_client(self, socket: WebSocket, identity: ClientIdentity, claims: AccessClaims) -> None:
        principal = identity.principal
        await self._store.read(lambda tx: sessions.live(tx, principal.session))
        peer = ClientPeer(principal, claims.jkt, Outbox(socket))
        former = self._peers.clients.get(principal.session)
        self._peers.clients[principal.session] = peer
        if former is not None:
            former.outbox.finish()
        try:
            self._dispatch.refresh_client(peer, always=True)
            await self._run(socket, peer.outbox, lambda message: self._client_message(peer, message))
        finally:
            if self._peers.clients.get(principal.session) is peer:
                del self._peers.clients[principal.session]

    async def _client_message(self, peer: ClientPeer, message: control.ToController) -> None:
        match message:
            case control.Heartbeat():
                self._answer_heartbeat(peer.outbox, message)
            case control.Renew():
                self._dispatch.refresh_client(peer, always=True)
            case control.RenewCertificate():
                await self._renew_client(peer, message)
            case control.EndSession():
                await self._store.write(lambda tx: self._end_session(tx, peer))
                peer.outbox.finish()
            case _:
                raise ProtocolError(f"a client does not send {type(message).__name__}")

    def _end_session(self, tx: Transaction, peer: ClientPeer) -> None:
        sessions.end(tx, peer.principal.session, "the client has ended")

    async def _renew_client(self, peer: ClientPeer, message: control.RenewCertificate) -> None:
        key = _same_key(message.request, peer.jkt)
        _, key_row, _ = await self._store.read(lambda tx: sessions.live(tx, peer.principal.session))
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
        row = await self._store.read(lambda tx: tx.connectors.get(connector))
        if row is None or row.enrolled_jkt != claims.jkt:
            raise ConnectorTokensDead("this connector was deleted, or has new tokens")
        peer = ConnectorPeer(connector, claims.jkt, Outbox(socket))
        former = self._peers.connectors.get(connector)
        self._peers.connectors[connector] = peer
        if former is not None:
            former.outbox.finish()
        logger.info("connector %s (%d) attached from %s", row.name, connector, address)
        try:
            await self._dispatch.configure_connector(peer)
            await self._run(socket, peer.outbox, lambda message: self._connector_message(peer, message, address))
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
                await self._store.write(lambda tx: flow_events.keep(tx, peer.connector, message.batch, message.events))
                peer.outbox.put(control.FlowEventsStored(batch=message.batch))
            case control.Renew():
                await self._dispatch.configure_connector(peer)
            case control.RenewCertificate():
                key = _same_key(message.request, peer.jkt)
                certificate, token, expires_at = enrolment.issue(self._trust, ConnectorId(peer.connector), key, self._clock())
                peer.outbox.put(
                    control.CertificateRenewed(
                        certificate=certificate, access_token=token, expires_at_ms=round(expires_at * 1000)
                    )
                )
            case _:
                raise ProtocolError(f"a connector does not send {type(message).__name__}")

    async def _receipt(self, peer: ConnectorPeer, message: control.CutReceipt) -> None:
        """Store a receipt; one that its connector has not signed is as good as none, and stays pending."""
        identity = ConnectorIdentity(self._trust.network, ConnectorId(peer.connector))
        flows = [msgspec.to_builtins(flow) for flow in message.flows]
        try:
            said = verify_receipt(message.token, identity, jkt=peer.jkt, now=self._clock())
            if (said.cut, said.stopped_at_ms, said.flows_sha256) != (message.id, message.stopped_at_ms, digest(flows)):
                raise InvalidToken("the receipt says something else than its signature")
        except InvalidToken as error:
            logger.error("receipt of cut %d of connector %d: %s", message.id, peer.connector, error.message)
            return
        await self._store.write(
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

    async def _heartbeat(self, peer: ConnectorPeer, message: control.Heartbeat, address: str) -> None:
        self._answer_heartbeat(peer.outbox, message)
        relays = tuple(sorted(message.relays[:64]))
        changed = relays != peer.relays
        peer.relays = relays
        there = await self._store.write(
            lambda tx: connectors.heartbeat(
                tx,
                peer.connector,
                version=message.version,
                hostname=message.hostname,
                public_ip=address,
                private_ips=message.private_ips,
            )
        )
        if not there:
            raise ConnectorTokensDead("this connector was deleted")
        if changed:
            self._dispatch.peers_changed()


def _same_key(request: str, jkt: Thumbprint) -> signing.PublicKey:
    """Return the key of a renewal's request; raises InvalidToken unless it is the one the peer has proved."""
    key = parse_request(request)
    if signing.thumbprint(key) != jkt:
        raise InvalidToken("a certificate is renewed for the same key only")
    return key
