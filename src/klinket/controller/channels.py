"""Live channels of clients and connectors: they prove who they are, and attach; then both sides speak (wire/control.py)."""

from __future__ import annotations

import asyncio
import logging
from base64 import urlsafe_b64encode
from collections.abc import Callable

from starlette.websockets import WebSocket, WebSocketDisconnect

from klinket.controller.app.ports import Store
from klinket.controller.app.store_errors import StoreUnavailable
from klinket.controller.client_channels import ClientChannels
from klinket.controller.connector_channels import ConnectorChannels
from klinket.controller.conversation import Conversation
from klinket.controller.dispatch import Dispatch, told_as_refused
from klinket.controller.head_guard import HeadGuard
from klinket.controller.peers import POLICY_VIOLATION, TRY_AGAIN, Peers, receive_text
from klinket.controller.punching import Punching
from klinket.controller.seats import is_modern, proven
from klinket.controller.trust import KeyPurpose, Trust
from klinket.domain.errors import KlinketError, ProtocolError, Throttled
from klinket.net.uptime import boot, own_time, told_uptime_ms
from klinket.wire import access_token, control
from klinket.wire.access_token import AccessClaims
from klinket.wire.identity import ClientIdentity, ConnectorIdentity

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
        guard: HeadGuard,
        punching: Punching,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
        count_throttled: Callable[[int], object] = lambda _: None,
    ) -> None:
        """`count_throttled`: called with how many flows connectors say they have refused because a limit was used up."""
        self._trust = trust
        self._clock = clock
        self._entropy = entropy
        self._conversation = conversation = Conversation(store, clock)
        self._clients = ClientChannels(conversation, store, trust, peers, dispatch, punching, clock)
        self._connectors = ConnectorChannels(conversation, store, trust, peers, dispatch, guard, punching, clock, count_throttled)

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
                self._conversation.attach(claims.identity, address)
            except Throttled as error:  # it is believed: it comes again
                logger.warning("channel from %s ended: %s", address, error.message)
                return await _close(socket, TRY_AGAIN)
            if isinstance(claims.identity, ClientIdentity):
                await self._clients.serve(socket, claims.identity, claims, address, only)
            else:
                await self._connectors.serve(socket, claims.identity, claims, address)
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
        time_ms, uptime_ms = round(self._clock() * 1000), told_uptime_ms(own_time())
        challenge = control.Challenge(nonce=nonce, time_ms=time_ms, uptime_ms=uptime_ms, boot=boot())
        await socket.send_text(control.encode(challenge))
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


def _holder(identity: ClientIdentity | ConnectorIdentity) -> str:
    """Return whose share of the connections a channel takes: all sessions of an account have one together."""
    if isinstance(identity, ClientIdentity):
        return f"service account {identity.principal.account}"
    return f"connector {identity.connector}"


async def _close(socket: WebSocket, code: int, last: str | None = None) -> None:
    """Say a last word, if there is one, and close; a peer that has gone already is none to tell."""
    try:
        if last is not None:
            await socket.send_text(last)
        await socket.close(code)
    except (WebSocketDisconnect, RuntimeError):
        pass
