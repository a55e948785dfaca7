"""Channels of clients, from the moment they have proved who they are."""

from __future__ import annotations

from collections.abc import Callable

from starlette.websockets import WebSocket

from klinket.controller import login
from klinket.controller.app import sessions
from klinket.controller.app.key_seats import SEAT_MS
from klinket.controller.app.ports import Store
from klinket.controller.conversation import Conversation, same_key
from klinket.controller.dispatch import Dispatch
from klinket.controller.peers import ClientPeer, Outbox, Peers
from klinket.controller.punching import Punching
from klinket.controller.trust import Trust
from klinket.domain.errors import ProtocolError
from klinket.domain.identifiers import SessionId
from klinket.wire import control
from klinket.wire.access_token import AccessClaims
from klinket.wire.identity import ClientIdentity


class ClientChannels:
    """Serves clients. `clock`: the controller's time, in seconds since the epoch."""

    def __init__(
        self,
        conversation: Conversation,
        store: Store,
        trust: Trust,
        peers: Peers,
        dispatch: Dispatch,
        punching: Punching,
        clock: Callable[[], float],
    ) -> None:
        self._conversation = conversation
        self._store = store
        self._trust = trust
        self._peers = peers
        self._dispatch = dispatch
        self._punching = punching
        self._clock = clock

    async def serve(
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
            await self._conversation.run(
                socket, peer.outbox, identity, address, lambda message: self._message(peer, message, address)
            )
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

    async def _message(self, peer: ClientPeer, message: control.ToController, address: str) -> None:
        match message:
            case control.Heartbeat():
                self._conversation.answer_heartbeat(peer.outbox, message)
            case control.Renew():
                await self._conversation.paced(peer)
                await self._dispatch.tell_client(peer)
            case control.RenewCertificate():
                await self._conversation.paced(peer)
                await self._renew(peer, message)
            case control.Punch(connector=id):
                self._punching.ask(peer, id, self._peers.connectors.get(id), lambda: self._dispatch.leads_to(peer, id))
            case control.EndSession():
                # Its flows are its own to end, and it has: a cut for each job that ends would drown those that matter.
                session = peer.principal.session
                await self._store.write(lambda tx: sessions.end(tx, session, sessions.ENDED_BY_CLIENT, address, cut=False))
                peer.outbox.finish()
            case _:
                raise ProtocolError(f"a client does not send {type(message).__name__}")

    async def _renew(self, peer: ClientPeer, message: control.RenewCertificate) -> None:
        key = same_key(message.request, peer.jkt)
        _, key_row, _ = await self._conversation.confirmed(lambda tx: sessions.live(tx, peer.principal.session))
        expires_at = None if key_row.expires_at_ms is None else key_row.expires_at_ms / 1000
        issued = login.issue(self._trust, peer.principal, key, expires_at, self._clock())
        peer.outbox.put(
            control.CertificateRenewed(
                certificate=issued.certificate,
                access_token=issued.access_token,
                expires_at_ms=round(issued.expires_at * 1000),
            )
        )
