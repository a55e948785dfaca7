"""Serves what comes in on a rendezvous connection: a link handshake, a control pipe, or a pipe for flows."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable

from klinket.connector.core import ConnectorCore, LinkRecord
from klinket.connector.flows import FlowServer
from klinket.connector.limits import HELLO_SECONDS
from klinket.domain.errors import AuthenticationFailed, FlowRefused, KlinketError, ProtocolError
from klinket.net import pipe as pipes
from klinket.net.clock import entropy
from klinket.net.link import LinkTerminator
from klinket.net.pipe import SealedPipe
from klinket.wire import link_control
from klinket.wire.link import Link
from klinket.wire.link_control import CloseLink, GrantAccepted, GrantParts, GrantRefused
from klinket.wire.pipe import FrameType, Purpose

logger = logging.getLogger(__name__)


class LinkServer:
    """`terminator`: gives the newest, None before the first configuration."""

    def __init__(
        self,
        core: ConnectorCore,
        flows: FlowServer,
        clock: Callable[[], float],
        terminator: Callable[[], LinkTerminator | None],
    ) -> None:
        self._core = core
        self._flows = flows
        self._clock = clock
        self._terminator = terminator
        self._control: dict[bytes, SealedPipe] = {}

    async def serve(self, sock: socket.socket, connector_random: bytes, relay: int) -> None:
        """Serve one connection a client was joined with, until it ends; closes it."""
        found: list[LinkRecord] = []

        def lookup(handle: bytes) -> Link | None:
            record = self._core.link(handle, self._clock())
            if record is None:
                return None
            found.append(record)
            return record.link

        try:
            async with asyncio.timeout(HELLO_SECONDS):
                accepted = await pipes.accept_pipe(sock, connector_random, lookup)
                if isinstance(accepted, bytes):
                    await self._make_link(sock, accepted)
                    return
            if accepted.purpose is Purpose.CONTROL:
                await self._serve_control(accepted, found[0])
            else:
                await self._flows.serve(accepted, found[0], relay)
        except OSError as error:
            logger.debug("a client's connection ended: %s", error)
        except KlinketError as error:
            logger.warning("a client's connection was refused: %s", error.message)
        finally:
            sock.close()

    async def _make_link(self, sock: socket.socket, received: bytes) -> None:
        terminator = self._terminator()
        if terminator is None:
            return
        made = await terminator.accept(sock, received, now=self._clock(), entropy=entropy)
        self._core.add_link(LinkRecord(made.link, made.identity.principal, made.jkt), self._clock())
        logger.info("link with session %s", made.identity.principal.session)

    async def _serve_control(self, pipe: SealedPipe, record: LinkRecord) -> None:
        handle = record.link.handle
        self._control[handle] = pipe
        parts = GrantParts()
        try:
            while True:
                frame = await pipe.receive()
                if frame.type is not FrameType.CONTROL:
                    raise ProtocolError("a control pipe carries control messages only")
                message = link_control.decode_from_client(frame.content)
                if isinstance(message, CloseLink):
                    self._core.drop_link(handle)
                    return
                token = parts.add(message)
                if token is not None:
                    await pipe.send(FrameType.CONTROL, link_control.encode(self._present(record, token)))
        finally:
            if self._control.get(handle) is pipe:
                del self._control[handle]
            pipe.abort()

    def _present(self, record: LinkRecord, token: str) -> GrantAccepted | GrantRefused:
        received_at = time.monotonic()
        try:
            claims, ended = self._core.present_grant(record, token, self._clock())
        except (AuthenticationFailed, FlowRefused) as error:
            logger.warning("a grant of session %s was refused: %s", record.principal.session, error.message)
            return GrantRefused(code=error.code, message=error.message)
        self._flows.end(ended, received_at)
        return GrantAccepted(revision=claims.stamp[1], expires_at_ms=round(claims.expires_at * 1000))

    def drain(self) -> None:
        """Tell every client to open new flows elsewhere."""
        self._core.draining = True
        for pipe in list(self._control.values()):
            pipe.send_now(FrameType.CONTROL, link_control.encode(link_control.Drain()))
