"""The connector's live channel: attach, heartbeats, configuration, cuts and receipts, flow events."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import Awaitable, Callable

from websockets.asyncio.client import ClientConnection

from klinket.connector.config import ConnectorConfig
from klinket.connector.core import ConnectorCore
from klinket.connector.enrol import Credentials
from klinket.connector.events import FlowEventLog
from klinket.connector.limits import LEAVE_SECONDS
from klinket.domain.errors import ConnectorTokensDead, ControllerUnreachable, InvalidToken, ProtocolError
from klinket.net import channel
from klinket.net.certificate_request import certificate_request
from klinket.net.clock import PeerClock
from klinket.net.tasks import TaskSet
from klinket.net.uptime import ToldTime, own_time
from klinket.wire import access_token, control
from klinket.wire.signing import PrivateKey
from klinket.wire.version import CONNECTOR_VERSION

logger = logging.getLogger(__name__)


class CredentialsRefused(ControllerUnreachable):
    """The access token is not believed, for example of a time when the controller's clock was ahead: enrol for another."""


class ConnectorChannel:
    """One attachment after another. `handle_cut` applies a cut and returns its receipt, or None while it cannot be judged yet."""

    def __init__(
        self,
        config: ConnectorConfig,
        key: PrivateKey,
        core: ConnectorCore,
        clock: PeerClock,
        events: FlowEventLog,
        relays: Callable[[], list[int]],
        private_ips: Callable[[], list[str]],
        direct: Callable[[], list[str]],
        configure: Callable[[control.ConnectorConfiguration], Awaitable[list[control.CutReceipt]]],
        handle_cut: Callable[[control.Cut], control.CutReceipt | None],
        renewed: Callable[[control.CertificateRenewed], None],
        exchanged: Callable[[float, ToldTime], None] = lambda asked_at, told: None,
    ) -> None:
        self._exchanged = exchanged
        self._beat_at: tuple[int, float] = (0, 0.0)
        self._began = own_time()
        self._connection: ClientConnection | None = None
        self._config = config
        self._key = key
        self._core = core
        self._clock = clock
        self._events = events
        self._relays = relays
        self._private_ips = private_ips
        self._direct = direct
        self._configure = configure
        self._handle_cut = handle_cut
        self._renewed = renewed
        self._sequence = 0
        self._left = False
        #: Hears of meetings with clients; None: this connector takes part in none.
        self.punch_told: Callable[[control.PunchInvitation | control.PunchStart], None] | None = None
        self._revision = 0
        #: The newest signed head, shown with every heartbeat.
        self.head = ""
        #: Set by the first configuration. Until the controller has believed the proof it takes nothing large.
        self._believed = asyncio.Event()
        self._relays_changed = asyncio.Event()
        self._tickets_used_up = asyncio.Event()
        self._renewal: asyncio.Task[None] | None = None

    def is_attached(self) -> bool:
        """Return whether the controller has taken this connector's proof, on a channel that is up."""
        return self._connection is not None

    def relays_changed(self) -> None:
        """Tell the controller at once at which relays this connector waits."""
        self._relays_changed.set()

    def tickets_used_up(self) -> None:
        """Ask for a configuration with fresh tickets soon: a relay takes each once, and its answer may be lost."""
        self._tickets_used_up.set()

    def abort(self) -> None:
        """Break the connection off, without another word on it."""
        if self._connection is not None:
            self._connection.transport.abort()

    async def attach(self, credentials: Credentials, context: ssl.SSLContext) -> None:
        """Attach and stay until the channel ends; raises ControllerUnreachable or ConnectorTokensDead."""
        asked_at = own_time()
        async with channel.open_channel(
            self._config.controller, control.CHANNEL_PATH, context, max_bytes=control.MAX_CONTROL_BYTES
        ) as connection:
            await self._prove(connection, credentials, asked_at)
            self._believed.clear()
            self._connection = connection
            tasks = TaskSet("connector channel")
            sent: set[str] = set()
            tasks.start(self._beat(connection), "heartbeat")
            tasks.start(self._send_events(connection), "flow events")
            tasks.start(self._renew(connection, credentials), "renewal")
            try:
                while True:
                    text = await channel.receive(connection, control.CHANNEL_SILENCE_SECONDS)
                    await self._message(connection, control.decode_to_connector(text), tasks, sent)
            finally:
                self._connection = None
                await tasks.aclose()
                self._events.channel_lost()

    async def _prove(self, connection: ClientConnection, credentials: Credentials, asked_at: float) -> None:
        challenge = control.decode_to_connector(await channel.receive(connection, 10))
        if not isinstance(challenge, control.Challenge):
            raise ProtocolError("the controller did not begin with a challenge")
        self._set_clock(challenge)
        self._exchanged(asked_at, challenge)
        if abs(self._clock.difference) > 5:
            logger.warning("this machine's clock is %.0f s off the controller's", self._clock.difference)
        proof = access_token.sign_proof(self._key, challenge.nonce, now=self._clock.now())
        attach = control.Attach(access_token=credentials.access_token, proof=proof, version=CONNECTOR_VERSION)
        await channel.send(connection, control.encode(attach))

    async def _message(self, connection: ClientConnection, message: control.ToConnector, tasks: TaskSet, sent: set[str]) -> None:
        match message:
            case control.Cut():
                receipt = self._handle_cut(message)  # before anything else, without waiting
                if receipt is not None:
                    sent.add(receipt.token)
                    await channel.send(connection, control.encode(receipt))
            case control.ConnectorConfiguration():
                self._believed.set()
                self._set_clock(message)
                self._revision = message.revision
                for receipt in await self._configure(message):
                    if receipt.token not in sent:
                        sent.add(receipt.token)
                        await channel.send(connection, control.encode(receipt))
                if self._renewal is not None:
                    self._renewal.cancel()  # one at a time: each configuration says anew when the next is due
                self._renewal = tasks.start(self._ask_again(connection, message.renew_at_ms), "renew configuration")
            case control.HeartbeatAnswer():
                self._set_clock(message)
                sequence, asked_at = self._beat_at
                if message.sequence == sequence:
                    self._exchanged(asked_at, message)
            case control.PunchInvitation() | control.PunchStart():
                if self.punch_told is not None:
                    self.punch_told(message)
            case control.FlowEventsStored():
                await self._events.stored(message.batch)
            case control.CertificateRenewed():
                self._renewed(message)
            case control.Refused():
                if message.code == ConnectorTokensDead.code:
                    raise ConnectorTokensDead(message.message, hint=message.hint)
                kind = CredentialsRefused if message.code == InvalidToken.code else ControllerUnreachable
                raise kind(f"the controller refused: {message.message}", hint=message.hint, retry_after=message.retry_after)
            case _:
                raise ProtocolError(f"unexpected {type(message).__name__}")

    def _set_clock(self, told: ToldTime) -> None:
        step = self._clock.set(told.time_ms, told.uptime_ms, told.boot)
        if step:
            self._core.clock_set(self._clock.now(), step)

    async def _beat(self, connection: ClientConnection) -> None:
        while not self._left:
            self._sequence += 1
            self._beat_at = self._sequence, own_time()
            self._relays_changed.clear()
            await channel.send(connection, control.encode(self._heartbeat()))
            try:
                async with asyncio.timeout(control.HEARTBEAT_SECONDS):
                    await self._relays_changed.wait()
            except TimeoutError:
                pass

    def _heartbeat(self, *, leaves: bool = False) -> control.Heartbeat:
        return control.Heartbeat(
            sequence=self._sequence,
            time_ms=round(time.time() * 1000),
            version=CONNECTOR_VERSION,
            hostname=socket.gethostname(),
            private_ips=self._private_ips(),
            relays=self._relays(),
            revision=self._revision,
            flows=self._core.flows,
            head=self.head,
            direct=self._direct(),
            punches=self.punch_told is not None,
            started_ms=round((self._clock.now() - (own_time() - self._began)) * 1000),
            leaves=leaves,
        )

    async def leave(self) -> None:
        """Tell the controller that this connector ends now, if there is a channel; nothing is waited for beyond LEAVE_SECONDS."""
        if self._connection is None:
            return
        self._left = True
        try:
            async with asyncio.timeout(LEAVE_SECONDS):
                await channel.send(self._connection, control.encode(self._heartbeat(leaves=True)))
        except (TimeoutError, ControllerUnreachable) as error:
            logger.info("the controller was not told that this connector ends: %s", error)

    async def _send_events(self, connection: ClientConnection) -> None:
        await self._believed.wait()
        while True:
            async for batch in self._events.unsent():
                await channel.send(connection, control.encode(batch))
            await self._events.more()

    async def _ask_again(self, connection: ClientConnection, at_ms: int) -> None:
        await channel.until_due(at_ms / 1000 - self._clock.now(), self._tickets_used_up)
        await channel.send(connection, control.encode(control.Renew()))

    async def _renew(self, connection: ClientConnection, credentials: Credentials) -> None:
        """Renew certificate and access token at half of their life, with the same key."""
        while True:
            half = (credentials.expires_at_ms / 1000 - self._clock.now()) / 2
            await self._clock.until_stepped(max(60.0, half))
            request = control.RenewCertificate(request=certificate_request(self._key))
            await channel.send(connection, control.encode(request))
