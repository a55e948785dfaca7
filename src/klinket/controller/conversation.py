"""What peers of both roles do on an attached channel: heartbeats, and renewals at a pace."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from starlette.websockets import WebSocket

from klinket.controller import head_guard
from klinket.controller.app.ports import Store, Transaction
from klinket.controller.authority import parse_request
from klinket.controller.channel_pace import ChannelPace
from klinket.controller.peers import ClientPeer, ConnectorPeer, Outbox, receive_text
from klinket.domain.errors import InvalidToken
from klinket.domain.identifiers import Thumbprint
from klinket.net.uptime import boot, own_time, told_uptime_ms
from klinket.wire import control, signing
from klinket.wire.identity import ClientIdentity, ConnectorIdentity

T = TypeVar("T")

#: Seconds between configurations or certificates that one peer asks for: each is made and signed for it.
RENEW_SECONDS = 1.0


class Conversation:
    """Shared by all channels of one controller. `clock`: the controller's time, in seconds since the epoch."""

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._pace = ChannelPace()

    def attach(self, identity: ClientIdentity | ConnectorIdentity, address: str) -> None:
        """A channel begins; raises Throttled. `address`: its source, whose pace counts as well."""
        self._pace.attach(_speaker(identity), address)

    async def run(
        self,
        socket: WebSocket,
        outbox: Outbox,
        identity: ClientIdentity | ConnectorIdentity,
        address: str,
        handle: Callable[[control.ToController], object],
    ) -> None:
        """Send and receive side by side until either ends. `identity`, `address`: whose pace counts."""
        speaker = _speaker(identity)
        sender = asyncio.create_task(outbox.run())
        try:
            while True:
                async with asyncio.timeout(control.CHANNEL_SILENCE_SECONDS):
                    text = await receive_text(socket)
                message = control.decode_to_controller(text)
                await self._pace.message(speaker, address, message)
                done = handle(message)
                if asyncio.iscoroutine(done):
                    await done
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    def answer_heartbeat(self, outbox: Outbox, message: control.Heartbeat) -> None:
        """Answer a heartbeat with the same number, and the time here."""
        time_ms, uptime_ms = round(self._clock() * 1000), told_uptime_ms(own_time())
        outbox.put(control.HeartbeatAnswer(sequence=message.sequence, time_ms=time_ms, uptime_ms=uptime_ms, boot=boot()))

    async def confirmed(self, query: Callable[[Transaction], T]) -> T:
        """Answer what a certificate depends on, as a write: of a controller that was superseded it fails, a read would not.

        Raises ControllerBehind as well.
        """

        def ask(tx: Transaction) -> T:
            head_guard.check(tx)
            return query(tx)

        return await self._store.write(ask)

    async def paced(self, peer: ClientPeer | ConnectorPeer) -> None:
        """Wait until this peer may have another configuration; what it sends meanwhile waits unread."""
        now = asyncio.get_running_loop().time()
        await asyncio.sleep(max(0.0, peer.renew_from - now))
        peer.renew_from = max(now, peer.renew_from) + RENEW_SECONDS


def _speaker(identity: ClientIdentity | ConnectorIdentity) -> str:
    """Return whose pace a channel takes: each session's own."""
    if isinstance(identity, ClientIdentity):
        return f"session {identity.principal.session}"
    return f"connector {identity.connector}"


def same_key(request: str, jkt: Thumbprint) -> signing.PublicKey:
    """Return the key of a renewal's request; raises InvalidToken unless it is the one the peer has proved."""
    key = parse_request(request)
    if signing.thumbprint(key) != jkt:
        raise InvalidToken("a certificate is renewed for the same key only")
    return key
