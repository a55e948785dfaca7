"""The client's live channel: attach, heartbeats, configurations, the end of the session."""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from klinket.client.login import Session, refusal
from klinket.domain.errors import AuthenticationFailed, ControllerUnreachable, KlinketError, ProtocolError, SessionOver
from klinket.net import channel
from klinket.net.certificate_request import certificate_request
from klinket.net.clock import PeerClock
from klinket.net.tasks import TaskSet
from klinket.net.uptime import ToldTime, own_time
from klinket.wire import access_token, control
from klinket.wire.version import PRODUCT_VERSION

if TYPE_CHECKING:
    from websockets.asyncio.client import ClientConnection

logger = logging.getLogger(__name__)


class ClientChannel:
    """One attachment after another."""

    def __init__(
        self,
        url: str,
        context: ssl.SSLContext,
        clock: PeerClock,
        configure: Callable[[control.ClientConfiguration], None],
        renewed: Callable[[control.CertificateRenewed], None],
        exchanged: Callable[[float, ToldTime], None] = lambda asked_at, told: None,
        only: Sequence[str] = (),
    ) -> None:
        """`exchanged`: told own_time() before the controller was asked, and its answer, as CopyWatch wants it.

        `only`: resources that grants are to be for, () for all.
        """
        self._only = list(only)
        self._exchanged = exchanged
        self._beat_at: tuple[int, float] = (0, 0.0)
        self.url = url
        self.context = context
        self._clock = clock
        self._configure = configure
        self._renewed = renewed
        self._sequence = 0
        #: Hears what the controller says of meetings.
        self.punch_told: Callable[[control.PunchTold], None] = lambda message: None
        self._connection: ClientConnection | None = None
        self._tickets_used_up = asyncio.Event()

    def tickets_used_up(self) -> None:
        """Ask for a configuration with fresh tickets soon: a relay takes each once, and its answer may be lost."""
        self._tickets_used_up.set()

    async def attach(self, session: Session) -> None:
        """Attach and stay until the channel ends; raises ControllerUnreachable, or why the session is over."""
        asked_at = own_time()
        async with channel.open_channel(
            self.url, control.CHANNEL_PATH, self.context, max_bytes=control.MAX_CONTROL_BYTES
        ) as connection:
            await self._prove(connection, session, asked_at)
            self._clock.stepped.clear()  # what it is now, everything before counts by
            self._connection = connection
            tasks = TaskSet("client channel")
            tasks.start(self._beat(connection), "heartbeat")
            tasks.start(self._renew_certificate(connection, session), "certificate")
            renewal: asyncio.Task[None] | None = None
            try:
                while True:
                    text = await channel.receive(connection, control.CHANNEL_SILENCE_SECONDS)
                    message = control.decode_to_client(text)
                    self._message(message)
                    if isinstance(message, control.ClientConfiguration):
                        if renewal is not None:
                            renewal.cancel()
                        renewal = tasks.start(self._ask_again(connection, message.renew_at_ms), "renew grants")
            finally:
                self._connection = None
                await tasks.aclose()

    async def _prove(self, connection: ClientConnection, session: Session, asked_at: float) -> None:
        challenge = control.decode_to_client(await channel.receive(connection, 10))
        if not isinstance(challenge, control.Challenge):
            raise ProtocolError("the controller did not begin with a challenge")
        self._clock.set(challenge.time_ms)
        self._exchanged(asked_at, challenge)
        proof = access_token.sign_proof(session.key, challenge.nonce, now=self._clock.now())
        attach = control.Attach(access_token=session.access_token, proof=proof, version=PRODUCT_VERSION, only=self._only)
        await channel.send(connection, control.encode(attach))

    def _message(self, message: control.ToClient) -> None:
        match message:
            case control.ClientConfiguration():
                self._clock.set(message.time_ms)
                self._configure(message)
            case control.HeartbeatAnswer():
                self._clock.set(message.time_ms)
                sequence, asked_at = self._beat_at
                if message.sequence == sequence:
                    self._exchanged(asked_at, message)
            case control.CertificateRenewed():
                self._renewed(message)
            case control.PunchInvitation() | control.PunchStart() | control.PunchRefused():
                self.punch_told(message)
            case control.SessionEnded():
                error = refusal(message.code, message.message, message.hint)
                # Whatever the word: this session is over. Logging in again tells whether the key still works.
                raise error if isinstance(error, AuthenticationFailed) else SessionOver(message.message)
            case control.Refused():
                raise self._refused(message)
            case _:
                raise ProtocolError(f"unexpected {type(message).__name__}")

    def _refused(self, message: control.Refused) -> KlinketError:
        error = refusal(message.code, message.message, message.hint, message.retry_after)
        if isinstance(error, AuthenticationFailed):
            return error
        # Throttled, an old access token, an overloaded controller: attaching again, with what is fresh then, is the answer.
        return ControllerUnreachable(
            f"the controller refused the channel: {message.message}", hint=message.hint, retry_after=message.retry_after
        )

    async def _beat(self, connection: ClientConnection) -> None:
        while True:
            await asyncio.sleep(control.HEARTBEAT_SECONDS)
            self._sequence += 1
            self._beat_at = self._sequence, own_time()
            beat = control.Heartbeat(sequence=self._sequence, time_ms=round(time.time() * 1000))
            await channel.send(connection, control.encode(beat))

    async def _ask_again(self, connection: ClientConnection, at_ms: int) -> None:
        await channel.until_due(at_ms / 1000 - self._clock.now(), self._tickets_used_up)
        await channel.send(connection, control.encode(control.Renew()))

    async def _renew_certificate(self, connection: ClientConnection, session: Session) -> None:
        while True:
            half = (session.expires_at_ms / 1000 - self._clock.now()) / 2
            await self._clock.until_stepped(max(30.0, half))
            request = control.RenewCertificate(request=certificate_request(session.key))
            await channel.send(connection, control.encode(request))

    def abort(self) -> None:
        """Break the connection off, without another word on it."""
        if self._connection is not None:
            self._connection.transport.abort()

    def forked(self) -> None:
        """Close the connection's socket, in a child of fork()."""
        if self._connection is not None:
            os.close(self._connection.transport.get_extra_info("socket").fileno())
            self._connection = None

    async def end_session(self) -> bool:
        """Tell the controller that the session is over, if the channel is up; returns whether it could be told."""
        return await self.send(control.EndSession())

    async def send(self, message: control.Message) -> bool:
        """Say something to the controller, if the channel is up; returns whether it could be said."""
        if self._connection is None:
            return False
        try:
            await channel.send(self._connection, control.encode(message))
        except ControllerUnreachable:
            return False
        return True
