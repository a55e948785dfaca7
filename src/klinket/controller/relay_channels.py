"""Live channels of relays: who they are and which keys sign tickets (wire/relay.py)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from starlette.websockets import WebSocket, WebSocketDisconnect

from klinket.controller.app import relays
from klinket.controller.app.ports import Store
from klinket.controller.peers import POLICY_VIOLATION, Outbox, Peers, RelayPeer
from klinket.controller.seats import proven
from klinket.controller.trust import KeyPurpose, Trust
from klinket.domain.errors import KlinketError
from klinket.net.sockets import HostPort
from klinket.wire import relay as wire

logger = logging.getLogger(__name__)


class RelayChannels:
    """Serves the live channels of relays."""

    def __init__(self, store: Store, trust: Trust, peers: Peers, clock: Callable[[], float]) -> None:
        self._store = store
        self._trust = trust
        self._peers = peers
        self._clock = clock

    async def serve(self, socket: WebSocket) -> None:
        """Serve one WebSocket until it ends."""
        scheme, _, token = socket.headers.get("authorization", "").partition(" ")
        try:
            row = await self._store.read(lambda tx: relays.by_token(tx, token if scheme == "Bearer" else ""))
        except KlinketError:
            await socket.close(POLICY_VIOLATION)
            return
        proven(socket)
        await socket.accept()
        peer = RelayPeer(row.id, Outbox(socket))
        former = self._peers.relays.get(row.id)
        self._peers.relays[row.id] = peer
        if former is not None:
            former.outbox.finish()
        sender = asyncio.create_task(peer.outbox.run())
        try:
            while True:
                async with asyncio.timeout(wire.RELAY_SILENCE_SECONDS):
                    report = wire.decode_report(await socket.receive_text())
                HostPort.parse(report.address)
                await self._store.write(
                    lambda tx: relays.report(
                        tx,
                        row.id,
                        address=report.address,  # noqa: B023 - awaited in this round
                        certificate_sha256=report.certificate_sha256,  # noqa: B023
                    )
                )
                peer.outbox.put_text(
                    wire.encode(
                        wire.RelayConfiguration(
                            relay=row.id,
                            network=self._trust.network,
                            ticket_keys=self._trust.keys[KeyPurpose.TICKET].to_jwks(),
                            time_ms=round(self._clock() * 1000),
                        )
                    )
                )
        except (WebSocketDisconnect, TimeoutError):
            pass
        except KlinketError as error:
            logger.warning("relay %s: %s", row.name, error.message)
        finally:
            if self._peers.relays.get(row.id) is peer:
                del self._peers.relays[row.id]
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)
