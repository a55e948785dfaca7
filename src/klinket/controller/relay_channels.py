"""Live channels of relays: who they are and which keys sign tickets (wire/relay.py)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from starlette.websockets import WebSocket, WebSocketDisconnect

from klinket.controller.app import relays
from klinket.controller.app.ports import Store
from klinket.controller.app.rows import RelayRow
from klinket.controller.channel_pace import ChannelPace
from klinket.controller.peers import POLICY_VIOLATION, TRY_AGAIN, Outbox, Peers, RelayPeer, receive_text
from klinket.controller.request import address_of, bearer
from klinket.controller.seats import is_modern, proven
from klinket.controller.trust import KeyPurpose, Trust
from klinket.domain.errors import AuthenticationFailed, KlinketError
from klinket.net.sockets import HostPort
from klinket.wire import relay as wire
from klinket.wire.relay import RelayReport

logger = logging.getLogger(__name__)


class RelayChannels:
    """Serves the live channels of relays."""

    def __init__(self, store: Store, trust: Trust, peers: Peers, clock: Callable[[], float]) -> None:
        self._store = store
        self._trust = trust
        self._peers = peers
        self._clock = clock
        self._pace = ChannelPace()

    async def serve(self, socket: WebSocket) -> None:
        """Serve one WebSocket until it ends."""
        token = bearer(socket)
        if not is_modern(socket):
            return await socket.close(POLICY_VIOLATION)
        try:
            row = await self._store.read(lambda tx: relays.by_token(tx, token))
        except AuthenticationFailed as error:
            logger.warning("relay from %s refused: %s", address_of(socket), error.message)
            return await socket.close(POLICY_VIOLATION)
        except KlinketError as error:
            logger.warning("relay from %s not answered: %s", address_of(socket), error.code)
            return await socket.close(TRY_AGAIN)
        proven(socket)
        await socket.accept()
        try:
            await self._attend(socket, row)
        except (WebSocketDisconnect, TimeoutError):
            pass
        except AuthenticationFailed as error:
            logger.warning("relay %s from %s refused: %s", row.name, address_of(socket), error.message)
            await _close(socket, POLICY_VIOLATION)
        except Exception as error:
            known = isinstance(error, KlinketError)
            logger.warning("relay %s: its channel ends: %s", row.name, error, exc_info=None if known else error)
            await _close(socket, TRY_AGAIN)
        return None

    async def _attend(self, socket: WebSocket, row: RelayRow) -> None:
        """Take reports and answer each until the relay goes or is silent for too long."""
        peer = RelayPeer(row.id, row.token_hash, Outbox(socket))
        former = self._peers.relays.get(row.id)
        self._peers.relays[row.id] = peer
        if former is not None:
            former.outbox.finish()
        sender = asyncio.create_task(peer.outbox.run())
        try:
            while True:
                async with asyncio.timeout(wire.RELAY_SILENCE_SECONDS):
                    text = await receive_text(socket)
                report = wire.decode_report(text)
                await self._pace.message(f"relay {row.id}", address_of(socket))
                await self._take(row, report, address_of(socket))
                peer.outbox.put_text(wire.encode(self._configuration(row.id)))
        finally:
            if self._peers.relays.get(row.id) is peer:
                del self._peers.relays[row.id]
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)

    def tell_all(self) -> None:
        """Tell all attached relays the time, and the keys of tickets."""
        for peer in self._peers.relays.values():
            peer.outbox.put_text(wire.encode(self._configuration(peer.relay)))

    async def _take(self, row: RelayRow, report: RelayReport, source: str) -> None:
        HostPort.parse(report.address)
        await self._store.write(
            lambda tx: relays.report(
                tx, row.id, row.token_hash, address=report.address, certificate_sha256=report.certificate_sha256, source=source
            )
        )

    def _configuration(self, relay: int) -> wire.RelayConfiguration:
        return wire.RelayConfiguration(
            relay=relay,
            network=self._trust.network,
            ticket_keys=self._trust.keys[KeyPurpose.TICKET].to_jwks(),
            time_ms=round(self._clock() * 1000),
        )


async def _close(socket: WebSocket, code: int) -> None:
    try:
        await socket.close(code)
    except RuntimeError:
        pass  # it is closed already
