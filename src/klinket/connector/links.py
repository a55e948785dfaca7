"""Serves what comes in on a rendezvous connection: a link handshake, a control pipe, or a pipe for flows."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from klinket.connector.core import ConnectorCore, LinkRecord
from klinket.connector.flows import FlowServer
from klinket.connector.limits import (
    CONTROL_BURST,
    CONTROL_IDLE_SECONDS,
    CONTROL_PER_SECOND,
    CONTROL_UNIT_BYTES,
    FRAME_SECONDS,
    HELLO_SECONDS,
    MAX_PIPES,
    MAX_UNPROVEN,
)
from klinket.connector.load import ProcessLoad
from klinket.connector.name_questions import NameQuestions
from klinket.connector.pipes import ProvenPipes
from klinket.domain.errors import AuthenticationFailed, FlowRefused, KlinketError, ProtocolError
from klinket.domain.grant import Principal
from klinket.domain.token_buckets import TokenBuckets
from klinket.net import pipe as pipes
from klinket.net.clock import entropy
from klinket.net.link import LinkTerminator
from klinket.net.pipe import SealedPipe
from klinket.net.pipe_receiver import Frame
from klinket.net.relay_path import Leg
from klinket.net.tasks import TaskSet
from klinket.wire import link_control
from klinket.wire.link import Link
from klinket.wire.link_control import (
    ASK_NAME,
    RELAY_DATAGRAMS,
    AskName,
    CloseDatagrams,
    CloseLink,
    DatagramsOpened,
    GrantAccepted,
    GrantParts,
    GrantRefused,
    NoDatagrams,
    OpenDatagrams,
    Ping,
    Pong,
    PresentGrant,
)
from klinket.wire.pipe import FrameType, Purpose

logger = logging.getLogger(__name__)

#: In place of a relay's id: the client has connected to the connector itself.
DIRECT = 0


class LinkServer:
    """`terminator`: gives the newest, None before the first configuration."""

    def __init__(
        self,
        core: ConnectorCore,
        flows: FlowServer,
        clock: Callable[[], float],
        terminator: Callable[[], LinkTerminator | None],
        pipes: ProvenPipes | None = None,
        questions: NameQuestions | None = None,
    ) -> None:
        self._pipes = ProvenPipes(MAX_PIPES) if pipes is None else pipes
        self._core = core
        self._flows = flows
        self._clock = clock
        self._questions = NameQuestions(core, clock) if questions is None else questions
        self._terminator = terminator
        self._load = ProcessLoad()
        self._rates = TokenBuckets(CONTROL_BURST, CONTROL_PER_SECOND)
        self._control: dict[bytes, tuple[SealedPipe, LinkRecord]] = {}
        #: Pipes for datagrams over relays, by their link.
        self._datagrams: dict[bytes, SealedPipe] = {}
        #: By the door they came through: a flood at one pushes nobody out who came by another.
        self._unproven: dict[int, dict[socket.socket, asyncio.Task[Any]]] = {}

    async def serve(
        self,
        sock: socket.socket,
        connector_random: bytes,
        relay: int,
        proved: Callable[[], object] = lambda: None,
        leg: Leg | None = None,
    ) -> None:
        """Serve one connection a client was joined with, or has made (relay DIRECT), until it ends; closes it.

        `proved`: called once the client has shown who it is; `leg`: the connection as the relay knows it.
        """
        try:
            self._begin(sock, relay)
            try:
                async with asyncio.timeout(HELLO_SECONDS):
                    proven = await self._prove(sock, connector_random)
            finally:
                self._unproven[relay].pop(sock, None)
            if proven is None:
                return
            proved()
            pipe, record, first = proven
            del proven, connector_random  # a flow may be there for hours: it keeps nothing of how its pipe began
            try:
                self._pipes.enter(pipe, record)
                if self._core.link(record.link.handle, self._clock()) is not record:
                    return  # the link ended while its pipe began
                if pipe.purpose is Purpose.CONTROL:
                    await self._serve_control(pipe, record, first)
                elif pipe.purpose is Purpose.DATAGRAMS:
                    await self._serve_datagrams(pipe, record, first, leg)
                else:
                    flows = self._flows.serve(pipe, record, relay, first)
                    del first, leg
                    await flows
            finally:
                self._pipes.leave(pipe)
                pipe.abort()
        except OSError as error:
            logger.debug("a client's connection ended: %s", error)
        except KlinketError as error:
            logger.warning("a client's connection was refused: %s", error.message)
        finally:
            sock.close()

    async def _prove(self, sock: socket.socket, connector_random: bytes) -> tuple[SealedPipe, LinkRecord, Frame] | None:
        """Return a new pipe with its link and first frame; None where a link was made instead."""
        found: list[LinkRecord] = []

        def lookup(handle: bytes) -> Link | None:
            record = self._core.link(handle, self._clock())
            if record is None:
                return None
            found.append(record)
            return record.link

        accepted = await pipes.accept_pipe(sock, connector_random, lookup)
        if isinstance(accepted, bytes):
            await self._make_link(sock, accepted)
            return None
        # Handles are in the clear: only a frame that verifies proves that this is the link's client.
        return accepted, found[0], await accepted.receive()

    def _begin(self, sock: socket.socket, relay: int) -> None:
        """Note a connection whose client has proved nothing yet; the oldest of too many at one relay gives way."""
        unproven = self._unproven.setdefault(relay, {})
        while len(unproven) >= MAX_UNPROVEN:
            unproven.pop(next(iter(unproven))).cancel()
        task = asyncio.current_task()
        assert task is not None
        unproven[sock] = task

    async def _make_link(self, sock: socket.socket, received: bytes) -> None:
        terminator = self._terminator()
        if terminator is None:
            return
        made = await terminator.accept(sock, received, now=self._clock(), entropy=entropy)
        oldest = self._core.add_link(LinkRecord(made.link, made.identity.principal, made.jkt), self._clock())
        logger.info("link with session %s", made.identity.principal.session)
        if oldest is not None:
            self._end_control(oldest.link.handle)

    def _end_control(self, handle: bytes) -> None:
        found = self._control.pop(handle, None)
        if found is not None:
            found[0].abort()
            self._end_datagrams(handle)

    async def _serve_control(self, pipe: SealedPipe, record: LinkRecord, first: Frame) -> None:
        handle = record.link.handle
        self._end_control(handle)  # a link has one: the newer counts
        self._control[handle] = pipe, record
        parts = GrantParts()
        questions = TaskSet(f"names asked by session {record.principal.session}")
        frame = first
        try:
            while True:
                if frame.type is not FrameType.CONTROL:
                    raise ProtocolError("a control pipe carries control messages only")
                await self._paced(record.principal, frame)
                if self._core.link(handle, self._clock()) is not record:
                    return  # what is said over a link counts as long as the link does
                message = link_control.decode_from_client(frame.content)
                match message:
                    case CloseLink():
                        self._core.drop_link(handle)
                        return
                    case Ping():
                        await self._tell(pipe, Pong(load=self._load.percent()))
                    case OpenDatagrams():
                        await self._tell(pipe, self._flows.paths.open(record, message))
                    case CloseDatagrams():
                        self._flows.paths.close_path(handle)
                    case AskName():
                        refusal = self._questions.ask(message, record.principal, questions, partial(self._tell, pipe))
                        if refusal is not None:
                            await self._tell(pipe, refusal)
                    case PresentGrant():
                        token = parts.add(message)
                        if token is not None:
                            await self._tell(pipe, self._present(record, token))
                async with asyncio.timeout(FRAME_SECONDS if parts.incomplete else CONTROL_IDLE_SECONDS):
                    frame = await pipe.receive()
        finally:
            if (found := self._control.get(handle)) is not None and found[0] is pipe:
                del self._control[handle]
                self._end_datagrams(handle)
            await questions.aclose()

    def _end_datagrams(self, handle: bytes) -> None:
        """End the paths of datagrams that a link has, here and over a relay."""
        self._flows.paths.close_path(handle)
        if (pipe := self._datagrams.pop(handle, None)) is not None:
            pipe.abort()

    async def _serve_datagrams(self, pipe: SealedPipe, record: LinkRecord, first: Frame, leg: Leg | None) -> None:
        """Serve a pipe that stands for a path of datagrams over its relay: one and the other end together."""
        handle, frame = record.link.handle, first
        message = link_control.decode_from_client(frame.content) if frame.type is FrameType.CONTROL else None
        if not isinstance(message, OpenDatagrams) or leg is None or handle not in self._control:
            raise ProtocolError("a pipe for datagrams begins with open-datagrams, goes through a relay and is a live link's")
        former, self._datagrams[handle] = self._datagrams.get(handle), pipe
        if former is not None:
            former.abort()  # a link has one: the newer counts

        def opened(answer: DatagramsOpened | NoDatagrams) -> None:
            pipe.send_now(FrameType.CONTROL, link_control.encode(answer))

        paths = self._flows.paths
        receiver = paths.open_relayed(record, message, leg, opened, pipe.abort)
        try:
            await pipe.receive()  # the end of it: there is nothing more to say
            raise ProtocolError("a pipe for datagrams carries nothing more")
        finally:
            paths.close_relayed(receiver)
            if self._datagrams.get(handle) is pipe:
                del self._datagrams[handle]

    async def _paced(self, principal: Principal, frame: Frame) -> None:
        """Return when a session's message may be handled: what comes too fast waits unread, and others have their turns."""
        size = 1 + len(frame.content) // CONTROL_UNIT_BYTES
        while wait := self._rates.take(principal.session, time.monotonic(), size):
            await asyncio.sleep(wait)
        await asyncio.sleep(0)  # the next may be here already: reading it waits for nobody

    async def _tell(self, pipe: SealedPipe, message: link_control.LinkMessage) -> None:
        await pipe.send(FrameType.CONTROL, link_control.encode(message))

    def end_over(self, holds: Callable[[Principal], bool]) -> None:
        """End the control pipes, and the pipes without a flow, of principals that are over."""
        for handle, (_, record) in list(self._control.items()):
            if holds(record.principal):
                self._end_control(handle)
        self._pipes.end_resting(holds)

    def end_unfinished(self) -> None:
        """End control pipes whose link is over, and those and flows whose client has left a frame incomplete for too long."""
        before, now = time.monotonic() - FRAME_SECONDS, self._clock()
        for handle, (pipe, record) in list(self._control.items()):
            since = pipe.receiver.incomplete_since
            if (since is not None and since < before) or self._core.link(handle, now) is not record:
                self._end_control(handle)
        self._flows.end_unfinished()
        self._flows.paths.end_silent()

    def _present(self, record: LinkRecord, token: str) -> GrantAccepted | GrantRefused:
        received_at = time.monotonic()
        try:
            claims, ended = self._core.present_grant(record, token, self._clock())
        except (AuthenticationFailed, FlowRefused) as error:
            logger.warning("a grant of session %s was refused: %s", record.principal.session, error.message)
            return GrantRefused(code=error.code, message=error.message)
        self._flows.end(ended, received_at)
        expires_at_ms = round(claims.expires_at * 1000)
        return GrantAccepted(revision=claims.stamp[1], expires_at_ms=expires_at_ms, features=[ASK_NAME, RELAY_DATAGRAMS])

    def drain(self) -> None:
        """Tell every client to open new flows elsewhere."""
        self._core.draining = True
        for pipe, _ in list(self._control.values()):
            pipe.send_now(FrameType.CONTROL, link_control.encode(link_control.Drain()))
